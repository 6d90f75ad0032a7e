//! Holding requests against the schema of their type. A schema is read and compiled once for each of its versions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::json_schema::JsonSchema;
use crate::store::StoreError;

/// Most faults that one answer tells.
pub(super) const MAX_FAULTS: usize = 20;
/// Most bytes that compiled schemas take in memory, about.
const MAX_CACHED_BYTES: u64 = 64 << 20;
/// How long a compiled schema is kept. The versions of a type begin anew a day after all of it was removed, so that it must be
/// less than that.
const KEPT: Duration = Duration::from_secs(3600);
/// A check of more work than this, in subschemas that look at a byte, has a thread of its own: about a millisecond.
pub(super) const MUCH_WORK: usize = 100_000;

/// A type of a tenant, and a version of its settings.
type SchemaKey = (Arc<str>, String, i64);

/// Compiled schemas.
pub(super) struct RequestSchemas {
    pub(super) compiled: Cache<SchemaKey, Option<Arc<JsonSchema>>>,
    /// Checks that take long may take some of the cores, not all.
    places: Arc<Semaphore>,
}

impl Default for RequestSchemas {
    fn default() -> Self {
        let weight = |_: &SchemaKey, schema: &Option<Arc<JsonSchema>>| {
            schema.as_ref().map_or(64, |schema| u32::try_from(schema.bytes()).unwrap_or(u32::MAX))
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            compiled: Cache::builder()
                .weigher(weight)
                .max_capacity(MAX_CACHED_BYTES)
                .time_to_live(KEPT)
                .build(),
            places: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }
}

impl RequestSchemas {
    /// Does what computes for long beside the requests, as much of it at once as there is room for.
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        until: Instant,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let places = Arc::clone(&self.places);
        let computing = async move {
            let place = places.acquire_owned().await;
            let computing = tokio::task::spawn_blocking(move || {
                let done = compute();
                drop(place);
                done
            });
            computing.await.map_err(|_| StoreError::Unavailable)
        };
        timeout_at(until.into(), computing).await.map_err(|_| StoreError::Overloaded)?
    }
}
