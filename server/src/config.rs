//! Settings: read once from the environment, one documented struct per area.

mod check;
mod fields;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use fields::fields;

/// The key the service comes with; refused on a public address.
pub const DEFAULT_API_KEY: &str = "dev_api_key";

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
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// The name that health answers show.
    pub service_name: String,
    /// The bootstrap key: all tenants, all roles.
    pub api_key: Secret,
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
    /// How long a graceful stop waits for requests in flight, in seconds; what follows takes 5 at most.
    pub shutdown_grace_seconds: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([0, 0, 0, 0]),
            port: 8503,
            service_name: "task-repo-service".to_owned(),
            api_key: DEFAULT_API_KEY.into(),
            http_workers: 0,
            http_max_connections: 25_000,
            http_max_body_bytes_in_flight: 128 << 20,
            http_head_timeout_ms: 5_000,
            http_body_timeout_ms: 20_000,
            http_answer_timeout_ms: 30_000,
            shutdown_grace_seconds: 20,
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
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            task_retention_seconds: 604_800,
            sweep_interval_ms: 400,
            wake_interval_ms: 150,
            retention_interval_ms: 5_000,
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
    /// `json` or `pretty`.
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

/// A setting that does not let the service start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Values that cannot be read together, though each can alone.
    #[error("the settings cannot be read: {0}. The README's settings table says what each variable expects.")]
    Unreadable(#[from] envy::Error),
    /// A `.env` file that is there and cannot be read.
    #[error("the .env file cannot be read: {0}")]
    EnvFile(String),
    /// A value that is no text. It is not shown: it may be a secret.
    #[error("{0}: text in UTF-8 is expected")]
    NoText(String),
    /// A value that is out of bounds.
    #[error("{variable}: {expected} is expected, found {found}")]
    OutOfBounds {
        /// The environment variable.
        variable: Cow<'static, str>,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The default key on an address that others can reach.
    #[error(
        "API_KEY is the default '{DEFAULT_API_KEY}' and HOST {0} can be reached from outside. \
         Set API_KEY to a secret of your own, or HOST to 127.0.0.1."
    )]
    DefaultKeyInPublic(IpAddr),
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

/// All variables.
struct Environment {
    variables: Vec<(String, String)>,
    /// Names of those whose value is no text. It is nobody's business here unless one of them is a setting.
    no_text: Vec<String>,
}

impl Environment {
    /// The process's own, and those of a `.env` file that it does not have.
    fn read() -> Result<Self, SettingsError> {
        match dotenvy::dotenv() {
            Ok(_) => {}
            // The usual case.
            Err(error) if error.not_found() => {}
            // The line is not shown: it may hold a secret.
            Err(dotenvy::Error::LineParse(..)) => {
                return Err(SettingsError::EnvFile("a line is not NAME=VALUE".into()));
            }
            Err(error) => return Err(SettingsError::EnvFile(error.to_string())),
        }
        Ok(Self::of(std::env::vars_os()))
    }

    /// `std::env::vars` would panic at a value that is no text, and print it.
    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut read = Self { variables: Vec::new(), no_text: Vec::new() };
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => read.variables.push((name, value)),
                Err(_) => read.no_text.push(name),
            }
        }
        read
    }

    /// One area's settings. Every variable of an area has a default, so that each can be read alone.
    fn settings<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        let is_ours = |name: &&String| fields::<T>().contains(&name.to_lowercase().as_str());
        if let Some(name) = self.no_text.iter().find(is_ours) {
            return Err(SettingsError::NoText(name.clone()));
        }
        envy::from_iter(self.variables.iter().cloned()).map_err(|error| {
            let unreadable =
                |variable: &&(String, String)| envy::from_iter::<_, T>([(*variable).clone()]).is_err();
            match self.variables.iter().find(unreadable) {
                Some((name, value)) => SettingsError::OutOfBounds {
                    variable: name.to_uppercase().into(),
                    expected: expected(name),
                    found: value.clone(),
                },
                None => SettingsError::Unreadable(error),
            }
        })
    }
}

/// What a variable holds that is not any text.
fn expected(variable: &str) -> &'static str {
    match variable.to_uppercase().as_str() {
        "HOST" => "an IP address such as 127.0.0.1 or 0.0.0.0",
        "PORT" => "a whole number from 0 to 65535",
        "LOG_FORMAT" => "json or pretty",
        _ => "a whole number without a unit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_do_not_start_on_a_public_address() {
        let mut settings = Settings::default();
        assert!(matches!(settings.check(), Err(SettingsError::DefaultKeyInPublic(_))));
        settings.http.host = IpAddr::from([127, 0, 0, 1]);
        assert!(settings.check().is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", Settings::default());
        assert!(!printed.contains("password") && !printed.contains(DEFAULT_API_KEY), "{printed}");
    }

    #[test]
    fn a_value_that_cannot_be_read_names_its_variable() {
        fn refused<T: DeserializeOwned>(name: &str, value: &str) -> String {
            let variables = [("PATH", "/bin"), (name, value), ("SERVICE_NAME", "s")];
            let environment =
                Environment::of(variables.map(|(name, value)| (name.into(), value.into())).into_iter());
            environment.settings::<T>().err().map(|error| error.to_string()).unwrap_or_default()
        }
        for (name, value, expected) in [
            ("PORT", "eighty", "PORT: a whole number from 0 to 65535 is expected, found eighty"),
            ("PORT", "65536", "PORT: a whole number from 0 to 65535 is expected, found 65536"),
            (
                "HOST",
                "localhost",
                "HOST: an IP address such as 127.0.0.1 or 0.0.0.0 is expected, found localhost",
            ),
        ] {
            assert_eq!(refused::<HttpSettings>(name, value), expected);
        }
        assert_eq!(
            refused::<LogSettings>("LOG_FORMAT", "xml"),
            "LOG_FORMAT: json or pretty is expected, found xml"
        );
        let refused = refused::<DatabaseSettings>("MONGODB_TIMEOUT_MS", "5s");
        assert!(
            refused.contains("MONGODB_TIMEOUT_MS: a whole number") && refused.ends_with("found 5s"),
            "{refused}"
        );
    }

    #[test]
    fn a_value_that_is_no_text_counts_only_where_it_is_a_setting() {
        use std::os::unix::ffi::OsStringExt as _;
        let refused = |name: &str| {
            let variable = (name.into(), OsString::from_vec(vec![b'a', 0xff]));
            let environment = Environment::of([variable].into_iter());
            let database = environment.settings::<DatabaseSettings>().err();
            database.or(environment.settings::<HttpSettings>().err()).map(|error| error.to_string())
        };
        assert_eq!(refused("LS_COLORS"), None);
        for ours in ["API_KEY", "mongodb_uri"] {
            assert_eq!(refused(ours), Some(format!("{ours}: text in UTF-8 is expected")));
        }
    }
}
