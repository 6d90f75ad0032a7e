//! The API's documentation: the OpenAPI document and its page, which loads nothing from outside.

use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header;
use task_repo_protocol::{ErrorCode, path};
use utoipa_swagger_ui::Config;

use super::problems::{HandlerResult, Rejection};
use super::request::call::Call;

/// Only what this server itself serves; the page's own script and styles are inline.
const POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "system",
    security(()), responses((status = 200, description = "The document", body = Object)))]
#[allow(clippy::unused_async, reason = "as every handler")]
pub(super) async fn openapi(call: Call) -> HandlerResult {
    call.no_params()?;
    Ok(HttpResponse::Ok().content_type("application/json; charset=utf-8").body(call.app.document.clone()))
}

/// The OpenAPI document as a page.
#[utoipa::path(get, path = "/docs", operation_id = "get_docs", tag = "system", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
#[allow(clippy::unused_async, reason = "as every handler")]
pub(super) async fn page(call: Call) -> HandlerResult {
    call.no_params()?;
    let (base, docs, document) = (path::BASE, path::DOCS, path::OPENAPI);
    let html = format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Task repository service</title>
<link rel="stylesheet" href="{base}{docs}/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="{base}{docs}/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{ url: "{base}{document}", dom_id: "#page", deepLinking: true, "validatorUrl": null }});</script>
</body>
</html>
"##
    );
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .body(html))
}

/// A part of that page.
#[utoipa::path(get, path = "/docs/{asset}", operation_id = "get_docs_asset", tag = "system",
    security(()), params(("asset" = String, Path)),
    responses((status = 200, description = "The file", body = String, content_type = "*/*")))]
#[allow(clippy::unused_async, reason = "as every handler")]
pub(super) async fn asset(call: Call) -> HandlerResult {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from(path::OPENAPI)));
    call.no_params()?;
    match utoipa_swagger_ui::serve(&call.part("asset"), Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            Ok(HttpResponse::Ok().content_type(file.content_type).body(file.bytes.into_owned()))
        }
        _ => Err(Rejection::new(ErrorCode::NotFound, "there is no such page")),
    }
}
