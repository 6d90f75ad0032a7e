//! The feed: one server of the installation reads the change stream of the tasks, and stores what moved in the event log,
//! together with the counts and roll-ups that follow from it.
//!
//! | file | what it does |
//! |---|---|
//! | [`moves_read`] | what the changes tell, with what has to be looked up in the tasks |
//! | [`codes`] | which codes of failures are counted by themselves |
//! | [`state`] | how far the feed is, for health and metrics |

mod codes;
mod moves_read;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::sync::Mutex;

use super::runner::{Job, JobRound, Steps};
use super::server_registry::ThisServer;
use crate::events::Effects;
use crate::store::{
    ChangeStream, ClusterTime, FeedBatch, FeedPosition, LogDocument, LogGap, PositionLost, ReadChanges,
    ReadFrom, Recount, Store, StoreError,
};
use codes::Codes;
use moves_read::MovesRead;
pub use state::FeedState;

/// The name of the job, and of its lease.
pub(super) const JOB: &str = "feed";
/// How long a server that has stopped renewing keeps the feed.
const JOB_LEASE: Duration = Duration::from_secs(6);
/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(2);
/// A reader that has not renewed its lease for so long writes nothing more.
const TRUSTED: Duration = Duration::from_secs(5);
/// How often a server that does not read asks whether it should.
const CANDIDATE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a read that has brought everything there was.
const PACE: Duration = Duration::from_millis(150);
/// The pause while tasks are counted anew: the database has other work too.
const RECOUNT_PAUSE: Duration = Duration::from_millis(10);
/// How old the position may get while nothing happens: counts are right up to it.
const REFRESH: TimeDelta = TimeDelta::milliseconds(800);
/// How many gaps are remembered.
const MAX_GAPS: usize = 100;
/// How often old entries of log and counts are removed.
const CLEANING: Duration = Duration::from_secs(60);
/// How long failures are counted by the hour.
const FAILURES_KEPT: TimeDelta = TimeDelta::days(32);
/// How long a task type is remembered that has no task.
const TYPES_KEPT: TimeDelta = TimeDelta::days(31);

/// The job.
pub(super) struct FeedReader {
    store: Store,
    server: Arc<ThisServer>,
    state: Arc<FeedState>,
    log_kept: TimeDelta,
    reader: Mutex<Option<Reader>>,
}

/// What the server knows that reads the feed. It is thrown away with every failure: the position in the database says what
/// was stored.
struct Reader {
    position: FeedPosition,
    stream: Option<ChangeStream>,
    /// When the latest change was made that was read.
    passed: ClusterTime,
    moves: MovesRead,
    codes: Codes,
    renewed: Instant,
    cleaned: Option<Instant>,
}

impl FeedReader {
    pub(super) fn new(
        store: &Store,
        server: &Arc<ThisServer>,
        state: &Arc<FeedState>,
        log_kept: TimeDelta,
    ) -> Self {
        let (store, server, state) = (store.clone(), Arc::clone(server), Arc::clone(state));
        Self { store, server, state, log_kept, reader: Mutex::new(None) }
    }

    /// Takes the feed over, or keeps it. `None`: another server reads it.
    async fn lead(&self, reader: Option<Reader>) -> Result<Option<Reader>, StoreError> {
        let asked = Instant::now();
        if reader.as_ref().is_some_and(|reader| reader.renewed.elapsed() < RENEWAL) {
            return Ok(reader);
        }
        if !self.store.lease_job(JOB, self.server.id(), JOB_LEASE).await? {
            return Ok(None);
        }
        if let Some(reader) = reader {
            return Ok(Some(Reader { renewed: asked, ..reader }));
        }
        let position = self.store.begin_feed().await?;
        tracing::info!(number = position.number, "this server reads the feed");
        Ok(Some(Reader {
            position,
            stream: None,
            passed: ClusterTime::default(),
            moves: MovesRead::default(),
            codes: Codes::default(),
            renewed: asked,
            cleaned: None,
        }))
    }

    /// The open stream; where the position is lost, from now on.
    async fn stream(&self, reader: &mut Reader) -> Result<Option<ChangeStream>, StoreError> {
        if let Some(stream) = reader.stream.take() {
            return Ok(Some(stream));
        }
        let Some(token) = reader.position.token.clone() else { return self.begin_anew(reader, None).await };
        match self.store.open_changes(ReadFrom::Behind(token)).await? {
            Ok(stream) => Ok(Some(stream)),
            Err(lost) => self.begin_anew(reader, Some(lost)).await,
        }
    }

    /// Reads from now on, says so in the log where something was missed, and has the tasks counted anew. `None`: another
    /// server reads by now.
    async fn begin_anew(
        &self,
        reader: &mut Reader,
        lost: Option<PositionLost>,
    ) -> Result<Option<ChangeStream>, StoreError> {
        let before = &reader.position;
        let is_first = lost.is_none() && before.number == 0;
        let from = if is_first { ReadFrom::Start } else { ReadFrom::Now };
        let stream = self.store.open_changes(from).await?.map_err(|_| StoreError::Unavailable)?;
        let mut position = before.clone();
        let now = self.store.clock().now();
        // A log without a position: somebody has removed that.
        let since = match before.as_of {
            None if before.number > 0 => self.store.log_written_at(before.number).await?,
            as_of => as_of,
        };
        let gap = since.map(|from| LogGap { from, to: now });
        if let Some(gap) = gap {
            let why = lost.map_or_else(|| "its position was removed".to_owned(), |lost| lost.0);
            tracing::error!(
                from = %gap.from, why,
                "the feed has lost its position: what happened meanwhile is in no event, and the tasks are counted anew"
            );
            metrics::counter!("task_repo_feed_gaps_total").increment(1);
            position.number += 1;
            position.gaps.push(gap);
            position.gaps.drain(..position.gaps.len().saturating_sub(MAX_GAPS));
        }
        let log = gap.map(|gap| LogDocument {
            number: position.number,
            at: now,
            moves: Vec::new(),
            gap: Some(gap),
        });
        position.token = Some(stream.token.clone());
        (position.as_of, position.is_behind) = (Some(now), false);
        // Whatever was being counted is thrown away too.
        let latest = position.recount.as_ref().map_or(position.counts, |recount| recount.generation);
        position.recount = Some(Recount { generation: latest + 1, pieces: Vec::new() });
        reader.passed = ClusterTime::default();
        let batch = FeedBatch { position, log, effects: Effects::default() };
        Ok(self.advance(reader, batch).await?.then_some(stream))
    }

