//! What this server knows of task types: every type with settings or a pause, in memory, so that creates and claims ask
//! without a read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::{Mutex, RwLock};

use super::record::{PauseRecord, SettingsRecord, TypeRecord};
use crate::lifecycle::{
    DEFAULT_LEASE_SECONDS, DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_LOSSES, DEFAULT_TIMEOUT_SECONDS,
};
use crate::task::LimitsRecord;

/// For how long a type without settings and pause is remembered, so that a read that began before they were removed does
/// not bring them back.
const REMOVED_KEPT: TimeDelta = TimeDelta::minutes(1);

/// A type with settings or a pause.
#[derive(Debug, Clone)]
pub struct KnownType {
    /// What was said of its tasks, without the text in which it was given.
    pub settings: Option<SettingsRecord>,
    /// The version of the settings.
    pub version: i64,
    pause: Option<PauseRecord>,
    revision: i64,
    changed_at: DateTime<Utc>,
}

impl KnownType {
    /// Whether claims get nothing of it.
    pub fn is_paused(&self, now: DateTime<Utc>) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.holds(now))
    }

    fn is_nothing(&self) -> bool {
        self.settings.is_none() && self.pause.is_none()
    }
}

impl From<TypeRecord> for KnownType {
    fn from(record: TypeRecord) -> Self {
        let TypeRecord { settings, version, pause, revision, changed_at, .. } = record;
        let settings = settings.map(|settings| SettingsRecord { given: String::new(), ..settings });
        Self { settings, version, pause, revision, changed_at }
    }
}

/// The types of a tenant.
#[derive(Debug, Default)]
struct OfTenant {
    types: HashMap<String, Arc<KnownType>>,
    /// How many of them have settings.
    with_settings: usize,
    /// How many of them have a pause, ended or not.
    with_pause: usize,
}

impl OfTenant {
    fn insert(&mut self, task_type: String, known: KnownType) {
        self.with_settings += usize::from(known.settings.is_some());
        self.with_pause += usize::from(known.pause.is_some());
        if let Some(before) = self.types.insert(task_type, Arc::new(known)) {
            self.with_settings -= usize::from(before.settings.is_some());
            self.with_pause -= usize::from(before.pause.is_some());
        }
    }
}

/// What has been heard of changes of task types.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard {
    /// How many changes had been counted at the latest read, and when that was.
    pub read: Option<(i64, Instant)>,
    /// The latest change that was read.
    pub newest: Option<DateTime<Utc>>,
    /// When documents that say nothing any more were last removed.
    pub cleaned_up: Option<Instant>,
}

/// Every type with settings or a pause, as far as this server knows.
#[derive(Debug)]
pub struct KnownTypes {
    /// What has been heard of changes.
    pub heard: Mutex<Heard>,
    by_tenant: RwLock<HashMap<String, OfTenant>>,
    /// How long a task stays where nobody says otherwise, in seconds.
    retention_seconds: u32,
}

impl KnownTypes {
    /// None is known yet. What nobody says otherwise stays that long once it is final, in seconds.
    pub fn new(retention_seconds: u32) -> Self {
        Self { heard: Mutex::default(), by_tenant: RwLock::default(), retention_seconds }
    }

    /// Takes note of a type as it was read or written. What is older than what is known changes nothing. Returns whether
    /// work of the type that was held back may be given out now.
    pub fn note(&self, record: TypeRecord) -> bool {
        let mut by_tenant = self.by_tenant.write();
        let of_tenant = by_tenant.entry(record.tenant.clone()).or_default();
        let before = of_tenant.types.get(&record.task_type);
        if before.is_some_and(|before| before.revision >= record.revision) {
            return false;
        }
        let was_paused = before.is_some_and(|before| before.pause.is_some());
        let is_resumed = was_paused && record.pause.is_none();
        of_tenant.insert(record.task_type.clone(), record.into());
        is_resumed
    }

    /// Forgets types whose settings and pause were removed some time before `now`.
    pub fn forget_removed(&self, now: DateTime<Utc>) {
        let is_kept = |known: &KnownType| !known.is_nothing() || known.changed_at > now - REMOVED_KEPT;
        let mut by_tenant = self.by_tenant.write();
        by_tenant.values_mut().for_each(|of| of.types.retain(|_, known| is_kept(known)));
        by_tenant.retain(|_, of| !of.types.is_empty());
    }

    /// A type, if it has settings or a pause.
    pub fn get(&self, tenant: &str, task_type: &str) -> Option<Arc<KnownType>> {
        self.by_tenant.read().get(tenant)?.types.get(task_type).cloned()
    }

