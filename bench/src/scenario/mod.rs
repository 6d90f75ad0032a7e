//! The service over HTTP, through the shipped client.
//!
//! Each scenario starts with a fresh server and an empty database, and ends with reading the server's memory.

mod backlog;
mod claim;
mod complete;
mod create;
mod drain;
mod feed;
mod life;
mod two_servers;
mod waiting;
mod wake;

pub(crate) use backlog::{backlog, scheduled, shortest as shortest_backlog};
pub(crate) use claim::{batches as claim_batches, singles as claims, types as claims_of_types};
pub(crate) use complete::singles as completions;
pub(crate) use create::{batches as create_batches, idle_calls, singles as creates};
pub(crate) use drain::one_server as drain;
pub(crate) use life::{
    batches as lives_in_batches, batches_without_feed as lives_in_batches_without_feed, payload,
    singles as lives, singles_without_feed as lives_without_feed,
};
pub(crate) use two_servers::{claims as two_servers_claims, drains as two_servers_drain};
pub(crate) use waiting::{waiting, with_tags as waiting_with_tags};
pub(crate) use wake::{elsewhere as wake_elsewhere, here as wake};
