//! Which version of the stored form the database has.
//!
//! The minor version grows with every addition (a field, a word, an index, a collection): older servers read past it, so
//! servers of several minor versions may work side by side. The major version grows when older servers would do harm; a
//! server refuses to start on a newer one.

/// The stored form that this server writes.
pub const SCHEMA: SchemaVersion = SchemaVersion { major: 1, minor: 1 };
/// Documents of which there is one, about the whole installation.
pub(in crate::store) const INSTALLATION: &str = "installation";

/// A version of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion {
    /// Grows when older servers would do harm.
    pub major: i32,
    /// Grows with every addition.
    pub minor: i32,
}

impl std::fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
