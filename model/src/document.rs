//! A task as the database keeps it, when a call is allowed, and what it changes.
//!
//! These are the rules of `server/src/lifecycle/` with what the protocol does not turn on left out: payloads, times,
//! cancellation, editing, and the wait before a retry, which is over at once here.

use crate::{Bounds, Variation};

/// Most claims that one task can see within the bounds: one for each attempt, one for each release.
pub const MAX_CLAIMS: usize = 4;

/// A lease token: the how-manieth claim of its task it came from. The real ones are random, so nobody guesses one.
pub type Token = u8;

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
    /// Ended by its worker, with the receipt that was given.
    Settled(Verb, Receipt),
}

/// What can be done to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// That worker takes it.
    Claim(u8),
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
    /// Whose lease ran out, while nobody has claimed the task since: may still complete it.
    pub lost_token: Option<Token>,
    /// Every attempt, by its token.
    pub attempts: [Attempt; MAX_CLAIMS],
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
            lost_token: None,
            attempts: [Attempt::Never; MAX_CLAIMS],
            stamp: 0,
        }
    }

    /// How many claims there were.
    pub fn claims(&self) -> usize {
        self.attempts.iter().filter(|attempt| **attempt != Attempt::Never).count()
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
            Call::Heartbeat(token) => is_held && self.token == Some(token),
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
        if let Call::Heartbeat(_) = call {
            return self;
        }
        self.version += 1;
        match call {
            Call::Heartbeat(_) => {}
            Call::Claim(_) => {
                let claims = self.claims();
                if let Some(attempt) = self.attempts.get_mut(claims) {
                    *attempt = Attempt::Running;
                }
                self.token = u8::try_from(claims).ok();
                self.lost_token = None;
                self.status = Status::Processing;
                self.attempt += 1;
            }
            Call::Expire => self.lose(bounds, variation),
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
