//! The bounds of settings.

use std::borrow::Cow;

use task_repo_protocol::page::MAX_BATCH_BYTES;

use super::{DEFAULT_API_KEY, Settings, SettingsError};

/// Collections that are for something else than tasks.
const TAKEN_COLLECTIONS: [&str; 4] = ["api_keys", "installation", "job_leases", "servers"];

impl Settings {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), SettingsError> {
        let bounds = |variable, holds: bool, expected, found: String| {
            if holds {
                Ok(())
            } else {
                Err(SettingsError::OutOfBounds { variable: Cow::Borrowed(variable), expected, found })
            }
        };
        let (database, http, tasks) = (&self.database, &self.http, &self.tasks);
        bounds(
            "API_KEY",
            !http.api_key.expose().is_empty(),
            "a key of one character or more",
            String::new(),
        )?;
        bounds(
            "MONGODB_DATABASE",
            is_name(&database.mongodb_database),
            "1 to 63 letters, digits, '-' or '_'",
            database.mongodb_database.clone(),
        )?;
        bounds(
            "MONGODB_TASKS_COLLECTION",
            is_name(&database.mongodb_tasks_collection)
                && !TAKEN_COLLECTIONS.contains(&&*database.mongodb_tasks_collection),
            "1 to 63 letters, digits, '-' or '_', and none of api_keys, installation, job_leases, servers",
            database.mongodb_tasks_collection.clone(),
        )?;
        bounds(
            "MONGODB_MAX_CONNECTIONS",
            (4..=1000).contains(&database.mongodb_max_connections),
            "4 to 1000",
            database.mongodb_max_connections.to_string(),
        )?;
        bounds(
            "MONGODB_TIMEOUT_MS",
            (100..=60_000).contains(&database.mongodb_timeout_ms),
            "100 to 60000 milliseconds",
            database.mongodb_timeout_ms.to_string(),
        )?;
        bounds(
            "SWEEP_INTERVAL_MS",
            (50..=900).contains(&tasks.sweep_interval_ms),
            "50 to 900 milliseconds",
            tasks.sweep_interval_ms.to_string(),
        )?;
        bounds(
            "WAKE_INTERVAL_MS",
            (20..=200).contains(&tasks.wake_interval_ms),
            "20 to 200 milliseconds",
            tasks.wake_interval_ms.to_string(),
        )?;
        bounds(
            "RETENTION_INTERVAL_MS",
            (50..=3_600_000).contains(&tasks.retention_interval_ms),
            "50 to 3600000 milliseconds",
            tasks.retention_interval_ms.to_string(),
        )?;
        bounds(
            "TASK_RETENTION_SECONDS",
            tasks.task_retention_seconds <= 31_536_000,
            "0 to 31536000 seconds",
            tasks.task_retention_seconds.to_string(),
        )?;
        for (variable, millis) in [
            ("HTTP_HEAD_TIMEOUT_MS", http.http_head_timeout_ms),
            ("HTTP_BODY_TIMEOUT_MS", http.http_body_timeout_ms),
            ("HTTP_ANSWER_TIMEOUT_MS", http.http_answer_timeout_ms),
        ] {
            let expected = "100 to 600000 milliseconds";
            bounds(variable, (100..=600_000).contains(&millis), expected, millis.to_string())?;
        }
        bounds(
            "SHUTDOWN_GRACE_SECONDS",
            http.shutdown_grace_seconds <= 3600,
            "0 to 3600 seconds",
            http.shutdown_grace_seconds.to_string(),
        )?;
        bounds(
            "HTTP_MAX_CONNECTIONS",
            (1..=1_000_000).contains(&http.http_max_connections),
            "1 to 1000000",
            http.http_max_connections.to_string(),
        )?;
        bounds(
            "HTTP_MAX_BODY_BYTES_IN_FLIGHT",
            (MAX_BATCH_BYTES..=1 << 40).contains(&http.http_max_body_bytes_in_flight),
            "16777216, which is the largest body, to 1099511627776 bytes",
            http.http_max_body_bytes_in_flight.to_string(),
        )?;
        bounds("HTTP_WORKERS", http.http_workers <= 256, "0 to 256", http.http_workers.to_string())?;
        if http.api_key.expose() == DEFAULT_API_KEY && !http.host.is_loopback() {
            return Err(SettingsError::DefaultKeyInPublic(http.host));
        }
        Ok(())
    }
}

/// Names that mean the same in every place MongoDB puts them.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
