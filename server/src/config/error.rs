//! Why the service does not start with its settings.

use std::borrow::Cow;
use std::net::IpAddr;

use super::values::DEFAULT_API_KEY;

/// A setting that does not let the service start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Values that cannot be read together, though each can alone.
    #[error("the settings cannot be read: {0}. The README's settings table says what each variable expects.")]
    Unreadable(#[from] envy::Error),
    /// A `.env` file that is there and cannot be read.
    #[error("the .env file cannot be read: {0}")]
    EnvFile(#[from] std::io::Error),
    /// A line of the `.env` file that is no variable. The line is not shown: it may hold a secret.
    #[error(
        "line {0} of the .env file cannot be read: NAME=VALUE is expected, with a value that has a space, a quote or a # \
         in single quotes"
    )]
    EnvLine(usize),
    /// A value that is out of bounds.
    #[error("{variable}: {expected} is expected, found {found:?}")]
    OutOfBounds {
        /// The environment variable.
        variable: Cow<'static, str>,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The same for a value that may be a secret.
    #[error("{variable}: {expected} is expected (what it is now is not shown)")]
    Unfit {
        /// The environment variable.
        variable: Cow<'static, str>,
        /// What it may be.
        expected: &'static str,
    },
    /// The default key on an address that others can reach.
    #[error(
        "{variable} is the default '{DEFAULT_API_KEY}' and HOST {host} can be reached from outside. \
         Set {variable} to a secret of your own, or HOST to 127.0.0.1."
    )]
    DefaultKeyInPublic {
        /// The environment variable of the key.
        variable: &'static str,
        /// Where the server would listen.
        host: IpAddr,
    },
}
