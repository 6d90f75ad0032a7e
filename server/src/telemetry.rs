//! Logs and metrics.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging to standard output. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn start_logging(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_level).map_err(|error| {
        format!("LOG_LEVEL: a filter such as info or info,task_repo_server=debug is expected ({error})")
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // A program that embeds the server may have started logging already.
    let _ = match settings.log_format {
        LogFormat::Json => {
            logs.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
        LogFormat::Pretty => logs.with_ansi(std::io::stdout().is_terminal()).try_init(),
    };
    Ok(())
}

/// The process's metrics, as Prometheus text on demand.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Another recorder in the process would get the numbers instead; the page is then empty, nothing breaks.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// An id for the log: the first 4 and last 4 characters.
pub fn masked(id: &str) -> String {
    let chars: Vec<char> = id.chars().collect();
    if chars.len() <= 8 {
        return "****".to_owned();
    }
    let (first, last) = (&chars[..4], &chars[chars.len() - 4..]);
    format!("{}…{}", first.iter().collect::<String>(), last.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_masked() {
        assert_eq!(masked("0198f2c4-aaaa-bbbb-cccc-ddddeeee1234"), "0198…1234");
        assert_eq!(masked("short"), "****");
        assert_eq!(masked("gröößenwahn"), "gröö…wahn");
    }
}
