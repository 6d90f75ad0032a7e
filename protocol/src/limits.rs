//! Bounds that bodies, rules and programs share.

/// Most bytes of JSON text that request, template, metadata and result of one task may have together.
pub const MAX_TASK_BYTES: usize = 1 << 20;
/// Most bytes of JSON text that a task's metadata may have.
pub const MAX_METADATA_BYTES: usize = 16 << 10;
/// Longest delay and retention, in seconds: a year.
pub const MAX_DELAY_SECONDS: i64 = 31_536_000;
/// Most task types that one claim may name.
pub const MAX_CLAIM_TYPES: usize = 100;
/// Most tasks that one claim may bring.
pub const MAX_CLAIM: u32 = 1000;
/// Longest a claim may wait, in milliseconds.
pub const MAX_WAIT_MS: u64 = 30_000;
/// Most bytes of JSON text of a checkpoint.
pub(crate) const MAX_CHECKPOINT_BYTES: usize = 64 << 10;
