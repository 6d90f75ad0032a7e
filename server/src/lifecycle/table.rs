//! The table of the state machine: which verb leads from which status to which.

use crate::task::{MoveVerb, Status};

macro_rules! verbs {
    ($($(#[doc = $doc:literal])+ $Verb:ident = $token:literal, $call:literal;)+) => {
        /// What can be done to a task.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Verb {
            $($(#[doc = $doc])+ $Verb,)+
        }

        impl Verb {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$Verb),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                self.told().as_str()
            }

            /// The verb as it is told.
            pub const fn told(self) -> MoveVerb {
                match self { $(Self::$Verb => MoveVerb::$Verb),+ }
            }

            /// Whether the caller must show the token of the task's lease.
            pub const fn needs_token(self) -> bool {
                match self { $(Self::$Verb => $token),+ }
            }

            /// Which calls come to it, in Markdown.
            pub const fn call(self) -> &'static str {
                match self { $(Self::$Verb => $call),+ }
            }
        }
    };
}

verbs! {
    /// A worker takes it.
    Claim = false, "`POST /tasks/claim`, `POST /tasks/{id}/claim`";
    /// Its worker reports that it goes on.
    Heartbeat = true, "`POST /tasks/{id}/heartbeat`";
    /// Its claim is answered once more: it is no longer withdrawn with the first answer.
    Repeat = true, "none: a claim with the same claim id is answered once more";
    /// Its worker brings the result.
    Complete = true, "`POST /tasks/{id}/complete`";
    /// Its worker gives up this attempt.
    Fail = true, "`POST /tasks/{id}/fail`";
    /// Its worker gives it back, at no cost.
    Release = true, "`POST /tasks/{id}/release`";
    /// It was claimed for a caller that had gone away: the claim is undone, or kept from landing if it has not yet.
    Withdraw = true, "none: a claim whose caller has gone";
    /// Its worker acknowledges the cancellation.
    AcknowledgeCancel = true, "`POST /tasks/{id}/cancel` with `lease_token`";
    /// The sweeper takes it back: the lease or the attempt ran out.
    Expire = false, "none: the sweeper";
    /// Its time has come.
    Promote = false, "none: the promoter";
    /// Its owner asks for its cancellation.
    Cancel = false, "`POST /tasks/{id}/cancel`";
    /// Its owner wants it now, or again.
    Execute = false, "`POST /tasks/{id}/execute`";
    /// Its owner changes fields.
    Edit = false, "`PUT /tasks/{id}`";
    /// Its owner removes it.
    Delete = false, "`DELETE /tasks/{id}`";
    /// A service begins its own work on it.
    Begin = false, "`PUT /tasks/{id}/status` `processing`";
    /// A service ends its own work on it.
    End = false, "`PUT /tasks/{id}/status` `completed`, `failed`";
}

/// A row of the table: where a verb leads from one status.
#[derive(Debug, Clone, Copy)]
pub struct Transition {
    /// What is done.
    pub verb: Verb,
    /// Where the task stands.
    pub from: Status,
    /// Where it may stand afterwards.
    pub to: &'static [Status],
}

const fn row(verb: Verb, from: Status, to: &'static [Status]) -> Transition {
    Transition { verb, from, to }
}

use Status::{Cancelled, Completed, Failed, Held, Pending, Processing, Scheduled};

/// The state machine. Complete leads from `pending`, `scheduled` and `held` too where the lease ran out and nobody has claimed the
/// task since. A deleted task keeps or gets a final status, which nobody sees.
pub const TRANSITIONS: &[Transition] = &[
    row(Verb::Claim, Pending, &[Processing]),
    row(Verb::Heartbeat, Processing, &[Processing]),
    row(Verb::Repeat, Processing, &[Processing]),
    row(Verb::Complete, Processing, &[Completed]),
    row(Verb::Complete, Pending, &[Completed]),
    row(Verb::Complete, Scheduled, &[Completed]),
    row(Verb::Complete, Held, &[Completed]),
    row(Verb::Fail, Processing, &[Scheduled, Failed, Cancelled]),
    row(Verb::Release, Processing, &[Pending, Scheduled, Cancelled]),
    row(Verb::Withdraw, Pending, &[Pending]),
    row(Verb::Withdraw, Processing, &[Pending, Cancelled]),
    row(Verb::AcknowledgeCancel, Processing, &[Cancelled]),
    row(Verb::Expire, Processing, &[Pending, Scheduled, Failed, Cancelled]),
    row(Verb::Promote, Scheduled, &[Pending]),
    row(Verb::Cancel, Pending, &[Cancelled]),
    row(Verb::Cancel, Scheduled, &[Cancelled]),
    row(Verb::Cancel, Held, &[Cancelled]),
    row(Verb::Cancel, Processing, &[Processing, Cancelled]),
    row(Verb::Cancel, Cancelled, &[Cancelled]),
    row(Verb::Execute, Scheduled, &[Pending, Scheduled]),
    row(Verb::Execute, Completed, &[Pending, Scheduled]),
    row(Verb::Execute, Failed, &[Pending, Scheduled]),
    row(Verb::Execute, Cancelled, &[Pending, Scheduled]),
    row(Verb::Edit, Pending, &[Pending, Scheduled]),
    row(Verb::Edit, Scheduled, &[Pending, Scheduled]),
    row(Verb::Edit, Held, &[Held]),
    row(Verb::Delete, Pending, &[Cancelled]),
    row(Verb::Delete, Scheduled, &[Cancelled]),
    row(Verb::Delete, Held, &[Cancelled]),
    row(Verb::Delete, Processing, &[Cancelled]),
    row(Verb::Delete, Completed, &[Completed]),
    row(Verb::Delete, Failed, &[Failed]),
    row(Verb::Delete, Cancelled, &[Cancelled]),
    row(Verb::Begin, Pending, &[Processing]),
    row(Verb::End, Processing, &[Completed, Failed]),
];

impl Verb {
    /// Where the verb may lead from that status; `None`: it may not be done there.
    pub fn leads(self, from: Status) -> Option<&'static [Status]> {
        TRANSITIONS.iter().find(|row| row.verb == self && row.from == from).map(|row| row.to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_verb_has_rows_and_one_for_each_status_at_most() {
        for verb in Verb::ALL {
            let from: Vec<_> =
                TRANSITIONS.iter().filter(|row| row.verb == *verb).map(|row| row.from).collect();
            assert!(!from.is_empty(), "{verb:?}");
            assert_eq!(from.iter().collect::<HashSet<_>>().len(), from.len(), "{verb:?}");
        }
    }

    #[test]
    fn only_execute_and_delete_touch_what_is_done() {
        for row in TRANSITIONS.iter().filter(|row| matches!(row.from, Completed | Failed)) {
            assert!(matches!(row.verb, Verb::Execute | Verb::Delete), "{row:?}");
        }
    }

    #[test]
    fn nobody_works_on_what_is_held_or_makes_it_ready() {
        for row in TRANSITIONS.iter().filter(|row| row.from == Held) {
            assert!(!row.to.contains(&Pending) && !row.to.contains(&Processing), "{row:?}");
        }
    }
}
