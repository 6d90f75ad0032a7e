//! Fingerprints of sources: whether a check that takes long has passed for them as they are.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};

use crate::layout;

/// FNV-1a (64 bits): it tells changes apart that nobody makes to deceive, and is the same on every machine.
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part. Its length goes first, so that parts cannot be cut anew without a change.
    pub(crate) fn add(&mut self, part: &[u8]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes();
        for byte in length.iter().chain(part) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Whether the check that keeps its fingerprint in `record` has passed for `fingerprint`.
pub(crate) fn has_passed(record: &str, fingerprint: &str) -> bool {
    fs::read_to_string(layout::root().join(record)).is_ok_and(|passed| passed.trim() == fingerprint)
}

/// Writes down in `record`, which is committed, that a check has passed for `fingerprint`.
pub(crate) fn keep(record: &str, fingerprint: &str) -> Result<()> {
    fs::write(layout::root().join(record), format!("{fingerprint}\n"))
        .with_context(|| format!("cannot write {record}"))?;
    println!("{record} says that this has passed; commit it");
    Ok(())
}
