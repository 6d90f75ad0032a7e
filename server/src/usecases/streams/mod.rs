//! Watching tasks: the streams that are open on this server.
//!
//! Watching costs the database one read when a stream is opened. What this server does is told at the commit; what others do
//! is read from the event log, by one reader for all who watch here.
//!
//! | file | what it does |
//! |---|---|
//! | [`message`] | what watchers are told of a version of a task |
//! | [`history`] | what the history of a task tells of versions that nobody here was told of |
//! | [`watcher`], [`outbox`] | one watcher of a task, and what waits to be sent to it |
//! | [`service`] | what all of them live on |
//! | [`registry`] | the watchers of tasks, and how many streams are open |
//! | [`news`] | brings what happened to those who watch |
//! | [`tail`] | how far the event log has been read |
//! | [`log_messages`] | what the event log tells those who watch a tenant |
//! | [`watch`], [`watch_tenant`] | opening the stream of a task, and that of a tenant |

mod history;
mod log_messages;
mod message;
mod news;
mod outbox;
mod registry;
mod service;
mod tail;
mod watch;
mod watch_tenant;
mod watcher;

pub use log_messages::StreamFilter;
pub use outbox::Next;
pub use registry::StreamLimits;
pub use service::Streams;
pub use tail::TailState;
pub use watch::TaskStream;
pub use watch_tenant::TenantStream;