    /// How many types of a tenant have settings, and how many a pause.
    pub fn count(&self, tenant: &str) -> (usize, usize) {
        let by_tenant = self.by_tenant.read();
        by_tenant.get(tenant).map_or((0, 0), |of| (of.with_settings, of.with_pause))
    }

    /// Of these types those that are not paused; `None`: none of them is paused.
    pub fn open(&self, tenant: &str, task_types: &[String], now: DateTime<Utc>) -> Option<Vec<String>> {
        let by_tenant = self.by_tenant.read();
        let known = by_tenant.get(tenant).filter(|of| of.with_pause > 0)?;
        let is_paused = |name: &String| known.types.get(name).is_some_and(|known| known.is_paused(now));
        let some_are_paused = task_types.iter().any(is_paused);
        some_are_paused.then(|| task_types.iter().filter(|name| !is_paused(name)).cloned().collect())
    }

    /// Whether claims get nothing of that type.
    pub fn is_paused(&self, tenant: &str, task_type: &str, now: DateTime<Utc>) -> bool {
        let by_tenant = self.by_tenant.read();
        let known = by_tenant.get(tenant).and_then(|of| of.types.get(task_type));
        known.is_some_and(|known| known.is_paused(now))
    }

    /// Whether some type of that tenant has a pause, ended or not.
    pub fn has_pauses(&self, tenant: &str) -> bool {
        self.count(tenant).1 > 0
    }

    /// The limits of a task of that type that says nothing of its own.
    pub fn limits(&self, tenant: &str, task_type: &str) -> LimitsRecord {
        let known = self.get(tenant, task_type);
        let settings = known.as_ref().and_then(|known| known.settings.as_ref());
        let retention = settings.and_then(|settings| settings.retention_seconds);
        LimitsRecord {
            max_attempts: settings.and_then(|it| it.max_attempts).unwrap_or(DEFAULT_MAX_ATTEMPTS),
            retry: settings.and_then(|it| it.retry.clone()).unwrap_or_default(),
            lease_seconds: settings.and_then(|it| it.lease_seconds).unwrap_or(DEFAULT_LEASE_SECONDS),
            timeout_seconds: settings.and_then(|it| it.timeout_seconds).unwrap_or(DEFAULT_TIMEOUT_SECONDS),
            retention_seconds: match settings {
                Some(settings) if settings.stays_for_ever => None,
                _ => Some(retention.unwrap_or(self.retention_seconds)),
            },
        }
    }

    /// How many lost leases a task of that type survives.
    pub fn max_losses(&self, tenant: &str, task_type: &str) -> u32 {
        let known = self.get(tenant, task_type);
        known.and_then(|known| known.settings.as_ref()?.max_losses).unwrap_or(DEFAULT_MAX_LOSSES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: i64, pause: Option<PauseRecord>) -> TypeRecord {
        TypeRecord {
            tenant: "t".to_owned(),
            task_type: "a".to_owned(),
            settings: None,
            version: 0,
            pause,
            revision,
            changed_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_older_than_what_is_known_changes_nothing() {
        let types = KnownTypes::new(7);
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(100);
        let pause = PauseRecord { reason: None, until: None, since: now };
        assert!(!types.note(record(2, Some(pause.clone()))));
        assert!(!types.note(record(1, None)), "older");
        assert!(types.is_paused("t", "a", now) && types.has_pauses("t"));
        assert_eq!(types.open("t", &["a".to_owned(), "b".to_owned()], now), Some(vec!["b".to_owned()]));
        assert!(types.note(record(3, None)), "resumed");
        assert!(!types.note(record(2, Some(pause))), "older");
        assert_eq!(types.open("t", &["a".to_owned()], now), None);
        types.forget_removed(now);
        assert!(types.get("t", "a").is_none());
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let types = KnownTypes::new(7);
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        types.note(record(1, Some(PauseRecord { reason: None, until: Some(at(10)), since: at(0) })));
        assert!(types.is_paused("t", "a", at(9)));
        assert!(!types.is_paused("t", "a", at(10)));
    }

    #[test]
    fn a_task_that_says_nothing_gets_what_its_type_says_and_else_the_default() {
        let types = KnownTypes::new(7);
        let given = r#"{"lease_seconds":90,"retention_seconds":null,"max_losses":5}"#;
        let settings = serde_json::from_str(given).expect("settings");
        let settings = Some(SettingsRecord::new(&settings, given.to_owned()));
        types.note(TypeRecord { settings, ..record(1, None) });
        let limits = types.limits("t", "a");
        assert_eq!((limits.lease_seconds, limits.timeout_seconds), (90, DEFAULT_TIMEOUT_SECONDS));
        assert_eq!((limits.retention_seconds, types.max_losses("t", "a")), (None, 5));
        assert_eq!(types.limits("other", "a").retention_seconds, Some(7));
    }
}
