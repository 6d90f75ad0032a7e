//! Task types: what holds for their tasks, and pauses.

use std::time::Instant;

use task_repo_protocol::{NewPause, TaskType, TaskTypeSettings, task_type_is_valid};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{ExpectedSettings, StoreError};
use crate::task_types::{PauseRecord, SettingsRecord, TypeRecord};

/// Most task types of a tenant that have settings, and most that are paused.
const MAX_TYPES: usize = 10_000;

/// What `If-Match` says of what is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing: it may be there or not.
    Absent,
    /// It must be there.
    Any,
    /// It must be there in one of these versions.
    Versions(Vec<i64>),
}

impl From<IfMatch> for ExpectedSettings {
    fn from(if_match: IfMatch) -> Self {
        match if_match {
            IfMatch::Absent => Self::Any,
            IfMatch::Any => Self::Some,
            IfMatch::Versions(versions) => Self::Version(versions),
        }
    }
}

impl TaskService {
    /// Gives a type these settings in place of what it has; `given` is the JSON text in which they came.
    ///
    /// # Errors
    /// When the caller may not see the type, `if_match` does not hold, or the tenant has too many types with settings.
    pub async fn set_task_type(
        &self,
        caller: &Caller,
        task_type: &str,
        settings: &TaskTypeSettings,
        given: String,
        if_match: IfMatch,
    ) -> Result<TaskType, Failure> {
        let (tenant, until) = (&*caller.scope.tenant, caller.deadline.at());
        may_see(caller, task_type)?;
        let known = self.types.get(tenant, task_type);
        if if_match == IfMatch::Absent && known.is_none_or(|known| known.settings.is_none()) {
            is_below_limit(self.types.count(tenant).0)?;
        }
        let (settings, expected) = (SettingsRecord::new(settings, given), if_match.into());
        let written = self.store.set_type_settings(tenant, task_type, &settings, &expected, until).await;
        if let Some(record) = self.changed(written, until).await? {
            return self.shown(caller, task_type, Some(record), true).await;
        }
        let record = self.store.task_type(tenant, task_type, until).await?;
        let found = record.filter(|record| record.settings.is_some());
        let conflict = found.map(|record| Failure::SettingsConflict { version: record.version });
        Err(conflict.unwrap_or_else(|| Failure::no_task_type(task_type)))
    }

    /// Removes the settings of a type.
    ///
    /// # Errors
    /// When it has none, or the caller may not see it.
    pub async fn remove_task_type(&self, caller: &Caller, task_type: &str) -> Result<(), Failure> {
        may_see(caller, task_type)?;
        let until = caller.deadline.at();
        let removed = self.store.remove_type_settings(&caller.scope.tenant, task_type, until).await;
        match self.changed(removed, until).await? {
            Some(_) => Ok(()),
            None => Err(Failure::no_task_type(task_type)),
        }
    }

    /// Has claims get nothing of a type, whether it is known or not.
    ///
    /// # Errors
    /// When the caller may not see it, or the tenant has too many pauses.
    pub async fn pause_task_type(
        &self,
        caller: &Caller,
        task_type: &str,
        pause: NewPause,
    ) -> Result<TaskType, Failure> {
        may_see(caller, task_type)?;
        let (tenant, until) = (&*caller.scope.tenant, caller.deadline.at());
        let now = self.store.clock().now();
        if !self.types.is_paused(tenant, task_type, now) {
            is_below_limit(self.types.count(tenant).1)?;
        }
        let NewPause { reason, until: ends } = pause;
        let pause = PauseRecord { reason, until: ends, since: now };
        let paused = self.store.pause_type(tenant, task_type, &pause, until).await;
        let record = self.changed(paused, until).await?;
        self.shown(caller, task_type, record, true).await
    }

    /// Ends the pause of a type.
    ///
    /// # Errors
    /// When there is no such type, or the caller may not see it.
    pub async fn resume_task_type(&self, caller: &Caller, task_type: &str) -> Result<TaskType, Failure> {
        may_see(caller, task_type)?;
        let (tenant, until) = (&*caller.scope.tenant, caller.deadline.at());
        let resumed = self.store.resume_type(tenant, task_type, until).await;
        let record = self.changed(resumed, until).await?;
        // The pause may have ended by itself a moment ago, or its end may have been heard of and not been acted on yet.
        self.dispatch.resumed(tenant, task_type);
        // It may have been nothing but paused.
        let is_known = record.is_some();
        self.shown(caller, task_type, record, is_known).await
    }

    /// A type with what holds for it and how it is doing.
    ///
    /// # Errors
    /// When there is no such type, or the caller may not see it.
    pub async fn task_type(&self, caller: &Caller, task_type: &str) -> Result<TaskType, Failure> {
        may_see(caller, task_type)?;
        let until = caller.deadline.at();
        let record = self.store.task_type(&caller.scope.tenant, task_type, until).await?;
        self.shown(caller, task_type, record, false).await
    }

    /// Takes note of a write of a type here, and has every server read it.
    async fn changed(
        &self,
        written: Result<Option<TypeRecord>, StoreError>,
        until: Instant,
    ) -> Result<Option<TypeRecord>, Failure> {
        if let Ok(Some(record)) = &written {
            self.note_type(record.clone());
        }
        // Counted also when the outcome is unknown, because the write may have been made.
        if !matches!(written, Ok(None) | Err(StoreError::Overloaded)) {
            self.store.count_type_change(until).await?;
        }
        Ok(written?)
    }
}

/// What a key cannot see is to it as if it did not exist.
fn may_see(caller: &Caller, task_type: &str) -> Result<(), Failure> {
    if task_type_is_valid(task_type) && caller.scope.may_use(task_type) {
        return Ok(());
    }
    Err(Failure::no_task_type(task_type))
}

fn is_below_limit(current: usize) -> Result<(), Failure> {
    if current < MAX_TYPES {
        return Ok(());
    }
    let (limit, current) = (MAX_TYPES as u64, current as u64);
    Err(Failure::LimitExceeded { limit_type: "task_types", limit, current })
}
