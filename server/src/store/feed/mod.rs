//! The feed: what one elected server reads from the change stream, and what it makes of it.
//!
//! | file | what it does |
//! |---|---|
//! | [`changes`] | reads the change stream of the tasks, the only one of the whole installation |
//! | [`position`] | how far it has been read, by whom, and how the counts stand |
//! | [`advance`] | stores a batch: log document, effects and new position in one transaction |
//! | [`recount`] | counts the tasks anew, piece by piece, while the feed goes on |
//! | [`removals`] | takes out of the counts what retention removes |
//! | [`event_log`] | reads the event log, and removes what is old |
//! | [`type_counts`] | how many tasks of a type there are |
//! | [`failures`] | which failures there were |

mod advance;
mod changes;
mod event_log;
mod failures;
mod position;
mod recount;
mod removals;
mod type_counts;

pub use advance::FeedBatch;
pub use changes::{
    ChangeStream, Changed, Changes as ReadChanges, PositionLost, ReadFrom, TaskChange, UpdatedFields,
};
pub use event_log::{LogDocument, LogGap};
pub use failures::{FailureQuery, FailureRow};
pub use position::{ClusterTime, FeedPosition, Recount};
pub(super) use removals::{Counted, Kind, Removal};
pub use type_counts::{CountedTypes, TypeCounts};

use super::driver::Store;

/// The collections of the feed, by what follows the name of the tasks'.
const EVENTS: &str = "events";
const FEED: &str = "feed";
const COUNTS: &str = "counts";
const HOURS: &str = "hours";
const FAILURES: &str = "failures";

impl Store {
    /// The collection of that name beside the tasks.
    fn of_feed<T: Send + Sync>(&self, name: &str) -> mongodb::Collection<T> {
        self.database.collection(&self.beside(name))
    }
}