    /// Reads once and stores what that brings. `None`: another server reads by now.
    async fn read(
        &self,
        mut reader: Reader,
        steps: &Steps,
    ) -> Result<Option<(Reader, JobRound)>, StoreError> {
        let Some(stream) = self.stream(&mut reader).await? else { return Ok(None) };
        steps.step();
        let asked = self.store.clock().now();
        // Read before the question: every change up to that moment is in the answer or before it.
        let counted = reader.position.recount.as_ref().and_then(|recount| Some(recount.pieces.last()?.at));
        let (stream, changes) = match self.store.read_changes(stream).await? {
            Ok(read) => read,
            Err(lost) => {
                let Some(stream) = self.begin_anew(&mut reader, Some(lost)).await? else { return Ok(None) };
                reader.stream = Some(stream);
                return Ok(Some((reader, JobRound::done(Duration::ZERO))));
            }
        };
        steps.step();
        let ReadChanges { changes, is_all, unreadable } = changes;
        if unreadable > 0 {
            tracing::error!(unreadable, "changes of tasks cannot be read: they are in no event and no count");
            metrics::counter!("task_repo_feed_unreadable_total").increment(unreadable as u64);
        }
        let latest = changes.last().map(|change| change.at).max(counted.filter(|_| is_all));
        let read = reader.moves.read(changes, &self.store).await?;
        let mut effects = Effects::default();
        let mut moves = Vec::with_capacity(read.len());
        for (at, it) in read {
            let recount = reader.position.recount.as_ref();
            effects.add(&it, recount.is_some_and(|recount| recount.counts(it.task, at)));
            moves.push(it);
        }
        reader.codes.bound(&mut effects, &self.store).await?;
        steps.step();
        let mut position = reader.position.clone();
        let as_of = if is_all { Some(asked) } else { moves.last().map(|it| it.at) };
        position.token = Some(stream.token.clone());
        (position.as_of, position.is_behind) = (as_of.max(position.as_of), !is_all);
        let is_stale = reader.position.as_of.is_none_or(|at| asked - at >= REFRESH);
        if !moves.is_empty() || is_stale {
            let now = self.store.clock().now();
            position.number += i64::from(!moves.is_empty());
            let log = (!moves.is_empty()).then_some(LogDocument {
                number: position.number,
                at: now,
                moves,
                gap: None,
            });
            if !self.advance(&mut reader, FeedBatch { position, log, effects }).await? {
                return Ok(None);
            }
        }
        reader.passed = reader.passed.max(latest.unwrap_or_default());
        reader.stream = Some(stream);
        let is_counting = reader.position.recount.is_some();
        if is_counting {
            steps.step();
            match self.store.count_piece(&reader.position, reader.passed).await? {
                Some(position) => reader.position = position,
                None => return Ok(None),
            }
        }
        let pause = match (is_all, is_counting) {
            (false, _) => Duration::ZERO,
            (true, true) => RECOUNT_PAUSE,
            (true, false) => PACE,
        };
        let lag = if is_all { Duration::ZERO } else { self.state.lag(self.store.clock().now()) };
        Ok(Some((reader, JobRound { lag, ..JobRound::done(pause) })))
    }

    /// Stores a batch. `false`: another server reads by now.
    async fn advance(&self, reader: &mut Reader, batch: FeedBatch) -> Result<bool, StoreError> {
        if reader.renewed.elapsed() > TRUSTED {
            return Ok(false);
        }
        let is_reader = self.store.advance_feed(&reader.position, &batch).await?;
        if is_reader {
            if let Some(log) = &batch.log {
                metrics::counter!("task_repo_feed_moves_total").increment(log.moves.len() as u64);
            }
            self.state.set(&batch.position);
            reader.position = batch.position;
        }
        Ok(is_reader)
    }

    /// Removes what is old.
    async fn clean(&self, steps: &Steps) -> Result<(), StoreError> {
        let now = self.store.clock().now();
        while self.store.trim_log(now - self.log_kept).await? {
            steps.step();
        }
        self.store.forget_old_minutes(now - TYPES_KEPT).await?;
        self.store.forget_failures(now - FAILURES_KEPT).await
    }
}

impl Job for FeedReader {
    const NAME: &'static str = JOB;

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let mut place = self.reader.lock().await;
        let Some(reader) = self.lead(place.take()).await? else {
            if let Some(position) = self.store.feed_position(self.store.step_deadline()).await? {
                self.state.set(&position);
            }
            return Ok(JobRound::done(CANDIDATE_PAUSE));
        };
        let Some((mut reader, round)) = self.read(reader, steps).await? else {
            tracing::warn!("another server reads the feed by now");
            return Ok(JobRound::done(CANDIDATE_PAUSE));
        };
        if round.pause >= PACE && reader.cleaned.is_none_or(|at| at.elapsed() >= CLEANING) {
            self.clean(steps).await?;
            reader.cleaned = Some(Instant::now());
        }
        *place = Some(reader);
        Ok(round)
    }
}
