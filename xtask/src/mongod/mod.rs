//! A MongoDB for every command that needs one.
//!
//! | command | the database |
//! |---|---|
//! | `start` | `MONGODB_URI` when it is set, else a `mongod` of our own whose data is kept in `.data/start/` |
//! | `test`, `fuzz`, `release` | `TEST_MONGODB_URI` when it is set, else a `mongod` of our own, thrown away afterwards |
//!
//! Tests look at a variable of their own, so that an exported `MONGODB_URI` of a real database is never written to by
//! them. Our own `mongod` is the one on `PATH`, else a fetched one ([`find`]), made a replica set of one member
//! ([`replica_set`]), because majority writes, change streams and transactions need a replica set.

mod find;
mod replica_set;
mod running;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::layout::{self, Scratch};
use running::Mongod;
pub(crate) use running::Purpose;

/// Where `start` has its `mongod`, so that a person's other tools find it again; another port when this one is taken.
const USUAL_PORT: u16 = 27503;

/// The longest an orderly end may take: a checkpoint of all that is in the cache.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// The program, for commands that start several of them their own way.
pub(crate) async fn program() -> Result<PathBuf> {
    find::mongod().await
}

/// A database ready to be written to. Dropping it stops what was started, in an orderly way but without patience.
pub(crate) struct Database {
    uri: String,
    mongod: Option<Mongod>,
    /// Holds the data of a throw-away database; after `mongod`, so that it is removed when that has ended.
    _scratch: Option<Scratch>,
}

impl Database {
    /// The database of `cargo xtask start`: what it holds is still there the next time.
    pub(crate) async fn kept() -> Result<Self> {
        if let Some(given) = Self::given("MONGODB_URI") {
            return Ok(given);
        }
        let folder = layout::data().join("start");
        let port = if layout::is_free(USUAL_PORT) { USUAL_PORT } else { layout::free_port()? };
        let mongod = Mongod::start(&find::mongod().await?, &folder, port, Purpose::Service).await?;
        let uri = format!("mongodb://127.0.0.1:{port}/task_repository?replicaSet={}", replica_set::NAME);
        Ok(Self { uri, mongod: Some(mongod), _scratch: None })
    }

    /// An empty database, gone afterwards.
    pub(crate) async fn throw_away(purpose: Purpose) -> Result<Self> {
        if let Some(given) = Self::given("TEST_MONGODB_URI") {
            return Ok(given);
        }
        let scratch = Scratch::new()?;
        let port = layout::free_port()?;
        let mongod = Mongod::start(&find::mongod().await?, scratch.path(), port, purpose).await?;
        let uri = format!("mongodb://127.0.0.1:{port}/?replicaSet={}", replica_set::NAME);
        Ok(Self { uri, mongod: Some(mongod), _scratch: Some(scratch) })
    }

    fn given(variable: &str) -> Option<Self> {
        let uri = env::var(variable).ok().filter(|uri| !uri.is_empty())?;
        eprintln!("using the database that {variable} names");
        Some(Self { uri, mongod: None, _scratch: None })
    }

    /// Whether it is somebody else's.
    pub(crate) fn is_given(&self) -> bool {
        self.mongod.is_none()
    }

    /// What clients connect with.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// An error with the end of its log when our own `mongod` has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.mongod.as_mut().map_or(Ok(()), Mongod::check_alive)
    }

    /// Stops what was started.
    pub(crate) async fn stop(mut self) -> Result<()> {
        match self.mongod.take() {
            Some(mongod) => mongod.stop(STOP_GRACE).await,
            None => Ok(()),
        }
    }
}
