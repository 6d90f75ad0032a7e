//! The bounds of settings.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use task_repo_protocol::page::MAX_BATCH_BYTES;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{DEFAULT_API_KEY, DatabaseSettings, HttpSettings, Settings, SettingsError, TaskSettings};

/// Databases that are MongoDB's own. It takes names that differ from others only by case for the same.
const TAKEN_DATABASES: [&str; 3] = ["admin", "config", "local"];
/// Collections that are for something else than tasks.
const TAKEN_COLLECTIONS: [&str; 4] = ["api_keys", "installation", "job_leases", "servers"];
/// How the names of collections end that lie beside the tasks: another server's tasks may stand there.
const TAKEN_ENDINGS: [&str; 3] = ["_pulse", "_checkpoints", "_logs"];
/// Longest API key, in characters: a request's head has room for it.
const MAX_KEY: usize = 4096;
/// Longest name that health answers show, in characters.
const MAX_SERVICE_NAME: usize = 128;

impl Settings {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_database(&self.database)?;
        check_http(&self.http)?;
        check_tasks(self.tasks)?;
        bounds(
            "LOG_LEVEL",
            is_filter(&self.log.log_level),
            "trace, debug, info, warn, error or off, alone or with levels of parts as in info,task_repo_server=debug,",
            &self.log.log_level,
        )
    }
}

fn bounds(
    variable: &'static str,
    holds: bool,
    expected: &'static str,
    found: &(impl ToString + ?Sized),
) -> Result<(), SettingsError> {
    if holds {
        return Ok(());
    }
    Err(SettingsError::OutOfBounds { variable: Cow::Borrowed(variable), expected, found: found.to_string() })
}

/// The same for what may be a secret.
fn secret(variable: &'static str, holds: bool, expected: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError::Unfit { variable: Cow::Borrowed(variable), expected }) }
}

fn check_database(database: &DatabaseSettings) -> Result<(), SettingsError> {
    let uri = database.mongodb_uri.expose();
    secret(
        "MONGODB_URI",
        !uri.is_empty() && uri.trim() == uri,
        "mongodb://USER:PASSWORD@HOST:PORT/DATABASE?replicaSet=NAME, without white space at its ends,",
    )?;
    let name = &database.mongodb_database;
    bounds(
        "MONGODB_DATABASE",
        is_name(name) && !TAKEN_DATABASES.iter().any(|taken| name.eq_ignore_ascii_case(taken)),
        "1 to 63 letters of a-z, digits, '-' or '_', and none of admin, config, local",
        name,
    )?;
    let name = &database.mongodb_tasks_collection;
    bounds(
        "MONGODB_TASKS_COLLECTION",
        is_name(name)
            && !TAKEN_COLLECTIONS.contains(&&**name)
            && !TAKEN_ENDINGS.iter().any(|ending| name.ends_with(ending)),
        "1 to 63 letters of a-z, digits, '-' or '_', none of api_keys, installation, job_leases, servers, and no name that \
         ends in _pulse, _checkpoints or _logs",
        name,
    )?;
    bounds(
        "MONGODB_MAX_CONNECTIONS",
        (4..=1000).contains(&database.mongodb_max_connections),
        "4 to 1000",
        &database.mongodb_max_connections,
    )?;
    bounds(
        "MONGODB_TIMEOUT_MS",
        (100..=60_000).contains(&database.mongodb_timeout_ms),
        "100 to 60000 milliseconds",
        &database.mongodb_timeout_ms,
    )
}

