//! Tasks and keys in MongoDB. The only place that names the driver.
//!
//! Every function takes many items and returns one result per item: callers that arrive together can be carried by
//! one command. Every write is journaled on a majority before it is answered.
//!
//! | place | what it does |
//! |---|---|
//! | [`driver`] | connections, calls within their deadline, one write command, reads document by document, group commit |
//! | [`carried`] | what one command carries for many callers |
//! | [`write`] | new tasks, changes of tasks, claims: all by THE guarded write |
//! | [`read`] | tasks by id, ready work in claim order, lists, what is due |
//! | [`indexes`] | which indexes there are, and why |
//! | [`index_check`], [`index_state`] | noticing that some are missing, and making them again |
//! | [`form`], [`ids`], [`schema`] | the form in which tasks are stored, and its version |
//! | [`lease_cache`] | what this server knows of the tasks it has leased |
//! | [`renewals`] | when leases could not be renewed |
//! | [`unreadable`], [`unreadable_tasks`] | documents that this server has met and could not read; finding and removing such tasks |
//! | [`removal`], [`beside`] | removing tasks whose retention has ended, and what lies beside them |
//! | [`feed`] | the one reader of the change stream, the event log, counts and roll-ups |
//! | [`keys`] | issued API keys |
//! | [`checkpoints`] | what attempts leave for the next one |
//! | [`task_logs`] | what workers log about their tasks |
//! | [`servers`] | which servers there are, and what all of them must know |
//! | [`task_types`] | settings and pauses of task types |
//! | [`job_lease`] | what only one server does at a time |

mod beside;
mod carried;
mod checkpoints;
mod driver;
mod error;
mod feed;
mod form;
mod ids;
mod index_check;
mod index_state;
mod indexes;
mod job_lease;
mod keys;
mod lease_cache;
mod read;
mod removal;
mod renewals;
mod schema;
mod servers;
mod stream_key;
mod task_logs;
mod task_types;
mod unreadable;
mod unreadable_tasks;
mod write;

pub use carried::{NotInserted, new_stamp};
pub use driver::Store;
pub use error::{ConnectError, StoreError};
pub use feed::{
    ChangeStream, Changed, ClusterTime, CountedTypes, FailureQuery, FailureRow, FeedBatch, FeedPosition,
    LogDocument, LogGap, PositionLost, ReadChanges, ReadFrom, Recount, TaskChange, TypeCounts, UpdatedFields,
};
pub use ids::StoredId;
pub use index_state::IndexState;
pub use read::{
    Awaited, DuePage, DueTask, DueTasks, ListPage, Listing, Ready, ReadyFrom, Selection, TaskQuery,
};
pub use removal::Removed;
pub use renewals::Outage;
pub use schema::{SCHEMA, SchemaVersion};
pub use servers::{Changes, ServerRecord};
pub use task_logs::{LogQuery, LoggedLine};
pub use task_types::ExpectedSettings;
pub use unreadable::{Unreadable, UnreadableDocument};
pub use unreadable_tasks::{ScanPlace, UnreadableScan, UnreadableTask};
pub use write::{Applied, Change, ClaimWrite, NotApplied};
