//! Who calls, and what the caller can see.

mod scope;

pub use scope::Scope;
