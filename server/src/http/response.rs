//! Answers.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

/// An answer in JSON.
pub(super) fn json<T: Serialize>(status: u16, value: &T) -> HttpResponse {
    match serde_json::to_vec(value) {
        Ok(text) => HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK))
            .content_type("application/json; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "an answer has no JSON form");
            HttpResponse::InternalServerError().finish()
        }
    }
}
