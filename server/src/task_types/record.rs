//! A task type as it is stored.

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{serde_as, skip_serializing_none};
use task_repo_protocol::{NewRetryPolicy, Pause, TaskTypeSettings};

use crate::kept::Kept;
use crate::task::RetryRecord;

/// A task type that has, or lately had, settings or a pause.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TypeRecord {
    /// Whose it is.
    pub tenant: String,
    /// The queue's name.
    pub task_type: String,
    /// What holds for its tasks; absent: nothing was said.
    pub settings: Option<SettingsRecord>,
    /// Grows with each change of the settings, and goes on growing after they were removed.
    #[serde(default)]
    pub version: i64,
    /// That no work of it is given out.
    pub pause: Option<PauseRecord>,
    /// Grows with each write of this document.
    pub revision: i64,
    /// When it was written last, by the database's clock.
    #[serde_as(as = "Date")]
    pub changed_at: DateTime<Utc>,
}

/// What holds for the tasks of a type that say nothing else. Absent is the server's default.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// JSON text: what was given, which answers show. Reads for all types at once leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub given: String,
    /// How long a lease holds, in seconds.
    pub lease_seconds: Option<u32>,
    /// How long an attempt may take, in seconds.
    pub timeout_seconds: Option<u32>,
    /// How many attempts may begin.
    pub max_attempts: Option<u32>,
    /// When a failed attempt is followed by another.
    pub retry: Option<Kept<RetryRecord>>,
    /// How long a task stays once final, in seconds.
    pub retention_seconds: Option<u32>,
    /// A task stays for ever once it is final.
    #[serde(default)]
    pub stays_for_ever: bool,
    /// How many lost leases a task survives.
    pub max_losses: Option<u32>,
    /// Beyond so many tasks that are ready or scheduled, creates are refused.
    pub max_pending: Option<i64>,
    /// Requests must fit the schema that was given.
    #[serde(default)]
    pub has_schema: bool,
}

impl SettingsRecord {
    /// Of settings that keep to all rules, and the JSON text in which they were given.
    pub fn new(settings: &TaskTypeSettings, given: String) -> Self {
        let whole = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        Self {
            given,
            lease_seconds: whole(settings.lease_seconds),
            timeout_seconds: whole(settings.timeout_seconds),
            max_attempts: whole(settings.max_attempts),
            retry: settings.retry.map(|policy: NewRetryPolicy| RetryRecord::from(policy).into()),
            retention_seconds: whole(settings.retention_seconds.flatten()),
            stays_for_ever: settings.retention_seconds == Some(None),
            max_losses: whole(settings.max_losses),
            max_pending: settings.max_pending,
            has_schema: settings.request_schema.is_some(),
        }
    }
}

/// That no work of a type is given out.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// For people.
    pub reason: Option<String>,
    /// When it ends by itself.
    #[serde_as(as = "Option<Date>")]
    pub until: Option<DateTime<Utc>>,
    /// When it began.
    #[serde_as(as = "Date")]
    pub since: DateTime<Utc>,
}

impl PauseRecord {
    /// Whether it has not ended yet.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl From<PauseRecord> for Pause {
    fn from(pause: PauseRecord) -> Self {
        let PauseRecord { reason, until, since } = pause;
        Self { reason, until, since }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn what_a_newer_version_adds_stops_nobody() {
        let now = bson::DateTime::now();
        let stored = doc! {
            "tenant": "t", "task_type": "a", "revision": 4_i64, "changed_at": now, "newer": 1,
            "settings": { "lease_seconds": 90, "newer": { "b": 1 } },
            "pause": { "since": now, "newer": "x" },
        };
        let read: TypeRecord = bson::deserialize_from_document(stored).expect("all that it must have");
        let settings = read.settings.expect("settings");
        assert_eq!((settings.lease_seconds, settings.stays_for_ever), (Some(90), false));
        assert!(read.pause.is_some_and(|pause| pause.holds(DateTime::<Utc>::MAX_UTC)));
    }

    #[test]
    fn null_retention_is_for_ever_and_absent_is_the_default() {
        let read = |text: &str| {
            let settings: TaskTypeSettings = serde_json::from_str(text).expect("settings");
            let record = SettingsRecord::new(&settings, text.to_owned());
            (record.retention_seconds, record.stays_for_ever)
        };
        assert_eq!(read(r#"{"retention_seconds":null}"#), (None, true));
        assert_eq!(read(r#"{"retention_seconds":0}"#), (Some(0), false));
        assert_eq!(read("{}"), (None, false));
    }
}
