//! A task as the contract has it: what each call makes of it. Written from `docs/api.md`, not from the server.

use serde_json::{Value, json};
use task_repo_tests::in_seconds;

use crate::verbs::with;

/// In seconds: long enough that nothing put off by it comes due within a test.
pub(crate) const HOUR: u32 = 3600;

/// How a token is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Complete,
    Fail { never: bool },
    Release { delayed: bool },
    Acknowledge,
}

impl Verb {
    /// Its name in the path, and what it says beside the token.
    pub(crate) fn call(self) -> (&'static str, Value) {
        match self {
            Self::Complete => ("complete", json!({})),
            Self::Acknowledge => ("cancel", json!({})),
            Self::Release { delayed } => ("release", json!({"delay_seconds": u32::from(delayed) * HOUR})),
            Self::Fail { never } => {
                let retry = if never { "never" } else { "auto" };
                (
                    "fail",
                    json!({"error": {"message": "it broke"}, "retry": retry, "retry_after_seconds": HOUR}),
                )
            }
        }
    }

    /// The outcome that says the same.
    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::Complete => "completed",
            Self::Acknowledge => "cancelled",
            Self::Release { .. } => "released",
            Self::Fail { .. } => "failed",
        }
    }
}

/// What a `PUT` changes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit {
    Priority,
    MaxAttempts,
    Later,
    Now,
}

/// A task as the contract has it.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) attempt: u8,
    pub(crate) losses: u8,
    /// In a row.
    pub(crate) releases: u8,
    pub(crate) max_attempts: u8,
    pub(crate) priority: u8,
    pub(crate) version: u64,
    pub(crate) holder: Option<usize>,
    /// Its lease ran out, and nobody has taken it back or heard of the holder since.
    pub(crate) is_overdue: bool,
    /// Whose lease ran out and was taken back: may still complete it.
    pub(crate) lost: Option<usize>,
    pub(crate) is_deleted: bool,
    pub(crate) cancel_requested: bool,
    pub(crate) progress: Option<u8>,
    /// The answer to the first cancel, and where the task stood.
    pub(crate) cancelled: Option<(&'static str, Value)>,
}

impl Task {
    pub(crate) fn new(id: &str, priority: u8, delayed: bool, max_attempts: u8) -> Self {
        let (status, reason) = if delayed { ("scheduled", Some("delayed")) } else { ("pending", None) };
        Self {
            id: id.to_owned(),
            status,
            reason,
            attempt: 0,
            losses: 0,
            releases: 0,
            max_attempts,
            priority,
            version: 1,
            holder: None,
            is_overdue: false,
            lost: None,
            is_deleted: false,
            cancel_requested: false,
            progress: None,
            cancelled: None,
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        ["completed", "failed", "cancelled"].contains(&self.status)
    }

    pub(crate) fn stand(&mut self, status: &'static str, reason: Option<&'static str>) {
        (self.status, self.reason) = (status, reason);
        self.version += 1;
        if self.is_final() {
            self.lost = None;
        }
    }

    pub(crate) fn claim(&mut self, token: usize) {
        self.stand("processing", None);
        self.attempt += 1;
        self.holder = Some(token);
        self.lost = None;
        self.progress = None;
    }

    /// Whether that token may complete it although its lease was taken back.
    pub(crate) fn takes_late(&self, token: usize, verb: Verb) -> bool {
        self.lost == Some(token) && verb == Verb::Complete
    }

    /// The sweeper takes it back.
    pub(crate) fn lose(&mut self) {
        let holder = self.holder.take();
        self.losses += 1;
        self.releases = 0;
        if self.cancel_requested {
            self.stand("cancelled", None);
        } else if self.losses == 3 || self.attempt >= self.max_attempts {
            self.stand("failed", Some("lost"));
        } else {
            self.stand("pending", None);
            self.lost = holder;
        }
    }

    pub(crate) fn settle(&mut self, verb: Verb) {
        self.holder = None;
        self.is_overdue = false;
        if let Verb::Release { .. } = verb {
            self.attempt -= 1;
            self.releases += 1;
        } else {
            self.releases = 0;
        }
        let (status, reason) = match verb {
            Verb::Complete => ("completed", None),
            Verb::Acknowledge => ("cancelled", None),
            _ if self.cancel_requested => ("cancelled", None),
            Verb::Fail { never: true } => ("failed", Some("error")),
            Verb::Fail { .. } if self.attempt >= self.max_attempts => ("failed", Some("exhausted")),
            Verb::Fail { .. } => ("scheduled", Some("retry")),
            Verb::Release { delayed: true } => ("scheduled", Some("delayed")),
            Verb::Release { delayed: false } => ("pending", None),
        };
        self.stand(status, reason);
    }

    pub(crate) fn execute(&mut self) {
        if self.is_final() {
            (self.attempt, self.losses, self.progress, self.cancelled) = (0, 0, None, None);
            self.releases = 0;
            self.cancel_requested = false;
        }
        self.stand("pending", None);
    }

    /// What changes, as the body of a `PUT`.
    pub(crate) fn edit(&mut self, edit: Edit) -> Value {
        match edit {
            Edit::Priority => {
                self.priority = (self.priority + 1) % 3;
                self.version += 1;
                json!({"priority": self.priority})
            }
            Edit::MaxAttempts => {
                self.max_attempts = self.max_attempts % 5 + 1;
                self.version += 1;
                json!({"max_attempts": self.max_attempts})
            }
            Edit::Later => {
                self.stand("scheduled", self.reason.or(Some("delayed")));
                json!({"run_at": in_seconds(i64::from(HOUR))})
            }
            Edit::Now => {
                self.stand("pending", None);
                json!({"run_at": null})
            }
        }
    }

    /// What every receipt says, but for the time.
    pub(crate) fn receipt(&self) -> Value {
        json!({
            "id": self.id, "status": self.status, "reason": self.reason, "attempt": self.attempt,
            "version": self.version,
        })
    }

    /// What a `GET` says.
    pub(crate) fn shown(&self) -> Value {
        let more = json!({
            "priority": self.priority, "max_attempts": self.max_attempts, "losses": self.losses,
            "releases": self.releases,
            "lease": self.holder.is_some(), "cancel_requested_at": self.cancel_requested,
            "completed_at": self.is_final(), "progress": self.progress, "run_at": self.status == "scheduled",
        });
        with(self.receipt(), more)
    }
}

/// The same members of what the server shows; of times and leases only whether there is one.
pub(crate) fn shown(task: &Value) -> Value {
    let mut shown = json!({});
    let members =
        ["id", "status", "reason", "attempt", "version", "priority", "max_attempts", "losses", "releases"];
    for member in members {
        shown[member] = task[member].clone();
    }
    for member in ["lease", "cancel_requested_at", "completed_at"] {
        shown[member] = (!task[member].is_null()).into();
    }
    // A time that has passed may stay.
    shown["run_at"] = (task["status"] == "scheduled" && task["run_at"].is_string()).into();
    shown["progress"] = task["progress"]["text"].as_str().and_then(|text| text.parse::<u8>().ok()).into();
    shown
}
