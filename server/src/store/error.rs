//! Why the database could not do something, and why a server does not start on it.

use super::schema::SCHEMA;

/// The code by which MongoDB reports a duplicate key.
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// Why the database could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was applied.
    #[error("the database does not answer: nothing was applied, try again later")]
    Unavailable,
    /// Too much waits already; nothing was applied.
    #[error("too much waits for the database already: nothing was applied, try again later")]
    Overloaded,
    /// It may have been applied.
    #[error(
        "the database did not say whether it was applied: repeat the call with the same idempotency key, claim id or lease token"
    )]
    OutcomeUnknown,
    /// An index is missing without which it would read everything, or might be applied twice. Nothing was applied.
    #[error(
        "the database has lost indexes that this needs, as after a drop or a restore: nothing was applied, they are being \
         made again, try again later"
    )]
    Unindexed,
    /// The document is there, but this server cannot read it; one of another version may. Nothing was applied.
    #[error(
        "it is stored in a form that this server cannot read; a server of a newer version may, and an operator sees it under \
         /unreadable-tasks"
    )]
    Unreadable,
}

/// Why the service does not start on this database. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `MONGODB_URI` is no connection string. Nothing of it is repeated: a password with a `/` in it is read as a part
    /// of the address, and the driver's message names that.
    #[error(
        "MONGODB_URI cannot be read. mongodb://USER:PASSWORD@HOST:PORT/DATABASE?replicaSet=NAME is expected, with \
         whatever is no letter or digit in user and password percent-encoded, and options that MongoDB knows."
    )]
    Uri,
    /// The name of a `mongodb+srv` URI has no records. It is not repeated, as above.
    #[error(
        "the name in MONGODB_URI cannot be resolved: mongodb+srv:// asks DNS for the SRV and TXT records of that name. Check the \
         name, and that this machine's DNS answers; with mongodb://HOST:PORT none is asked."
    )]
    Unresolved,
    /// A file that the URI names cannot be used.
    #[error("the TLS options in MONGODB_URI cannot be used: {0}")]
    Tls(String),
    /// It was started as a member of a set, and there is none.
    #[error(
        "MongoDB at MONGODB_URI waits for its replica set: the set was never initiated, or has this member no more. Run \
         rs.initiate() on it once (mongosh --eval 'rs.initiate()'); one member is enough."
    )]
    NotInitiated,
    /// All that answered belong to another set.
    #[error(
        "no server at MONGODB_URI belongs to the replica set that replicaSet= names there. rs.status().set says the name of \
         theirs."
    )]
    OtherSet,
    /// No answer, or no permission.
    #[error(
        "MongoDB at MONGODB_URI does not answer: {0}. Check that it runs, and the address, user and password."
    )]
    Unreachable(String),
    /// No replica set: no majority, no journaled acknowledgement worth its name.
    #[error(
        "MongoDB at MONGODB_URI is a standalone server. Start it with --replSet NAME and initiate the set \
         (one member is enough): without one no write is safe from a failover."
    )]
    Standalone,
    /// The URI asks for less than the service promises.
    #[error(
        "MONGODB_URI asks for the write concern w={0}. Leave w out or set w=majority: the service promises it."
    )]
    WriteConcern(String),
    /// A newer server has changed the stored form so that this one would do harm.
    #[error(
        "the database has the schema version {0}, and this server (version {version}) knows {known}. Start a server of \
         the release that wrote it or a later one; this one would do harm to what it does not know.",
        version = env!("CARGO_PKG_VERSION"), known = SCHEMA
    )]
    NewerSchema(String),
    /// The indexes could not be made.
    #[error("the indexes could not be made: {0}")]
    Indexes(String),
}

impl ConnectError {
    /// Why no server could be asked, by what the driver says of those it knows.
    pub(super) fn unreachable(said: String) -> Self {
        if said.contains("Type: RsGhost") {
            Self::NotInitiated
        } else if said.contains("Set Name: ") && !said.contains("Servers: ") {
            // The driver forgets servers of other sets.
            Self::OtherSet
        } else {
            Self::Unreachable(said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_is_told_by_its_cause() {
        let said = |topology: &str| {
            let text =
                format!("Kind: Server selection timeout: No available servers. Topology: {{ {topology} }}");
            ConnectError::unreachable(text).to_string()
        };
        let member = |kind| format!("Servers: [ {{ Address: 127.0.0.1:1, Type: {kind} }} ]");
        let never = said(&format!("Type: Unknown, {}", member("RsGhost, Average RTT: 1.7ms")));
        assert!(never.contains("rs.initiate()"), "{never}");
        let other = said("Type: ReplicaSetNoPrimary, Set Name: wrong");
        assert!(other.contains("replicaSet="), "{other}");
        let away =
            said(&format!("Type: ReplicaSetNoPrimary, Set Name: rs0, {}", member("Unknown, Error: refused")));
        assert!(away.contains("does not answer") && away.contains("refused"), "{away}");
    }
}
