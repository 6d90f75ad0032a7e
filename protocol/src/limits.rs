//! Bounds that several bodies and rules share.

/// Most bytes of JSON text that request, template, metadata and result of one task may have together.
pub const MAX_TASK_BYTES: usize = 1 << 20;
/// Most bytes of JSON text that a task's metadata may have.
pub const MAX_METADATA_BYTES: usize = 16 << 10;
/// Longest delay and retention, in seconds: a year.
pub const MAX_DELAY_SECONDS: i64 = 31_536_000;
