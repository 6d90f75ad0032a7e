//! Connecting: options, start-up checks, the database's clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::doc;
use mongodb::Client;
use mongodb::error::{Error, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, SelectionCriteria, WriteConcern};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::arriving::Arriving;
use super::store::{PAYLOAD_PAGES, PLACES, Store};
use crate::clock::Clock;
use crate::config::DatabaseSettings;
use crate::store::error::{ConnectError, StoreError};
use crate::store::form::Form;
use crate::store::lease_cache::LeaseCache;
use crate::store::unreadable::Unreadable;

impl Store {
    /// Connects, checks that the database can keep the service's promises, and makes the indexes. From then on `clock`
    /// follows the database's members.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(settings: &DatabaseSettings, clock: Arc<Clock>) -> Result<Self, ConnectError> {
        let mut options = options(settings).await?;
        options.sdam_event_handler = Some(hearing(&clock));
        let client = Client::with_options(options).map_err(|error| unusable(&error))?;
        let database = client.database(&settings.mongodb_database);
        let mut store = Self {
            tasks: database.collection(&settings.mongodb_tasks_collection),
            keys: database.collection("api_keys"),
            clock,
            runtime: Handle::current(),
            timeout: Duration::from_millis(settings.mongodb_timeout_ms),
            groups: Arc::default(),
            leases: LeaseCache::default(),
            unreadable: Unreadable::default(),
            indexes: Arc::default(),
            arriving: Arriving::default(),
            hub: Arc::default(),
            form: Form {
                #[cfg(debug_assertions)]
                is_later: settings.stores_later_form,
            },
            connected_at: None,
            places: Arc::new(Semaphore::new(PLACES)),
            payload_pages: Arc::new(Semaphore::new(PAYLOAD_PAGES)),
            client,
            database,
        };
        let asked = Instant::now();
        let hello = store
            .database
            .run_command(doc! { "hello": 1 })
            .await
            .map_err(|error| ConnectError::unreachable(error.to_string()))?;
        if hello.get_bool("isreplicaset").unwrap_or(false) {
            return Err(ConnectError::NotInitiated);
        }
        if !hello.contains_key("setName") && hello.get_str("msg").ok() != Some("isdbgrid") {
            return Err(ConnectError::Standalone);
        }
        // By whatever name: what members say counts once they are heard by the names of the set.
        store.connected_at = hello.get_timestamp("operationTime").ok();
        if let Ok(time) = hello.get_datetime("localTime") {
            store.clock.begin_at(time.to_chrono(), asked + asked.elapsed() / 2);
        }
        store.check_schema().await?;
        store.make_indexes().await.map_err(|error| ConnectError::Indexes(error.to_string()))?;
        store.raise_schema().await?;
        Ok(store)
    }

    /// Whether the database takes writes now, and how long it took to say so.
    ///
    /// # Errors
    /// When it does not answer, or there is no primary.
    pub async fn ping(&self, until: Instant) -> Result<Duration, StoreError> {
        let database = self.database.clone();
        let asked = Instant::now();
        let hello =
            self.call("hello", until, async move { database.run_command(doc! { "hello": 1 }).await }).await?;
        let writable = hello.get_bool("isWritablePrimary").unwrap_or(false);
        if writable { Ok(asked.elapsed()) } else { Err(StoreError::Unavailable) }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        let client = self.client.clone();
        // The driver's own work must run where its connections live.
        let _ = self.runtime.spawn(async move { client.shutdown().immediate(true).await }).await;
    }
}

/// The driver asks each member how it is once a second, and each says what time it has.
fn hearing(clock: &Arc<Clock>) -> EventHandler<SdamEvent> {
    let clock = Arc::clone(clock);
    EventHandler::callback(move |event| match event {
        SdamEvent::ServerHeartbeatSucceeded(heard) => {
            // Of an awaited answer only the last way counts; of any other half of both is the best guess.
            let way = if heard.awaited { Duration::ZERO } else { heard.duration / 2 };
            let at = Instant::now().checked_sub(way).unwrap_or_else(Instant::now);
            if let Ok(time) = heard.reply.get_datetime("localTime") {
                clock.hear(heard.server_address.to_string(), time.to_chrono(), at);
            }
        }
        SdamEvent::ServerClosed(closed) => clock.forget(&closed.address.to_string()),
        _ => {}
    })
}

/// Why the URI cannot be used.
fn unusable(error: &Error) -> ConnectError {
    match &*error.kind {
        ErrorKind::DnsResolve { .. } => ConnectError::Unresolved,
        ErrorKind::InvalidTlsConfig { message, .. } => ConnectError::Tls(message.clone()),
        _ => ConnectError::Uri,
    }
}

/// Says which options of the URI are not used, because the service sets them itself.
fn warn_of_options_that_do_not_count(options: &ClientOptions) {
    for (option, is_set, instead) in [
        ("maxPoolSize", options.max_pool_size.is_some(), "MONGODB_MAX_CONNECTIONS sets it"),
        ("minPoolSize", options.min_pool_size.is_some(), "it follows MONGODB_MAX_CONNECTIONS"),
        (
            "serverSelectionTimeoutMS",
            options.server_selection_timeout.is_some(),
            "MONGODB_TIMEOUT_MS sets it",
        ),
        ("connectTimeoutMS", options.connect_timeout.is_some(), "it is 2 s"),
        ("heartbeatFrequencyMS", options.heartbeat_freq.is_some(), "it is 1 s"),
        ("readConcernLevel", options.read_concern.is_some(), "it is majority"),
        ("readPreference", options.selection_criteria.is_some(), "it is primary"),
    ] {
        if is_set {
            tracing::warn!(option, "MONGODB_URI has an option that is not used: {instead}");
        }
    }
}

async fn options(settings: &DatabaseSettings) -> Result<ClientOptions, ConnectError> {
    let mut options =
        ClientOptions::parse(settings.mongodb_uri.expose()).await.map_err(|error| unusable(&error))?;
    warn_of_options_that_do_not_count(&options);
    if let Some(w) = options.write_concern.take().and_then(|concern| concern.w)
        && w != Acknowledgment::Majority
    {
        return Err(ConnectError::WriteConcern(match w {
            Acknowledgment::Nodes(nodes) => nodes.to_string(),
            Acknowledgment::Custom(name) => name,
            _ => "?".to_owned(),
        }));
    }
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.app_name = Some("task-repo-server".to_owned());
    // A read that a failover could take back must not decide what is answered.
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria =
        Some(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary));
    options.max_pool_size = Some(settings.mongodb_max_connections);
    options.min_pool_size = Some(settings.mongodb_max_connections.min(8));
    options.max_connecting = Some(8);
    // The driver's defaults take 10 to 30 seconds to notice a primary that hangs.
    options.heartbeat_freq = Some(Duration::from_secs(1));
    options.connect_timeout = Some(Duration::from_secs(2));
    options.server_selection_timeout = Some(Duration::from_millis(settings.mongodb_timeout_ms));
    // Retries are ours: every write names ids and tokens that we chose, which costs less than the server's own record.
    options.retry_writes = Some(false);
    Ok(options)
}
