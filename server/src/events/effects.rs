//! What moves change in counts and roll-ups. Pure: whoever applies it does so once.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::Deserialize;
use task_repo_protocol::Uuid;

use crate::task::{AttemptEnding, AttemptStatus, MoveVerb, Reason, Status, TaskMove, UsageRecord};

/// How much wider each bucket of times is than the one before: percentiles are off by less than 5 %.
const BUCKET_FACTOR: f64 = 1.1;
/// Most of the latest tasks that are shown of a kind of failure.
const SAMPLE: usize = 3;
/// How many codes of failures are counted by themselves in an hour of a type.
pub const MAX_CODES: usize = 100;
/// The code under which the rest is counted.
const OTHER_CODE: &str = "other";
/// The code of a loss.
const LOST_CODE: &str = "lost";

/// By how much the number of tasks in a status changes.
pub type Standing = BTreeMap<Status, i64>;

/// Whose counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeKey {
    /// The tenant.
    pub tenant: String,
    /// The type.
    pub task_type: String,
}

/// Whose roll-up, of which hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HourKey {
    /// The tenant.
    pub tenant: String,
    /// When the hour begins.
    pub hour: DateTime<Utc>,
    /// The type.
    pub task_type: String,
}

/// Which failures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureKey {
    /// Of which hour and type.
    pub of: HourKey,
    /// For programs; absent where the worker named none.
    pub code: Option<String>,
    /// The task's reason after the attempt.
    pub reason: Option<Reason>,
}

/// Moves of tasks, by where they led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Moves {
    /// New tasks.
    pub created: i64,
    /// To `completed`.
    pub completed: i64,
    /// To `failed`.
    pub failed: i64,
    /// To `cancelled`.
    pub cancelled: i64,
}

/// What changes for a type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeEffect {
    /// The number of tasks by status, in the valid counts.
    pub standing: Standing,
    /// The same in the counts that are being made anew.
    pub standing_anew: Standing,
    /// Moves by minute, counted since 1970.
    pub minutes: BTreeMap<i64, Moves>,
    /// When the latest move was.
    pub last_at: DateTime<Utc>,
}

/// Times, as their sum and how many there are in each bucket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Times {
    /// In milliseconds.
    pub sum_ms: i64,
    /// How many, by the number of the bucket.
    pub buckets: BTreeMap<i32, i64>,
}

/// What changes in an hour of a type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HourEffect {
    /// Moves of tasks.
    pub moves: Moves,
    /// Attempts that brought a result.
    pub succeeded: i64,
    /// Attempts that failed or ran past their timeout.
    pub failed: i64,
    /// Attempts whose lease ran out. One that is completed all the same is taken back.
    pub lost: i64,
    /// How long those took that succeeded or failed.
    pub durations: Times,
    /// How long tasks had been ready before the attempts that are counted.
    pub waits: Times,
    /// The resources that attempts used.
    pub usage: UsageRecord,
}

/// What changes for a kind of failure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FailureEffect {
    /// How many more; a late completion takes one back.
    pub count: i64,
    /// What was seen, if anything was.
    pub seen: Option<SeenFailures>,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenFailures {
    /// When the first ended.
    pub first_at: DateTime<Utc>,
    /// When the last ended.
    pub last_at: DateTime<Utc>,
    /// Of the last one.
    pub message: Option<String>,
    /// The latest tasks, the newest last.
    pub sample: Vec<Uuid>,
}

/// What moves change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effects {
    /// By type.
    pub types: BTreeMap<TypeKey, TypeEffect>,
    /// By hour and type.
    pub hours: BTreeMap<HourKey, HourEffect>,
    /// By hour, type, code and reason.
    pub failures: BTreeMap<FailureKey, FailureEffect>,
}

impl Effects {
    /// Adds what `it` changes. `counts_anew`: also in the counts that are being made anew.
    pub fn add(&mut self, it: &TaskMove, counts_anew: bool) {
        let key = TypeKey { tenant: it.tenant.clone(), task_type: it.task_type.clone() };
        let effect = self.types.entry(key).or_insert_with(|| TypeEffect::since(it.at));
        effect.last_at = effect.last_at.max(it.at);
        for (status, change) in standing(it) {
            *effect.standing.entry(status).or_default() += change;
            if counts_anew {
                *effect.standing_anew.entry(status).or_default() += change;
            }
        }
        let moves = Moves::of(it);
        if moves != Moves::default() {
            let minute = effect.minutes.entry(it.at.timestamp().div_euclid(60)).or_default();
            *minute = minute.plus(moves);
        }
        let hour = self.hour(it, it.at);
        hour.moves = hour.moves.plus(moves);
        if let Some(end) = &it.end {
            hour.usage = hour.usage.plus(end.usage.unwrap_or_default());
            if counts(it, end) {
                self.add_end(it, end);
            }
        }
    }

