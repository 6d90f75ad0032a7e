//! What is broken, one thing at a time.

use clap::ValueEnum;
use serde::Serialize;

use crate::disk;
use crate::process::has_clocks;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
pub(crate) enum Fault {
    /// A server is killed and started again at once
    ServerKill,
    /// The database's primary is killed and started again later
    PrimaryKill,
    /// The primary stops where it is, and goes on later
    PrimaryFreeze,
    /// Both secondaries are down: nothing can be made to last
    SecondariesDown,
    /// All members of the database are killed at once and started again
    AllMongodsKill,
    /// Commands of the database fail, hang, or are not known to last
    CommandsFail,
    /// Requests are carried out and their answers lost
    LostAnswers,
    /// Connections end before the request has arrived
    CutOff,
    /// Requests arrive two to five times
    Doubled,
    /// Callers go away while they wait for work
    VanishingCallers,
    /// Half of the worker processes are killed
    WorkersKill,
    /// Worker processes stop for longer than their leases
    WorkersFreeze,
    /// Callers who send slowly, or never read
    SlowCallers,
    /// A server's clock is an hour fast or slow
    ServerClock,
    /// The primary's clock is five minutes fast or slow
    MemberClock,
    /// The disks of all members of the database are full
    DiskFull,
    /// The database is slow, and callers are five times as many
    PoolExhausted,
    /// Payloads and bodies such as nobody would send
    OddPayloads,
    /// Nothing is broken
    Calm,
}

impl Fault {
    /// Why it cannot be made on this machine, if it cannot.
    pub(crate) fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::ServerClock | Self::MemberClock if !has_clocks() => {
                Some("Debian's package libfaketime is not installed")
            }
            Self::DiskFull if !disk::is_possible() => Some("only an administrator can mount small disks"),
            _ => None,
        }
    }

    /// Whether it takes no longer than about six seconds.
    pub(crate) fn is_short(self) -> bool {
        use Fault::{DiskFull, MemberClock, PrimaryFreeze, PrimaryKill, SecondariesDown, ServerClock};
        ![PrimaryKill, PrimaryFreeze, SecondariesDown, ServerClock, MemberClock, DiskFull].contains(&self)
    }

    /// Whether the database answers all the time, and as fast as ever.
    pub(crate) fn spares_database(self) -> bool {
        use Fault::{
            AllMongodsKill, CommandsFail, DiskFull, MemberClock, PoolExhausted, PrimaryFreeze, PrimaryKill,
            SecondariesDown,
        };
        let database = [
            PrimaryKill,
            PrimaryFreeze,
            SecondariesDown,
            AllMongodsKill,
            CommandsFail,
            MemberClock,
            DiskFull,
            PoolExhausted,
        ];
        !database.contains(&self)
    }

    /// Whether all servers run all the time.
    pub(crate) fn spares_servers(self) -> bool {
        ![Self::ServerKill, Self::ServerClock].contains(&self)
    }
}
