//! Every route: method, path, who may call it, and the handler.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use actix_web::http::Method;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use task_repo_protocol::{ErrorCode, Problem, Role, path};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as OpenApiDocument;

use super::app::App;
use super::mounts::is_at_root;
use super::near_path::NearPaths;
use super::openapi::WhatHoldsForAll;
use super::problems::{HandlerResult, Rejection};
use super::request::call::{Call, RequestId, RouteAccess};
use super::route_metrics::RouteMetrics;
use super::{docs, failures, keys, logs, streams, system, task_types, tasks, unreadable, work};

type Handler = fn(Call) -> Pin<Box<dyn Future<Output = HandlerResult>>>;

/// A row of the table.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    access: RouteAccess,
    handler: Handler,
}

const PRODUCER: RouteAccess = RouteAccess::Roles(&[Role::Producer]);
const WORKER: RouteAccess = RouteAccess::Roles(&[Role::Worker]);
const ANY_KEY: RouteAccess = RouteAccess::AnyKey;
const PUBLIC: RouteAccess = RouteAccess::Public;
const ADMIN: RouteAccess = RouteAccess::Roles(&[Role::Admin]);
const OPERATOR: RouteAccess = RouteAccess::Roles(&[Role::Operator]);
const PRODUCER_OR_WORKER: RouteAccess = RouteAccess::Roles(&[Role::Producer, Role::Worker]);
const PRODUCER_OR_OPERATOR: RouteAccess = RouteAccess::Roles(&[Role::Producer, Role::Operator]);
/// The handler itself looks at the role, which depends on the body.
const CANCELLER: RouteAccess = RouteAccess::Roles(&[Role::Producer, Role::Operator, Role::Worker]);

/// THE table of routes: what the server answers, and what the OpenAPI document shows.
macro_rules! routes {
    ($($method:ident $path:ident $access:ident => $module:ident::$handler:ident;)+) => {
        /// All routes of the contract.
        pub(super) fn routes() -> Vec<Route> {
            vec![$(Route {
                method: Method::$method,
                path: path::$path,
                access: $access,
                handler: |call| Box::pin($module::$handler(call)),
            }),+]
        }

        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Task repository service",
                description = "The one place where microservices create, claim and settle tasks.",
                license(name = "MIT OR Apache-2.0")
            ),
            paths($($module::$handler),+),
            components(schemas(Problem)),
            // The page shows the tags in this order.
            tags(
                (name = "tasks", description = "Tasks as their owners see them."),
                (name = "work", description = "Tasks as workers see them: claim, heartbeat, settle."),
                (name = "task types", description = "Task types: what holds for their tasks, pauses, and how they are doing."),
                (name = "keys", description = "API keys. Every call needs the role `admin`."),
                (name = "operation", description = "For those who run the service and its workers: failures, stored tasks that the service cannot read."),
                (name = "system", description = "Health, metrics and this document. The paths work below `/api/v1` too.")
            ),
            modifiers(&WhatHoldsForAll),
            security(("bearer" = []), ("api_key" = []))
        )]
        struct Documented;
    };
}

routes! {
    POST TASKS PRODUCER => tasks::create;
    GET TASKS ANY_KEY => tasks::list;
    POST TASKS_BATCH PRODUCER => tasks::create_batch;
    GET TASKS_BY_RESULT ANY_KEY => tasks::by_result;
    POST TASKS_CLAIM WORKER => work::claim;
    POST TASKS_HEARTBEAT WORKER => work::heartbeat_many;
    POST TASKS_OUTCOMES WORKER => work::outcomes;
    GET TASK ANY_KEY => tasks::get;
    PUT TASK PRODUCER => tasks::edit;
    DELETE TASK PRODUCER => tasks::delete;
    GET TASK_STATUS ANY_KEY => tasks::status;
    PUT TASK_STATUS PRODUCER_OR_WORKER => tasks::set_status;
    GET TASK_EXECUTIONS ANY_KEY => tasks::executions;
    GET TASK_STREAM ANY_KEY => streams::task;
    POST TASK_STREAM_TOKEN ANY_KEY => streams::task_token;
    POST TASK_CANCEL CANCELLER => tasks::cancel;
    POST TASK_EXECUTE PRODUCER_OR_OPERATOR => tasks::execute;
    POST TASK_CLAIM WORKER => work::claim_one;
    POST TASK_COMPLETE WORKER => work::complete;
    POST TASK_FAIL WORKER => work::fail;
    POST TASK_RELEASE WORKER => work::release;
    POST TASK_HEARTBEAT WORKER => work::heartbeat;
    POST TASK_LOGS WORKER => logs::add;
    GET TASK_LOGS ANY_KEY => logs::list;
    GET STREAM ANY_KEY => streams::tenant;
    POST STREAM_TOKEN ANY_KEY => streams::tenant_token;
    POST KEYS ADMIN => keys::issue;
    GET KEYS ADMIN => keys::list;
    DELETE KEY ADMIN => keys::revoke;
    POST KEY_ROTATE ADMIN => keys::rotate;
    GET TASK_TYPES ANY_KEY => task_types::list;
    GET TASK_TYPE ANY_KEY => task_types::get;
    PUT TASK_TYPE OPERATOR => task_types::put;
    DELETE TASK_TYPE OPERATOR => task_types::delete;
    POST TASK_TYPE_PAUSE OPERATOR => task_types::pause;
    POST TASK_TYPE_RESUME OPERATOR => task_types::resume;
    GET FAILURES ANY_KEY => failures::list;
    GET UNREADABLE_TASKS OPERATOR => unreadable::list;
    GET UNREADABLE_TASK OPERATOR => unreadable::show;
    DELETE UNREADABLE_TASK OPERATOR => unreadable::delete;
    GET HEALTH PUBLIC => system::health;
    GET HEALTH_READY PUBLIC => system::ready;
    GET HEALTH_DETAILED ANY_KEY => system::detailed;
    GET METRICS ANY_KEY => system::metrics;
    GET OPENAPI PUBLIC => docs::openapi;
    GET DOCS PUBLIC => docs::page;
    GET DOCS_ASSET PUBLIC => docs::asset;
}

