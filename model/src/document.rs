//! A task as the database keeps it, what can be done to it, when that is allowed, and what it changes.
//!
//! These are the rules of `server/src/lifecycle/` with what the protocol does not turn on left out: payloads, times,
//! cancellation, editing, and the wait before a retry, which is over at once here.

use crate::bounds::Bounds;
use crate::fault::InjectedFault;

/// Most claims that one task can see within the bounds: one for each attempt, each release
/// and each withdrawal.
pub const MAX_CLAIMS: usize = 4;

/// A lease token: the number of the claim of its task that it came from, from 0. The real tokens are random, so no worker
/// guesses one.
pub type Token = u8;

/// The id of a claim: a request with the same id is a repetition of the same claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId {
    /// The worker that claims.
    pub worker: u8,
    /// The number of this claim among those of its worker, from 0. Always 0 where claims have no ids.
    pub wish: u8,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Ready to be claimed.
    Pending,
    /// Under a lease.
    Processing,
    /// Final: done.
    Completed,
    /// Final: no attempt left, or too many leases lost.
    Failed,
}

impl Status {
    /// Whether nothing moves a task on from here.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// How a worker ends its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// The work is done.
    Complete,
    /// The attempt failed; another one follows while some are left.
    Fail,
    /// The attempt is not counted.
    Release,
}

/// What a settlement is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Where the task stood afterwards.
    pub status: Status,
    /// The attempts that counted then.
    pub attempt: u8,
    /// The task's version then.
    pub version: u8,
}

/// How an attempt went, as the task remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attempt {
    /// There was no such claim yet.
    Never,
    /// Not ended.
    Running,
    /// Its lease was taken away.
    Lost,
    /// Its server took it back for a caller that had gone. The real one is not remembered at all.
    Withdrawn,
    /// Ended by its worker, with the receipt that was given.
    Settled(Verb, Receipt),
}

/// What a worker, a server or the sweeper wants to do to a task, as `Intent` in `server/src/lifecycle/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskIntent {
    /// Its worker takes it.
    Claim(ClaimId),
    /// Its claim is answered once more.
    Repeat(Token),
    /// The server takes back what it claimed for a caller that has gone.
    Withdraw(Token),
    /// Its worker goes on: the lease is renewed.
    Heartbeat(Token),
    /// Its worker ends the attempt.
    Settle(Token, Verb),
    /// The sweeper takes it back.
    Expire,
}

/// A task as the database keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Document {
    /// Where it stands.
    pub status: Status,
    /// The attempts that count.
    pub attempt: u8,
    /// The leases that were taken away.
    pub losses: u8,
    /// Grows with every change but a heartbeat.
    pub version: u8,
    /// The token of the lease, while there is one.
    pub token: Option<Token>,
    /// The claim of its lease was answered once more, so the server of the first answer must not withdraw it.
    pub is_kept: bool,
    /// The token of a lease that ran out, until the task is claimed again: its worker may still complete the task.
    pub lost_token: Option<Token>,
    /// What `lost_token` was when the task was claimed. It is restored if the claim is withdrawn.
    pub lost_before: Option<Token>,
    /// Every attempt, by its token.
    pub attempts: [Attempt; MAX_CLAIMS],
    /// The ids of the claims that they came from, where claims have ids.
    pub claim_ids: [Option<ClaimId>; MAX_CLAIMS],
    /// Left by the latest write. The real one is random; here it is renumbered, see [`crate::state`].
    pub stamp: u8,
}

/// What the rules say to an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It may be changed.
    Change,
    /// The token settled it like that before: this was the answer.
    Repeat(Receipt),
    /// No.
    Refuse,
}

impl Document {
    /// A task that nobody has claimed yet.
    pub fn new() -> Self {
        Self {
            status: Status::Pending,
            attempt: 0,
            losses: 0,
            version: 1,
            token: None,
            is_kept: false,
            lost_token: None,
            lost_before: None,
            attempts: [Attempt::Never; MAX_CLAIMS],
            claim_ids: [None; MAX_CLAIMS],
            stamp: 0,
        }
    }

    /// How many claims there were.
    pub fn claims(&self) -> usize {
        self.attempts.iter().filter(|attempt| **attempt != Attempt::Never).count()
    }

    /// Whether it may be claimed, and there is room for one more claim.
    pub fn is_ready(&self) -> bool {
        self.status == Status::Pending && self.claims() < MAX_CLAIMS
    }

