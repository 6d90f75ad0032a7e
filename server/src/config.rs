//! Settings: read once from the environment, one documented struct per area.

mod check;
mod env_file;
mod environment;
mod error;
mod fields;
mod values;

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use environment::Environment;

pub use error::SettingsError;
pub use values::DEFAULT_API_KEY;

/// Text that never shows in logs or debug output.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the tasks are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct DatabaseSettings {
    /// The replica set, with its credentials.
    pub mongodb_uri: Secret,
    /// The database's name.
    pub mongodb_database: String,
    /// The collection that holds the tasks.
    pub mongodb_tasks_collection: String,
    /// Most connections to the database.
    pub mongodb_max_connections: u32,
    /// How long a step of a call waits for the database before it is answered without, in milliseconds.
    pub mongodb_timeout_ms: u64,
    /// For tests: tasks are stored as a later release might, with fields and words that this one does not know.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    #[serde(skip)]
    pub stores_later_form: bool,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            mongodb_uri: "mongodb://task_service:password@mongodb-system:27017/task_repository".into(),
            mongodb_database: "task_repository".to_owned(),
            mongodb_tasks_collection: "tasks".to_owned(),
            mongodb_max_connections: 64,
            mongodb_timeout_ms: 4_500,
            #[cfg(debug_assertions)]
            stores_later_form: false,
        }
    }
}

/// Who may call, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct HttpSettings {
    /// The address to listen on. A name stands for one address: its first IPv4 one, else its first.
    #[serde(deserialize_with = "values::address")]
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// The name that health answers show.
    pub service_name: String,
    /// The bootstrap key: all tenants, all roles.
    pub api_key: Secret,
    /// The bootstrap key before that, good beside it while callers move from one to the other; empty: none.
    pub api_key_previous: Secret,
    /// Threads that serve requests; 0: one per core.
    pub http_workers: usize,
    /// Most open connections per thread.
    pub http_max_connections: usize,
    /// Most bytes of request bodies that are held at once, over all connections.
    pub http_max_body_bytes_in_flight: usize,
    /// How long a request's head may take, in milliseconds.
    pub http_head_timeout_ms: u64,
    /// How long a request's body may take, in milliseconds.
    pub http_body_timeout_ms: u64,
    /// How long an answer may wait for its reader, in milliseconds.
    pub http_answer_timeout_ms: u64,
    /// How long a connection without a request stays open, in seconds.
    pub http_keep_alive_seconds: u64,
    /// How long a graceful stop waits for requests in flight, in seconds; what follows takes 5 at most.
    pub shutdown_grace_seconds: u64,
    /// Origins whose pages may call the API, in the words that browsers name them by.
    #[serde(deserialize_with = "values::list")]
    pub cors_allowed_origins: Vec<String>,
    /// Most streams that are open at once.
    pub streams_max: usize,
    /// Most streams of one tenant that are open at once.
    pub streams_max_per_tenant: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([0, 0, 0, 0]),
            port: 8503,
            service_name: "task-repo-service".to_owned(),
            api_key: DEFAULT_API_KEY.into(),
            api_key_previous: "".into(),
            http_workers: 0,
            http_max_connections: 25_000,
            http_max_body_bytes_in_flight: 128 << 20,
            http_head_timeout_ms: 5_000,
            http_body_timeout_ms: 20_000,
            http_answer_timeout_ms: 30_000,
            // Longer than the balancers in front: theirs are 60 s (AWS) and 600 s (Google Cloud).
            http_keep_alive_seconds: 620,
            shutdown_grace_seconds: 20,
            cors_allowed_origins: Vec::new(),
            streams_max: 20_000,
            streams_max_per_tenant: 10_000,
        }
    }
}

/// What holds for tasks that do not say otherwise.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct TaskSettings {
    /// How long a finished task stays, in seconds.
    pub task_retention_seconds: u32,
    /// How often the sweeper looks for leases that ran out, in milliseconds.
    pub sweep_interval_ms: u64,
    /// How often waiting calls look for what other servers did, in milliseconds.
    pub wake_interval_ms: u64,
    /// How often tasks are looked for whose retention has ended, in milliseconds.
    pub retention_interval_ms: u64,
    /// How long the event log goes back, in hours.
    pub event_log_hours: u32,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            task_retention_seconds: 604_800,
            sweep_interval_ms: 400,
            wake_interval_ms: 150,
            retention_interval_ms: 5_000,
            event_log_hours: 24,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Pretty,
}

/// What is logged.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// `json` or `pretty`, in any case.
    #[serde(deserialize_with = "values::word")]
    pub log_format: LogFormat,
    /// A filter such as `info` or `info,task_repo_server=debug`.
    pub log_level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { log_format: LogFormat::Pretty, log_level: "info".to_owned() }
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the tasks are kept.
    pub database: DatabaseSettings,
    /// Who may call, and how.
    pub http: HttpSettings,
    /// What holds for tasks that do not say otherwise.
    pub tasks: TaskSettings,
    /// What is logged.
    pub log: LogSettings,
}

impl Settings {
    /// Reads the environment, and a `.env` file where there is one.
    ///
    /// # Errors
    /// When a variable cannot be read or is out of bounds; the message names it and what was expected.
    pub fn from_env() -> Result<Self, SettingsError> {
        let environment = Environment::read()?;
        let settings = Self {
            database: environment.settings()?,
            http: environment.settings()?,
            tasks: environment.settings()?,
            log: environment.settings()?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Only what the listener needs, from the same places.
    ///
    /// # Errors
    /// When a variable cannot be read.
    pub fn http_from_env() -> Result<HttpSettings, SettingsError> {
        Environment::read()?.settings()
    }

    /// Settings for a test: loopback, a free port, one thread, a database of its own.
    pub fn for_tests(mongodb_uri: &str, database: &str) -> Self {
        let mut settings = Self::default();
        settings.database.mongodb_uri = mongodb_uri.into();
        database.clone_into(&mut settings.database.mongodb_database);
        settings.database.mongodb_max_connections = 16;
        settings.http.host = IpAddr::from([127, 0, 0, 1]);
        settings.http.port = 0;
        settings.http.api_key = "test_api_key".into();
        settings.http.http_workers = 1;
        settings.tasks.retention_interval_ms = 50;
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_do_not_start_on_a_public_address() {
        let mut settings = Settings::default();
        assert!(matches!(settings.check(), Err(SettingsError::DefaultKeyInPublic { .. })));
        settings.http.host = IpAddr::from([127, 0, 0, 1]);
        assert!(settings.check().is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", Settings::default());
        assert!(!printed.contains("password") && !printed.contains(DEFAULT_API_KEY), "{printed}");
    }
}