fn check_http(http: &HttpSettings) -> Result<(), SettingsError> {
    let is_plain = |character: char| !character.is_control();
    bounds(
        "SERVICE_NAME",
        (1..=MAX_SERVICE_NAME).contains(&http.service_name.chars().count())
            && http.service_name.chars().all(is_plain)
            && http.service_name.trim() == http.service_name,
        "1 to 128 characters in one line, without white space at its ends,",
        &http.service_name,
    )?;
    let (key, previous) = (http.api_key.expose(), http.api_key_previous.expose());
    secret("API_KEY", is_key(key), KEY)?;
    secret("API_KEY_PREVIOUS", previous.is_empty() || is_key(previous), KEY)?;
    secret("API_KEY_PREVIOUS", previous != key, "another key than API_KEY")?;
    for (variable, key) in [("API_KEY", key), ("API_KEY_PREVIOUS", previous)] {
        if key == DEFAULT_API_KEY && !http.host.is_loopback() {
            return Err(SettingsError::DefaultKeyInPublic { variable, host: http.host });
        }
    }
    for (variable, millis) in [
        ("HTTP_HEAD_TIMEOUT_MS", http.http_head_timeout_ms),
        ("HTTP_BODY_TIMEOUT_MS", http.http_body_timeout_ms),
        ("HTTP_ANSWER_TIMEOUT_MS", http.http_answer_timeout_ms),
    ] {
        bounds(variable, (100..=600_000).contains(&millis), "100 to 600000 milliseconds", &millis)?;
    }
    bounds(
        "HTTP_KEEP_ALIVE_SECONDS",
        (1..=7200).contains(&http.http_keep_alive_seconds),
        "1 to 7200 seconds",
        &http.http_keep_alive_seconds,
    )?;
    bounds(
        "SHUTDOWN_GRACE_SECONDS",
        http.shutdown_grace_seconds <= 3600,
        "0 to 3600 seconds",
        &http.shutdown_grace_seconds,
    )?;
    bounds(
        "HTTP_MAX_CONNECTIONS",
        (1..=1_000_000).contains(&http.http_max_connections),
        "1 to 1000000",
        &http.http_max_connections,
    )?;
    bounds(
        "HTTP_MAX_BODY_BYTES_IN_FLIGHT",
        (MAX_BATCH_BYTES..=1 << 40).contains(&http.http_max_body_bytes_in_flight),
        "16777216, which is the largest body, to 1099511627776 bytes",
        &http.http_max_body_bytes_in_flight,
    )?;
    bounds("HTTP_WORKERS", http.http_workers <= 256, "0 to 256", &http.http_workers)?;
    for origin in &http.cors_allowed_origins {
        let expected = "exact origins with commas between them, each as browsers write it, such as \
                        https://app.example.com or http://localhost:3000 (no path, no * and no default port),";
        bounds("CORS_ALLOWED_ORIGINS", is_origin(origin), expected, origin)?;
    }
    for (variable, streams) in
        [("STREAMS_MAX", http.streams_max), ("STREAMS_MAX_PER_TENANT", http.streams_max_per_tenant)]
    {
        bounds(variable, (1..=1_000_000).contains(&streams), "1 to 1000000", &streams)?;
    }
    Ok(())
}

/// Whether a browser may name an origin by just these characters: they are compared as they are.
fn is_origin(text: &str) -> bool {
    let parts = text.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
    let Some((scheme, authority)) = parts else { return false };
    let host_end = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[host_end..].split_once(':') {
        Some((rest, port)) => (&authority[..host_end + rest.len()], Some(port)),
        None => (authority, None),
    };
    let default = if scheme == "https" { "443" } else { "80" };
    let is_port = port.is_none_or(|port| {
        port != default && port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port)
    });
    let is_host = if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address)
    } else {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        host.len() <= 253 && host.split('.').all(is_label)
    };
    is_port && is_host
}

fn check_tasks(tasks: TaskSettings) -> Result<(), SettingsError> {
    for (variable, millis, least, most, expected) in [
        ("SWEEP_INTERVAL_MS", tasks.sweep_interval_ms, 50, 900, "50 to 900 milliseconds"),
        ("WAKE_INTERVAL_MS", tasks.wake_interval_ms, 20, 200, "20 to 200 milliseconds"),
        ("RETENTION_INTERVAL_MS", tasks.retention_interval_ms, 50, 3_600_000, "50 to 3600000 milliseconds"),
        ("EVENT_LOG_HOURS", tasks.event_log_hours.into(), 1, 168, "1 to 168 hours"),
    ] {
        bounds(variable, (least..=most).contains(&millis), expected, &millis)?;
    }
    bounds(
        "TASK_RETENTION_SECONDS",
        tasks.task_retention_seconds <= 31_536_000,
        "0 to 31536000 seconds",
        &tasks.task_retention_seconds,
    )
}

/// Names that mean the same in every place MongoDB puts them.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What a key may be.
const KEY: &str = "a key of 1 to 4096 visible ASCII characters, without white space at its ends,";

/// Whether a caller can send that key: a header holds ASCII only, and white space at its ends is no part of it.
fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && key.trim() == key
}