    /// The token that a claim with that id got.
    pub fn token_of(&self, id: ClaimId) -> Option<Token> {
        (0..).zip(&self.claim_ids).find_map(|(token, known)| (*known == Some(id)).then_some(token))
    }

    /// The receipt of the task as it stands.
    pub fn receipt(&self) -> Receipt {
        Receipt { status: self.status, attempt: self.attempt, version: self.version }
    }

    /// Whether `intent` is allowed. Changes nothing.
    pub fn rule(&self, intent: TaskIntent, fault: Option<InjectedFault>) -> Ruling {
        let is_held = self.status == Status::Processing;
        let is_allowed = match intent {
            TaskIntent::Claim(_) => self.status == Status::Pending,
            TaskIntent::Expire => is_held,
            TaskIntent::Heartbeat(token) | TaskIntent::Repeat(token) => is_held && self.token == Some(token),
            TaskIntent::Withdraw(token) => {
                let may_go = !self.is_kept || fault == Some(InjectedFault::WithdrawThoughKept);
                is_held && self.token == Some(token) && may_go
            }
            TaskIntent::Settle(..) if is_held && fault == Some(InjectedFault::SettleWithoutToken) => true,
            TaskIntent::Settle(token, _) if is_held && self.token == Some(token) => true,
            TaskIntent::Settle(token, verb) => match self.attempts[usize::from(token)] {
                Attempt::Settled(before, _)
                    if before == verb && fault == Some(InjectedFault::ReceiptOfCurrentState) =>
                {
                    return Ruling::Repeat(self.receipt());
                }
                Attempt::Settled(before, receipt) if before == verb => return Ruling::Repeat(receipt),
                _ => verb == Verb::Complete && self.lost_token == Some(token) && !self.status.is_final(),
            },
        };
        if is_allowed { Ruling::Change } else { Ruling::Refuse }
    }

    /// The task after `intent`, whether it is allowed or not.
    #[must_use]
    pub fn after(mut self, intent: TaskIntent, bounds: &Bounds, fault: Option<InjectedFault>) -> Self {
        match intent {
            TaskIntent::Heartbeat(_) => return self,
            TaskIntent::Repeat(_) => {
                self.is_kept |= fault != Some(InjectedFault::RepeatNotRecorded);
                return self;
            }
            _ => self.is_kept = false,
        }
        self.version += 1;
        let lost_before = self.lost_before.take();
        match intent {
            TaskIntent::Heartbeat(_) | TaskIntent::Repeat(_) => {}
            TaskIntent::Claim(id) => {
                let claims = self.claims();
                if let Some(attempt) = self.attempts.get_mut(claims) {
                    *attempt = Attempt::Running;
                    self.claim_ids[claims] = bounds.withdrawals.map(|_| id);
                }
                self.token = u8::try_from(claims).ok();
                self.lost_before = self.lost_token.take();
                self.status = Status::Processing;
                self.attempt += 1;
            }
            TaskIntent::Expire => self.lose(bounds, fault),
            TaskIntent::Withdraw(token) => {
                self.token = None;
                self.lost_token = lost_before;
                self.status = Status::Pending;
                self.attempt = self.attempt.saturating_sub(1);
                self.attempts[usize::from(token)] = Attempt::Withdrawn;
                self.claim_ids[usize::from(token)] = None;
            }
            TaskIntent::Settle(token, verb) => {
                self.token = None;
                self.lost_token = None;
                self.status = match verb {
                    Verb::Complete => Status::Completed,
                    Verb::Fail if self.attempt >= bounds.max_attempts => Status::Failed,
                    Verb::Fail | Verb::Release => Status::Pending,
                };
                if verb == Verb::Release {
                    self.attempt = self.attempt.saturating_sub(1);
                }
                self.attempts[usize::from(token)] = Attempt::Settled(verb, self.receipt());
            }
        }
        self
    }

    fn lose(&mut self, bounds: &Bounds, fault: Option<InjectedFault>) {
        let token = self.token.take();
        if let Some(token) = token {
            self.attempts[usize::from(token)] = Attempt::Lost;
        }
        self.losses += 1;
        if fault == Some(InjectedFault::LossNotCounted) {
            self.attempt = self.attempt.saturating_sub(1);
        }
        if self.losses >= bounds.max_losses || self.attempt >= bounds.max_attempts {
            self.status = Status::Failed;
        } else {
            self.status = Status::Pending;
            self.lost_token = token;
        }
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}
