//! Health and metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::HttpResponse;
use task_repo_protocol::ErrorCode;
use task_repo_protocol::system::{
    BackgroundJob, Dependency, DetailedHealth, Feed, Health, LogReader, ServerEntry, Unreadable,
    UnreadableDocument as Document,
};

use super::problems::{HandlerResult, Rejection};
use super::request::call::Call;
use super::response::json;
use crate::store::ServerRecord;
use crate::telemetry;

/// How many unreadable documents are named.
const MAX_SHOWN: usize = 20;
/// How many times the feed's lag the database's own history must reach back.
const OPLOG_MARGIN: f64 = 10.0;
/// The reader of the event log that streams live on, and its job.
const STREAMS: &str = "streams";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The process lives. Never touches the database.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "system",
    security(()), responses((status = 200, description = "The process lives", body = Health)))]
#[allow(clippy::unused_async, reason = "as every handler")]
pub(super) async fn health(call: Call) -> HandlerResult {
    call.no_params()?;
    Ok(json(200, &standing(&call, "healthy")))
}

/// The service can do its work: the database takes writes and has its indexes, and the server is not about to stop.
#[utoipa::path(get, path = "/health/ready", operation_id = "get_readiness", tag = "system", security(()),
    responses((status = 200, description = "The service can do its work", body = Health)))]
pub(super) async fn ready(call: Call) -> HandlerResult {
    call.no_params()?;
    if call.app.background.is_draining() {
        return Err(Rejection::new(ErrorCode::Unavailable, "the server is about to stop"));
    }
    let ping = call.app.store.ping(call.caller.deadline.at()).await;
    ping.map_err(|_| Rejection::new(ErrorCode::Unavailable, "the database takes no writes now"))?;
    if let Some(missing) = call.app.store.indexes().missing() {
        return Err(Rejection::new(ErrorCode::Unavailable, missing));
    }
    Ok(json(200, &standing(&call, "healthy")))
}

/// Each dependency and background job.
#[utoipa::path(get, path = "/health/detailed", operation_id = "get_detailed_health", tag = "system",
    responses((status = 200, description = "The database, the jobs, the servers on this database",
        body = DetailedHealth)))]
pub(super) async fn detailed(call: Call) -> HandlerResult {
    call.no_params()?;
    let database = match call.app.store.ping(call.caller.deadline.at()).await {
        Ok(took) => {
            let detail = call.app.store.indexes().missing();
            Dependency {
                status: if detail.is_none() { "healthy" } else { "degraded" }.to_owned(),
                latency_ms: Some(took.as_secs_f64() * 1000.0),
                detail,
            }
        }
        Err(error) => {
            Dependency { status: "unavailable".to_owned(), latency_ms: None, detail: Some(error.to_string()) }
        }
    };
    let background = call.app.jobs.states();
    let unreadable = unreadable(&call);
    let feed = feed(&call, &background).await;
    let is_well = |job: &BackgroundJob| ["healthy", "starting"].contains(&&*job.status);
    let well = database.detail.is_none()
        && !feed.as_ref().is_some_and(is_near_the_end)
        && unreadable.count == 0
        && background.values().all(is_well);
    let status = match (call.app.background.is_draining(), well) {
        (true, _) => "draining",
        (false, true) => "healthy",
        (false, false) => "degraded",
    };
    let Health { status, service, version } = standing(&call, status);
    Ok(json(
        200,
        &DetailedHealth {
            status,
            service,
            version,
            uptime_seconds: call.app.started.elapsed().as_secs(),
            dependencies: BTreeMap::from([("mongodb".to_owned(), database)]),
            feed,
            readers: readers(&call, &background).await,
            background,
            servers: servers(&call).await,
            unreadable,
        },
    ))
}

/// How far the feed is, whichever server reads it.
async fn feed(call: &Call, background: &BTreeMap<String, BackgroundJob>) -> Option<Feed> {
    let (state, now) = (call.app.jobs.feed(), call.app.store.clock().now());
    let known = state.known()?;
    let window = call.app.store.oplog_window(call.caller.deadline.at()).await.ok().flatten();
    Some(Feed {
        oplog_window_seconds: window.map(|window| window.as_secs()),
        position: known.number,
        lag_seconds: state.lag(now).as_secs_f64(),
        last_error: background.get("feed").and_then(|job| job.detail.clone()),
        last_at: known.as_of,
        last_gap_at: known.last_gap_at,
    })
}

