//! A server: the database, the use cases, the jobs and the listener, started and stopped together.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web;
use tokio::task::JoinHandle;

use crate::background::Background;
use crate::clock::Clock;
use crate::config::{Settings, SettingsError};
use crate::dispatch::Dispatch;
use crate::file_descriptors;
use crate::http::{self, App};
use crate::jobs::Jobs;
use crate::store::{ConnectError, Store, StoreError};
use crate::task_types::KnownTypes;
use crate::telemetry;
use crate::usecases::{Keys, StreamLimits, StreamTokens, Streams, TaskService};

/// A running server.
pub struct Server {
    addr: SocketAddr,
    dispatch: Arc<Dispatch>,
    app: web::Data<App>,
    grace: Duration,
    handle: ServerHandle,
    listener: JoinHandle<std::io::Result<()>>,
    upkeep: JoinHandle<()>,
}

/// How often samples of the metrics are folded; unfolded they pile up.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often a stopping server looks whether all requests are done.
const POLL: Duration = Duration::from_millis(10);
/// How long a stopping server leaves the last answers to be sent.
const LINGER: Duration = Duration::from_millis(100);
/// How long a stopping server waits for its listener, its background work and the database after the requests in flight.
/// With the default grace of 20 s a stop takes 25 s at most, so that a platform that kills after 30 s does not cut it off.
const END: Duration = Duration::from_secs(5);

/// Why a server does not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database is not there, or cannot keep the service's promises.
    #[error(transparent)]
    Database(#[from] ConnectError),
    /// The database does not say what holds for task types.
    #[error("the settings of task types cannot be read: {0}")]
    TaskTypes(StoreError),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}: {1}. Set HOST and PORT to a free address of this machine.")]
    Listen(SocketAddr, std::io::Error),
}

impl Server {
    /// Starts a server and its background jobs; it listens when this returns. The server's time is that of `clock`, which
    /// it sets by the database's members.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings, clock: Arc<Clock>) -> Result<Self, StartError> {
        settings.check()?;
        telemetry::metrics();
        let store = Store::connect(&settings.database, clock).await?;
        let http = settings.http;
        let background = Background::new();
        let types = Arc::new(KnownTypes::new(settings.tasks.task_retention_seconds));
        let dispatch = Dispatch::new(store.clone(), Arc::clone(&types), background.clone());
        let bootstrap_keys = [http.api_key.expose(), http.api_key_previous.expose()];
        let keys = Keys::new(store.clone(), &bootstrap_keys, background.clone());
        let service = TaskService::new(store.clone(), types, Arc::clone(&dispatch), background.clone());
        // Before the first call: settings and pauses hold from then on.
        service.learn_types().await.map_err(StartError::TaskTypes)?;
        let limits = StreamLimits { all: http.streams_max, per_tenant: http.streams_max_per_tenant };
        let streams = Streams::new(store.clone(), limits, &background);
        let jobs = Jobs::new(store.clone(), background.clone());
        let app = web::Data::new(App {
            service,
            stream_tokens: StreamTokens::new(store.clone(), Arc::clone(&keys)),
            keys,
            streams,
            store,
            jobs,
            background,
            document: LazyLock::new(|| {
                serde_json::to_vec(&http::openapi_document()).unwrap_or_default().into()
            }),
            name: http.service_name.clone(),
            body_timeout: Duration::from_millis(http.http_body_timeout_ms),
            bodies: http::BodyRoom::new(http.http_max_body_bytes_in_flight),
            cors: http::Cors::new(&http.cors_allowed_origins),
            started: Instant::now(),
            in_flight: http::InFlight::default(),
        });
        let workers = match http.http_workers {
            0 => std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            workers => workers,
        };
        let to_database = settings.database.mongodb_max_connections as usize;
        let most = file_descriptors::connections_per_worker(http.http_max_connections, workers, to_database);
        let listener = http::Listener::bind(&app, &http, workers, most)
            .map_err(|error| StartError::Listen(SocketAddr::new(http.host, http.port), error))?;
        let (addr, handle) = (listener.addr, listener.handle());
        let listener = tokio::spawn(listener.server);
        app.jobs.run(settings.tasks, &dispatch, &app.service, &app.keys);
        app.jobs.read_log_for(&app.streams);
        let upkeep = tokio::spawn(async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                telemetry::metrics().run_upkeep();
            }
        });
        tracing::info!(%addr, workers, "listening");
        let grace = Duration::from_secs(http.shutdown_grace_seconds);
        Ok(Self { addr, dispatch, app, grace, handle, listener, upkeep })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many calls are being answered, those whose body is still coming and those that wait included.
    pub fn calls_in_flight(&self) -> usize {
        self.app.in_flight.count()
    }

    /// How many claims wait here for work of that type, after a read that found none for them.
    pub fn waiting_claims(&self, task_type: &str) -> usize {
        self.dispatch.idle(task_type)
    }

    /// How many calls wait here for the end of a task, after a read that found it unfinished.
    pub fn waiting_reads(&self) -> usize {
        self.app.service.end_waits().idle()
    }

    /// Resolves when nobody listens any more though nobody has stopped this server: it is of no use then.
    pub async fn listener_ended(&mut self) {
        if let Ok(Err(error)) = (&mut self.listener).await {
            tracing::error!(%error, "the listener has failed");
        }
    }

    /// Stops gracefully: not ready any more, waiting calls answered, requests in flight done, jobs ended. Takes no longer
    /// than the grace period and 5 s, also when the database does not answer.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.app.background.drain();
        self.dispatch.wake_all();
        // Still listening: whoever asks whether this server is ready must hear that it is not.
        let grace_ends = tokio::time::Instant::now() + self.grace;
        while self.app.in_flight.count() > 0 && tokio::time::Instant::now() < grace_ends {
            tokio::time::sleep(POLL).await;
        }
        // Answers are with the kernel by then; idle connections are not worth waiting for.
        tokio::time::sleep(LINGER).await;
        self.upkeep.abort();
        let end = async {
            self.handle.stop(false).await;
            if !self.listener.is_finished() {
                // It has nothing left to say that matters now.
                let _ = self.listener.await;
            }
            self.app.background.stop().await;
            self.app.jobs.sign_off().await;
            self.app.store.close().await;
        };
        if tokio::time::timeout(END, end).await.is_err() {
            // What is left undone ends by itself: leases run out, and so does this server's entry.
            tracing::warn!("the database has not answered in time, and is not waited for");
        }
        tracing::info!("stopped");
    }
}
