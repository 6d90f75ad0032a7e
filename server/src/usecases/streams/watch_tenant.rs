//! Watching all tasks of a tenant.
//!
//! Nothing waits for such a watcher: it reads the latest documents of the event log where the server keeps them for all, and
//! older ones in the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::log_messages::{LogMessages, LogPlace, StreamFilter, gap};
use super::outbox::Next;
use super::registry::OpenStream;
use super::service::Streams;
use super::tail::FromThere;
use crate::access::Caller;
use crate::usecases::failure::Failure;

/// How many documents they read at once.
const DOCUMENTS_TOGETHER: i64 = 4;
/// Most messages that a watcher may be behind.
const MAX_MESSAGES: usize = 1024;
/// Most bytes of messages that a watcher may be behind.
const MAX_BYTES: usize = 4 << 20;
/// What comes within that time is no sign of a slow watcher, however much it is: the event log brings it in pieces.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An open stream of a tenant's tasks, until it is dropped.
#[derive(Debug)]
pub struct TenantStream {
    streams: Arc<Streams>,
    filter: StreamFilter,
    /// Where it goes on.
    place: LogPlace,
    epoch: u64,
    /// To be sent before anything else.
    first: Option<Bytes>,
    /// Whether it has been up to date since it was opened.
    is_live: bool,
    /// When it was last given something to send.
    sent_at: Option<Instant>,
    advances: watch::Receiver<()>,
    /// Has the event log read.
    _present: Arc<()>,
    _open: OpenStream,
}

impl Streams {
    /// Opens a stream of a tenant's tasks: from now on, or behind the last message that the watcher has had.
    ///
    /// # Errors
    /// When the database does not answer, or too many streams are open.
    pub async fn watch_tenant(
        self: &Arc<Self>,
        caller: &Caller,
        filter: StreamFilter,
        last_event_id: Option<&str>,
    ) -> Result<TenantStream, Failure> {
        self.open.check()?;
        let present = Arc::clone(&self.tenants);
        let until = caller.deadline.at();
        let advances = self.tail.advances();
        self.follow_log(until).await?;
        let (next, epoch) = self.tail.next_number();
        let mut place = LogPlace::before(next);
        let mut first = format!("retry: {}\n\n", rand::rng().random_range(500..=2000)).into_bytes();
        if let Some(text) = last_event_id {
            let had = LogPlace::parse(text);
            let is_ahead = had.is_some_and(|had| had > place);
            // Another server may have read further than this one, but not further than the log goes.
            let end = if is_ahead { self.store.log_end(until).await? } else { next - 1 };
            let has_been = |had: &LogPlace| had.number > 0 && *had <= LogPlace::before(end + 1);
            match had.filter(has_been) {
                Some(had) => place = had,
                None => first.extend(gap(place)),
            }
        }
        let open = self.open.open(&caller.scope.tenant)?;
        Ok(TenantStream {
            streams: Arc::clone(self),
            filter,
            place,
            epoch,
            first: Some(first.into()),
            is_live: false,
            sent_at: None,
            advances,
            _present: present,
            _open: open,
        })
    }
}

impl TenantStream {
    /// The next thing to be sent.
    pub async fn next(&mut self) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Send(first);
        }
        loop {
            self.advances.mark_unchanged();
            let is_slow = self.is_live && self.sent_at.is_some_and(|at| at.elapsed() > AT_ONCE);
            let sent = match self.streams.tail.from(self.place.number, self.epoch) {
                FromThere::Documents(documents) => {
                    let (sent, count) = self.read(&documents);
                    if is_slow && (count > MAX_MESSAGES || sent.len() > MAX_BYTES) {
                        return Next::CutOff;
                    }
                    sent
                }
                FromThere::Nothing => {
                    (self.is_live, self.sent_at) = (true, None);
                    // Without its sender the server stops, and so does the stream.
                    if self.advances.changed().await.is_err() {
                        return Next::End;
                    }
                    continue;
                }
                FromThere::TooFarBack if is_slow => return Next::CutOff,
                FromThere::TooFarBack => match self.read_far_back().await {
                    Some(sent) => sent,
                    None => return Next::CutOff,
                },
                FromThere::Anew(next) => {
                    (self.place, self.epoch) = (LogPlace::before(next), self.streams.tail.next_number().1);
                    gap(self.place)
                }
            };
            if !sent.is_empty() {
                self.sent_at = Some(Instant::now());
                return Next::Send(sent.into());
            }
        }
    }

    /// What these documents tell, behind which the stream goes on, and in how many messages.
    fn read(&mut self, documents: &[Arc<LogMessages>]) -> (Vec<u8>, usize) {
        let (mut sent, mut count) = (Vec::new(), 0);
        for document in documents {
            let had = if document.number() == self.place.number { self.place.place } else { 0 };
            count += document.send_to(&self.filter, had, &mut sent);
            self.place = LogPlace::before(document.number() + 1);
        }
        (sent, count)
    }

    /// The same from the database. `None`: it does not answer.
    async fn read_far_back(&mut self) -> Option<Vec<u8>> {
        let streams = Arc::clone(&self.streams);
        let _turn = streams.far_back.acquire().await.ok()?;
        let until = streams.store.step_deadline();
        let documents =
            streams.store.log_after(self.place.number - 1, DOCUMENTS_TOGETHER, until).await.ok()?;
        let mut sent = Vec::new();
        if documents.first().is_none_or(|first| first.number != self.place.number) {
            // The log does not reach back so far.
            (self.place, self.epoch) = {
                let (next, epoch) = streams.tail.next_number();
                (LogPlace::before(next), epoch)
            };
            return Some(gap(self.place));
        }
        for document in documents {
            if document.number != self.place.number {
                break;
            }
            sent.extend(self.read(&[Arc::new(LogMessages::new(document))]).0);
        }
        Some(sent)
    }
}
