//! Who calls, by when the call is answered, and what the caller can see. Knows no tasks.

mod caller;
mod identity;
mod key;
mod key_cache;
mod scope;

pub use caller::{Caller, Deadline};
pub use identity::Identity;
pub use key::{KeyRecord, Role, SecretHash};
pub(crate) use key_cache::{KeyCache, Seen};
pub use scope::Scope;