    fn add_end(&mut self, it: &TaskMove, end: &AttemptEnding) {
        let hour = self.hour(it, it.at);
        if let Some(waited) = end.waited_ms {
            hour.waits.add(waited, 1);
        }
        let took = (it.at - end.started_at).num_milliseconds().max(0);
        match end.status {
            AttemptStatus::Completed => hour.succeeded += 1,
            AttemptStatus::Lost => hour.lost += 1,
            _ => hour.failed += 1,
        }
        if end.status != AttemptStatus::Lost {
            hour.durations.add(took, 1);
        }
        if end.late {
            self.take_loss_back(it, end);
        }
        if end.status == AttemptStatus::Completed {
            return;
        }
        let code = if end.status == AttemptStatus::Lost {
            Some(LOST_CODE.to_owned())
        } else {
            end.error.as_ref().and_then(|error| error.code.clone())
        };
        let key = FailureKey { of: hour_key(it, it.at), code, reason: it.reason };
        let failure = self.failures.entry(key).or_default();
        failure.count += 1;
        let seen = failure.seen.get_or_insert_with(|| SeenFailures {
            first_at: it.at,
            last_at: it.at,
            message: None,
            sample: Vec::new(),
        });
        (seen.first_at, seen.last_at) = (seen.first_at.min(it.at), seen.last_at.max(it.at));
        seen.message = end.error.as_ref().map(|error| error.message.clone());
        seen.sample.push(it.task);
        seen.sample.drain(..seen.sample.len().saturating_sub(SAMPLE));
    }

    /// A late completion takes its loss back. Only a loss that left the task unfinished can be followed by one, so its
    /// reason was none.
    fn take_loss_back(&mut self, it: &TaskMove, end: &AttemptEnding) {
        let lost_at = end.lost_at.unwrap_or(it.at);
        let hour = self.hour(it, lost_at);
        hour.lost -= 1;
        if let Some(waited) = end.waited_ms {
            hour.waits.add(waited, -1);
        }
        let key = FailureKey { of: hour_key(it, lost_at), code: Some(LOST_CODE.to_owned()), reason: None };
        self.failures.entry(key).or_default().count -= 1;
    }

    fn hour(&mut self, it: &TaskMove, at: DateTime<Utc>) -> &mut HourEffect {
        self.hours.entry(hour_key(it, at)).or_default()
    }

    /// Counts those failures under [`OTHER_CODE`] whose code has no place of its own: `place` gives one, or refuses.
    pub fn bound_codes(&mut self, mut place: impl FnMut(&HourKey, &str) -> bool) {
        for (mut key, effect) in std::mem::take(&mut self.failures) {
            if key.code.as_deref().is_some_and(|code| !place(&key.of, code)) {
                key.code = Some(OTHER_CODE.to_owned());
            }
            self.failures.entry(key).or_default().join(effect);
        }
    }
}

impl FailureEffect {
    fn join(&mut self, other: Self) {
        self.count += other.count;
        let Some(more) = other.seen else { return };
        let Some(seen) = &mut self.seen else {
            self.seen = Some(more);
            return;
        };
        seen.first_at = seen.first_at.min(more.first_at);
        if more.last_at >= seen.last_at {
            (seen.last_at, seen.message) = (more.last_at, more.message);
        }
        seen.sample.extend(more.sample);
        seen.sample.drain(..seen.sample.len().saturating_sub(SAMPLE));
    }
}

/// How the number of tasks by status changes. Deleted tasks count nowhere.
fn standing(it: &TaskMove) -> Vec<(Status, i64)> {
    let mut changes = Vec::with_capacity(2);
    if let Some(from) = it.from {
        changes.push((from, -1));
    }
    if it.verb != MoveVerb::Delete {
        changes.push((it.to, 1));
    }
    if it.from == Some(it.to) && it.verb != MoveVerb::Delete {
        changes.clear();
    }
    changes
}

/// Whether the end of an attempt counts as an execution.
fn counts(it: &TaskMove, end: &AttemptEnding) -> bool {
    match end.status {
        AttemptStatus::Completed => true,
        // Whatever ends so after its cancellation was asked for counts nowhere.
        AttemptStatus::Failed | AttemptStatus::Timeout | AttemptStatus::Lost => it.to != Status::Cancelled,
        _ => false,
    }
}

fn hour_key(it: &TaskMove, at: DateTime<Utc>) -> HourKey {
    let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
    HourKey { tenant: it.tenant.clone(), hour, task_type: it.task_type.clone() }
}

impl Moves {
    fn of(it: &TaskMove) -> Self {
        let mut moves = Self { created: i64::from(it.verb == MoveVerb::Create), ..Self::default() };
        if it.from != Some(it.to) && it.verb != MoveVerb::Delete {
            match it.to {
                Status::Completed => moves.completed = 1,
                Status::Failed => moves.failed = 1,
                Status::Cancelled => moves.cancelled = 1,
                _ => {}
            }
        }
        moves
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            created: self.created + other.created,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

impl TypeEffect {
    fn since(at: DateTime<Utc>) -> Self {
        Self {
            standing: Standing::new(),
            standing_anew: Standing::new(),
            minutes: BTreeMap::new(),
            last_at: at,
        }
    }
}

impl Times {
    fn add(&mut self, millis: i64, count: i64) {
        self.sum_ms += millis * count;
        *self.buckets.entry(bucket_of(millis)).or_default() += count;
    }
}

/// The bucket of a time: bucket n > 0 holds what is above 1.1ⁿ⁻¹ and up to 1.1ⁿ milliseconds, bucket 0 what is up to one.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "years are far below either bound"
)]
fn bucket_of(millis: i64) -> i32 {
    if millis <= 1 { 0 } else { ((millis as f64).ln() / BUCKET_FACTOR.ln()).ceil() as i32 }
}

impl HourEffect {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