/// The OpenAPI document.
pub fn openapi_document() -> OpenApiDocument {
    Documented::openapi()
}

/// What was probably meant by a path that is none.
static NEAR_PATHS: LazyLock<NearPaths> =
    LazyLock::new(|| NearPaths::of(routes().into_iter().map(|route| (route.method, route.path))));

/// Registers all routes.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let all = routes();
    let mut by_path: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    for route in all {
        if is_at_root(route.path) {
            by_path.entry(route.path.to_owned()).or_default().push(route.clone());
        }
        by_path.entry(format!("{}{}", path::BASE, route.path)).or_default().push(route);
    }
    // Fixed paths go before those with an id in the same place.
    let (fixed, variable): (Vec<_>, Vec<_>) = by_path.into_iter().partition(|(path, _)| !path.contains('{'));
    let (results, variable): (Vec<_>, Vec<_>) =
        variable.into_iter().partition(|(path, _)| path.contains("by-result"));
    for (path, routes) in fixed.into_iter().chain(results).chain(variable) {
        config.service(resource(&path, routes));
    }
    config.default_service(web::route().to(no_such_route));
}

/// The methods that a row answers: `HEAD` is `GET` without the body (RFC 9110, section 9.3.2), which actix leaves out.
fn answered(method: &Method) -> impl Iterator<Item = &Method> {
    std::iter::once(method).chain((method == Method::GET).then_some(&Method::HEAD))
}

fn resource(path: &str, routes: Vec<Route>) -> actix_web::Resource {
    let allow: Vec<_> = routes.iter().flat_map(|route| answered(&route.method)).map(Method::as_str).collect();
    let allow = allow.join(", ");
    let mut resource = web::resource(path).app_data(RouteMetrics::of(path));
    for Route { method, access, handler, .. } in routes {
        let handle = move |request: HttpRequest, payload: Payload, app: Data<App>| async move {
            let request_id = request_id(&request);
            let answer = match Call::open(request, payload, Arc::clone(&app), access) {
                Ok(call) => handler(call).await,
                Err(rejection) => Err(rejection),
            };
            answer.unwrap_or_else(|rejection| rejection.into_response(&request_id))
        };
        for method in answered(&method) {
            resource = resource.route(web::route().method(method.clone()).to(handle));
        }
    }
    let path = path.to_owned();
    resource.default_service(web::route().to(move |request: HttpRequest| {
        // A verb may stand in the place of an id.
        let verb = request.match_info().get("task_id").filter(|_| path.ends_with(path::TASK));
        let detail = match verb.and_then(|verb| Some((verb, NEAR_PATHS.call_on_a_task(verb)?))) {
            Some((verb, call)) => format!("{verb} is not the id of a task: did you mean {call}?"),
            None => format!("{path} has the methods {allow} only"),
        };
        let rejection = Rejection::method(allow.clone(), detail);
        async move { rejection.into_response(&request_id(&request)) }
    }))
}

async fn no_such_route(request: HttpRequest) -> HttpResponse {
    let detail = match NEAR_PATHS.meant(request.path()) {
        Some(meant) => format!("there is no such route; did you mean {meant}?"),
        None => format!("there is no such route; GET {} lists all", path::OPENAPI),
    };
    Rejection::new(ErrorCode::NotFound, detail).into_response(&request_id(&request))
}

fn request_id(request: &HttpRequest) -> String {
    request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_documented_once_and_the_other_way_round() {
        let document = serde_json::to_value(crate::http::openapi_document()).expect("a document");
        let paths = document["paths"].as_object().expect("paths");
        let documented: std::collections::BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().expect("operations").keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let routed: std::collections::BTreeSet<_> = routes()
            .iter()
            .map(|route| {
                let base = if is_at_root(route.path) { "" } else { path::BASE };
                format!("{} {base}{}", route.method, route.path)
            })
            .collect();
        assert_eq!(documented, routed);
    }
}
