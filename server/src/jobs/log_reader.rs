//! Reads the event log for those who watch tasks on this server: one read a round, however many watch.

use std::sync::Arc;
use std::time::Duration;

use super::runner::{Job, JobRound, Steps};
use crate::store::StoreError;
use crate::usecases::Streams;

/// The pause after a read that has brought everything there was. With the feed's own pace it keeps what other servers do
/// within the promised 500 ms.
const PAUSE: Duration = Duration::from_millis(100);

/// The job.
pub(super) struct LogReader {
    streams: Arc<Streams>,
}

impl LogReader {
    pub(super) fn new(streams: &Arc<Streams>) -> Self {
        Self { streams: Arc::clone(streams) }
    }
}

impl Job for LogReader {
    const NAME: &'static str = "streams";

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        while self.streams.read_log().await? {
            steps.step();
        }
        Ok(JobRound::done(PAUSE))
    }
}