/// Whether it filters as it is meant. The library takes a word that is no level for the name of a part: `verbose` alone would
/// silence everything.
fn is_filter(text: &str) -> bool {
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let is_meant = |part: &str| part.contains(['=', '[']) || is_level(part);
    text.split(',').all(is_meant) && EnvFilter::builder().parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the check says of the defaults for this machine, changed like that.
    fn said(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::for_tests("mongodb://127.0.0.1/", "tests");
        change(&mut settings);
        settings.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn filters_name_levels() {
        for good in
            ["info", "WARN", "off", "info,task_repo_server=debug", "warn,[request]=trace", "mongodb=info"]
        {
            assert_eq!(said(|settings| good.clone_into(&mut settings.log.log_level)), "", "{good}");
        }
        for wrong in
            ["", " ", ",", "info,", "verbose", "warning", "info,hyper", "info,hyper=loud", "info;debug"]
        {
            let said = said(|settings| wrong.clone_into(&mut settings.log.log_level));
            assert!(said.starts_with("LOG_LEVEL: trace, debug"), "{wrong}: {said}");
        }
    }

    #[test]
    fn keys_can_be_sent_in_a_header_and_differ() {
        for good in ["k", "a key", "~!@#$%^&*()"] {
            assert_eq!(said(|settings| settings.http.api_key = good.into()), "", "{good}");
        }
        for wrong in [" k", "k\n", "k\tk", "schlüssel", "密钥", &"k".repeat(MAX_KEY + 1)] {
            let of_key = said(|settings| settings.http.api_key = wrong.into());
            let of_previous = said(|settings| settings.http.api_key_previous = wrong.into());
            assert!(of_key.starts_with("API_KEY: a key") && of_key.ends_with("not shown)"), "{of_key}");
            assert!(of_previous.starts_with("API_KEY_PREVIOUS: a key"), "{of_previous}");
        }
        assert!(said(|settings| settings.http.api_key = "".into()).starts_with("API_KEY: "));
        assert_eq!(said(|settings| settings.http.api_key_previous = "".into()), "");
        let same = said(|settings| settings.http.api_key_previous = settings.http.api_key.clone());
        assert!(same.starts_with("API_KEY_PREVIOUS: another key than API_KEY"), "{same}");
        let public = said(|settings| {
            settings.http.host = [192, 0, 2, 1].into();
            settings.http.api_key_previous = DEFAULT_API_KEY.into();
        });
        assert!(public.starts_with("API_KEY_PREVIOUS is the default"), "{public}");
    }

    #[test]
    fn origins_are_those_that_browsers_name() {
        let of = |origin: &str| {
            said(|settings| {
                settings.http.cors_allowed_origins = vec!["https://a.example".into(), origin.into()];
            })
        };
        for good in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8443",
            "https://xn--grn-ioa.example",
            "http://host:443",
        ] {
            assert_eq!(of(good), "", "{good}");
        }
        for wrong in [
            "*",
            "",
            "null",
            "https://*",
            "https://*.example.com",
            "https://a.example/",
            "https://a.example/b",
            "a.example",
            "HTTPS://a.example",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a.example:0",
            "https://a.example:08443",
            "https://a.example:99999",
            "https://a.example:",
            "https://user@a.example",
            "https://a..example",
            "https://grün.example",
            "ftp://a.example",
            "https://",
            "https://a.example?b",
            "https://[::1",
            "https://a.example b",
            "https://[0:0::1]",
        ] {
            assert!(of(wrong).starts_with("CORS_ALLOWED_ORIGINS: exact origins"), "{wrong}");
        }
    }

    #[test]
    fn names_are_not_those_of_something_else() {
        let database = |name: &str| said(|settings| name.clone_into(&mut settings.database.mongodb_database));
        let tasks =
            |name: &str| said(|settings| name.clone_into(&mut settings.database.mongodb_tasks_collection));
        for name in ["", "admin", "Config", "local", "a b", "a.b", "a$b", "größe", " a", &"n".repeat(64)] {
            assert!(database(name).starts_with("MONGODB_DATABASE: "), "{name}");
        }
        for name in
            ["", "api_keys", "installation", "job_leases", "servers", "a_pulse", "a_logs", "a.b", "a "]
        {
            assert!(tasks(name).starts_with("MONGODB_TASKS_COLLECTION: "), "{name}");
        }
        assert_eq!((database("Tasks-1"), tasks("logs")), (String::new(), String::new()));
    }
}
