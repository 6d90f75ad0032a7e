//! How large bodies, batches and payloads may be.

use task_repo_protocol::Json;
use task_repo_protocol::page::MAX_BATCH;
use task_repo_protocol::task::MAX_TASK_BYTES;

use super::body::violation;
use crate::http::problems::Rejection;
use crate::usecases::Failure;

/// Most bytes of the body of anything but a batch: a task of 1 MiB, and room for how it is spelled.
pub(in crate::http) const MAX_BODY: usize = 2 << 20;

/// Refuses a payload that no task could hold, whichever task it is for.
pub(in crate::http) fn fits(payload: Option<&Json>) -> Result<(), Rejection> {
    match payload {
        Some(json) if json.as_str().len() > MAX_TASK_BYTES => Err(Failure::TooLarge.into()),
        _ => Ok(()),
    }
}

/// Refuses batches of more than 1000 items.
pub(in crate::http) fn at_most(count: usize, list: &str) -> Result<(), Rejection> {
    if count <= MAX_BATCH {
        return Ok(());
    }
    Err(Rejection::invalid(violation(&[list], format!("at most {MAX_BATCH} items"))))
}