/// Whether the feed may soon find that the database has forgotten what it has not read yet.
#[allow(clippy::cast_precision_loss, reason = "seconds")]
fn is_near_the_end(feed: &Feed) -> bool {
    feed.oplog_window_seconds.is_some_and(|window| (window as f64) < OPLOG_MARGIN * feed.lag_seconds)
}

/// Those who read the event log. This server reads it while somebody watches tasks here.
async fn readers(call: &Call, background: &BTreeMap<String, BackgroundJob>) -> BTreeMap<String, LogReader> {
    let Some((position, lag)) = log_lag(call) else { return BTreeMap::new() };
    let ahead =
        call.app.store.log_events_after(position, call.caller.deadline.at()).await.unwrap_or_default();
    let reader = LogReader {
        position,
        lag_seconds: lag.as_secs_f64(),
        events_ahead: ahead,
        last_error: background.get(STREAMS).and_then(|job| job.detail.clone()),
        last_at: call.app.streams.tail().read_at,
    };
    BTreeMap::from([(STREAMS.to_owned(), reader)])
}

/// How far this server has read the event log, and how old the latest event is that it has read where there is more.
fn log_lag(call: &Call) -> Option<(i64, Duration)> {
    let tail = call.app.streams.tail();
    let position = tail.position?;
    let is_behind = call.app.jobs.feed().known().is_some_and(|feed| feed.number > position);
    let now = call.app.store.clock().now();
    let age = tail.latest_event.or(tail.read_at).and_then(|at| (now - at).to_std().ok());
    Some((position, age.filter(|_| is_behind).unwrap_or_default()))
}

/// The servers on this database, as far as it says.
async fn servers(call: &Call) -> Vec<ServerEntry> {
    let servers = call.app.store.servers(call.caller.deadline.at()).await.unwrap_or_default();
    let entry = |server: ServerRecord| ServerEntry {
        id: server.id,
        host: server.host,
        version: server.version,
        schema: server.schema,
        started_at: server.started_at,
        renewed_at: server.renewed_at,
    };
    servers.into_iter().map(entry).collect()
}

fn unreadable(call: &Call) -> Unreadable {
    let documents = call.app.store.unreadable().list();
    let shown = documents.iter().take(MAX_SHOWN).map(|document| Document {
        collection: document.collection.clone(),
        id: document.id.clone(),
        field: document.field.clone(),
        since: document.since,
    });
    Unreadable { count: documents.len() as u64, documents: shown.collect() }
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "system",
    responses((status = 200, description = "Every metric of this server",
        body = String, content_type = "text/plain; version=0.0.4")))]
#[allow(clippy::unused_async, reason = "as every handler")]
pub(super) async fn metrics(call: Call) -> HandlerResult {
    call.no_params()?;
    // What has changed since a round ended: a job that stands still reports nothing.
    call.app.jobs.states();
    let lag = call.app.jobs.feed().lag(call.app.store.clock().now());
    metrics::gauge!("task_repo_feed_lag_seconds").set(lag.as_secs_f64());
    let reader = log_lag(&call);
    let lag = reader.map_or(Duration::ZERO, |(_, lag)| lag);
    metrics::gauge!("task_repo_log_reader_lag_seconds", "reader" => STREAMS).set(lag.as_secs_f64());
    let until = call.caller.deadline.at();
    let ahead = match reader {
        Some((position, lag)) if !lag.is_zero() => call.app.store.log_events_after(position, until).await,
        _ => Ok(0),
    };
    let ahead = u32::try_from(ahead.unwrap_or_default()).unwrap_or(u32::MAX);
    metrics::gauge!("task_repo_log_reader_events_ahead", "reader" => STREAMS).set(ahead);
    let open = u32::try_from(call.app.streams.count()).unwrap_or(u32::MAX);
    metrics::gauge!("task_repo_open_streams").set(open);
    let unreadable = u32::try_from(call.app.store.unreadable().list().len()).unwrap_or(u32::MAX);
    metrics::gauge!("task_repo_unreadable_documents").set(unreadable);
    let text = telemetry::metrics().render();
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text))
}

fn standing(call: &Call, status: &str) -> Health {
    Health { status: status.to_owned(), service: call.app.name.clone(), version: VERSION.to_owned() }
}
