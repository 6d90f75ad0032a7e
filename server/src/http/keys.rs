//! API keys. Every route needs the role `admin`.

use task_repo_protocol::{IssuedKey, KeyInfo, KeyList, KeyRotation, NewKey};

use actix_web::HttpResponse;

use super::problems::{HandlerResult, Rejection};
use super::request::body::parse;
use super::request::call::Call;
use super::request::size::MAX_BODY;
use super::response::json;

/// Issues a key. Its secret is shown this once.
#[utoipa::path(post, path = "/api/v1/keys", operation_id = "issue_key", tag = "keys", request_body = NewKey,
    responses((status = 201, description = "The key with its secret", body = IssuedKey)))]
pub(super) async fn issue(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    no_idempotency_key(&call)?;
    let new: NewKey = parse(&body)?;
    Ok(json(201, &call.app.keys.issue_key(&call.caller, new).await?))
}

/// Lists keys without their secrets, newest first: those of `X-Tenant-ID`, or all.
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "The keys, without secrets", body = KeyList)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    call.no_params()?;
    let keys: Vec<KeyInfo> = call.app.keys.list_keys(&call.caller, call.named_tenant()).await?;
    Ok(json(200, &KeyList { keys }))
}

/// Replaces a key's secret; the old one stays good until the overlap ends.
#[utoipa::path(post, path = "/api/v1/keys/{key_id}/rotate", operation_id = "rotate_key", tag = "keys",
    request_body(content = Option<KeyRotation>),
    params(("key_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The key with its new secret", body = IssuedKey)))]
pub(super) async fn rotate(mut call: Call) -> HandlerResult {
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    no_idempotency_key(&call)?;
    let rotation: KeyRotation = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    Ok(json(200, &call.app.keys.rotate_key(&call.caller, call.key_id()?, &rotation).await?))
}

/// Revokes a key: refused from then on, everywhere within 5 seconds.
#[utoipa::path(delete, path = "/api/v1/keys/{key_id}", operation_id = "revoke_key", tag = "keys",
    params(("key_id" = String, Path, format = Uuid)),
    responses((status = 204, description = "The key is revoked; there is no body")))]
pub(super) async fn revoke(call: Call) -> HandlerResult {
    call.no_params()?;
    call.app.keys.revoke_key(&call.caller, call.key_id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A secret is shown once: a repeat could not show it again.
fn no_idempotency_key(call: &Call) -> Result<(), Rejection> {
    if call.has_idempotency_key() {
        return Err(Rejection::parameter(
            "Idempotency-Key",
            "it makes no key safe to repeat, since a secret is shown once only: leave the header out",
        ));
    }
    Ok(())
}
