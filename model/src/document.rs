//! A task as the database keeps it, when a call is allowed, and what it changes.
//!
//! These are the rules of `server/src/lifecycle/` with what the protocol does not turn on left out: payloads, times,
//! cancellation, editing, and the wait before a retry, which is over at once here.

use crate::bounds::Bounds;
use crate::fault::Variation;

/// Most claims that one task can see within the bounds: one for each attempt, each release
/// and each withdrawal.
pub const MAX_CLAIMS: usize = 4;

/// A lease token: the how-manieth claim of its task it came from. The real ones are random, so nobody guesses one.
pub type Token = u8;

/// A claim as its worker names it: whoever sends the same again means the same claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId {
    /// Who wants something.
    pub worker: u8,
    /// The how-manieth thing that it wants. Always 0 where claims have no ids.
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

/// What can be done to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
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
    /// Who holds it.
    pub token: Option<Token>,
    /// Its holder's claim was answered once more: it does not go back with the first answer.
    pub is_kept: bool,
    /// Whose lease ran out, while nobody has claimed the task since: may still complete it.
    pub lost_token: Option<Token>,
    /// What that was when its holder claimed the task. It is put back if the claim is undone.
    pub lost_before: Option<Token>,
    /// Every attempt, by its token.
    pub attempts: [Attempt; MAX_CLAIMS],
    /// The ids of the claims that they came from, where claims have ids.
    pub claim_ids: [Option<ClaimId>; MAX_CLAIMS],
    /// Left by the latest write. The real one is random; here it is renumbered, see [`crate::state`].
    pub stamp: u8,
}

/// What a task says to a call.
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

    /// Whether `call` is allowed. Looks, changes nothing.
    pub fn rule(&self, call: Call, variation: Variation) -> Ruling {
        let is_held = self.status == Status::Processing;
        let is_allowed = match call {
            Call::Claim(_) => self.status == Status::Pending,
            Call::Expire => is_held,
            Call::Heartbeat(token) | Call::Repeat(token) => is_held && self.token == Some(token),
            Call::Withdraw(token) => {
                let may_go = !self.is_kept || variation == Variation::WithdrawThoughKept;
                is_held && self.token == Some(token) && may_go
            }
            Call::Settle(..) if is_held && variation == Variation::SettleWithoutToken => true,
            Call::Settle(token, _) if is_held && self.token == Some(token) => true,
            Call::Settle(token, verb) => match self.attempts[usize::from(token)] {
                Attempt::Settled(before, _) if before == verb && variation == Variation::ReceiptOfToday => {
                    return Ruling::Repeat(self.receipt());
                }
                Attempt::Settled(before, receipt) if before == verb => return Ruling::Repeat(receipt),
                _ => verb == Verb::Complete && self.lost_token == Some(token) && !self.status.is_final(),
            },
        };
        if is_allowed { Ruling::Change } else { Ruling::Refuse }
    }

    /// The task after `call`, whether it is allowed or not.
    #[must_use]
    pub fn after(mut self, call: Call, bounds: &Bounds, variation: Variation) -> Self {
        match call {
            Call::Heartbeat(_) => return self,
            Call::Repeat(_) => {
                self.is_kept |= variation != Variation::RepeatWithoutMark;
                return self;
            }
            _ => self.is_kept = false,
        }
        self.version += 1;
        let lost_before = self.lost_before.take();
        match call {
            Call::Heartbeat(_) | Call::Repeat(_) => {}
            Call::Claim(id) => {
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
            Call::Expire => self.lose(bounds, variation),
            Call::Withdraw(token) => {
                self.token = None;
                self.lost_token = lost_before;
                self.status = Status::Pending;
                self.attempt = self.attempt.saturating_sub(1);
                self.attempts[usize::from(token)] = Attempt::Withdrawn;
                self.claim_ids[usize::from(token)] = None;
            }
            Call::Settle(token, verb) => {
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

    fn lose(&mut self, bounds: &Bounds, variation: Variation) {
        let token = self.token.take();
        if let Some(token) = token {
            self.attempts[usize::from(token)] = Attempt::Lost;
        }
        self.losses += 1;
        if variation == Variation::LossGivesAttemptBack {
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
