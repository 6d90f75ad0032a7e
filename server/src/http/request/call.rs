//! One request, taken apart in the order in which the contract refuses: role and tenant, media type, size,
//! parameters, form, and only then what the service itself has to say.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use task_repo_protocol::key::visible_ascii;
use task_repo_protocol::{ErrorCode, Role, Uuid, path};

use super::params::Params;
use crate::access::{Caller, Deadline, Identity, Scope};
use crate::http::app::App;
use crate::http::body_room::BodyShare;
use crate::http::problems::Rejection;
use crate::json_value::fingerprint;
use crate::usecases::{Failure, Granted, IdempotencyKey, KeyEnd, OneStream, TaskService};

/// Most bytes that are reserved for a body before it has come.
const MAX_RESERVED: usize = 64 << 10;

/// Why a key that has the right form is refused. What it lacks is not told.
pub(in crate::http) const UNKNOWN_KEY: &str =
    "the key is not known, or has expired or been revoked: ask an admin for another";

/// Why a stream token is refused.
pub(in crate::http) const UNKNOWN_TOKEN: &str =
    "the stream token is not good for this stream: it is wrong or has expired, or its key has. Make another";

/// Names a request in answers and logs.
#[derive(Debug, Clone)]
pub(in crate::http) struct RequestId(pub(in crate::http) String);

/// How long it took to find out who calls.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct AuthenticationTime(pub(in crate::http) Duration);

/// The callers that may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum RouteAccess {
    /// Everybody, without a key.
    Public,
    /// Every key.
    AnyKey,
    /// Keys that have one of these roles.
    Roles(&'static [Role]),
}

/// A request whose caller may use the route.
pub(in crate::http) struct Call {
    pub(in crate::http) app: Arc<App>,
    pub(in crate::http) caller: Caller,
    pub(in crate::http) request_id: String,
    pub(in crate::http) identity: Identity,
    /// The one stream that is asked for with a stream token.
    pub(in crate::http) stream: Option<OneStream>,
    request: HttpRequest,
    payload: Payload,
    /// The share of its body in the room for all bodies, until the request is answered.
    share: BodyShare,
}

impl Call {
    /// Checks role and tenant.
    pub(in crate::http) fn open(
        request: HttpRequest,
        payload: Payload,
        app: Arc<App>,
        access: RouteAccess,
    ) -> Result<Self, Rejection> {
        let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let identity = request.extensions().get::<Identity>().cloned().unwrap_or(Identity::Anonymous);
        if matches!(identity, Identity::Anonymous) && access != RouteAccess::Public {
            return Err(unauthenticated(
                "this needs a key: send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            ));
        }
        if let RouteAccess::Roles(roles) = access
            && !identity.has_any(roles)
        {
            return Err(lacks_role(roles));
        }
        // A stream token is good for whom it was made, whatever the headers say.
        let stream = request.extensions().get::<Granted>().cloned();
        let scope = match &stream {
            Some(granted) => granted.scope.clone(),
            None => scope(&identity, &request)?,
        };
        let AuthenticationTime(spent) = request.extensions().get().copied().unwrap_or_default();
        let deadline = Deadline::within(app.store.timeout().saturating_sub(spent));
        let (caller, share) = (Caller { scope, deadline }, app.bodies.share());
        Ok(Self {
            app,
            caller,
            request_id,
            identity,
            stream: stream.map(|granted| granted.stream),
            request,
            payload,
            share,
        })
    }

    /// Refuses what is said to be done on behalf of an end user: it is about the tasks of all.
    pub(in crate::http) fn for_no_user(&self) -> Result<(), Rejection> {
        if self.caller.scope.user.is_none() {
            return Ok(());
        }
        let detail = "this is about the tasks of all users: leave X-User-ID out";
        Err(Rejection::new(ErrorCode::Forbidden, detail))
    }

    /// Whether the answer has no body.
    pub(in crate::http) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    /// The service behind the edge.
    pub(in crate::http) fn service(&self) -> &Arc<TaskService> {
        &self.app.service
    }

    /// Refuses callers that have none of these roles.
    pub(in crate::http) fn needs(&self, roles: &[Role]) -> Result<(), Rejection> {
        if self.identity.has_any(roles) {
            return Ok(());
        }
        Err(lacks_role(roles))
    }

    /// Waits, while the caller's key allows what it allowed when the call came.
    pub(in crate::http) async fn while_allowed<T>(
        &self,
        waiting: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Rejection> {
        tokio::select! {
            // A result that is at hand already was allowed.
            biased;
            done = waiting => Ok(done?),
            end = self.app.keys.key_ends(&self.identity) => Err(match end {
                KeyEnd::Gone => unauthenticated(UNKNOWN_KEY),
                KeyEnd::Narrowed => Rejection::new(
                    ErrorCode::Forbidden,
                    "the API key has lost a role or a task type while the call waited",
                ),
            }),
        }
    }

    /// Resolves when the caller's key does not allow any more what it allowed when the call came.
    pub(in crate::http) fn key_end(&self) -> impl Future<Output = KeyEnd> + 'static {
        let (keys, identity) = (Arc::clone(&self.app.keys), self.identity.clone());
        async move { keys.key_ends(&identity).await }
    }

    /// The text of a header; `None` where it is no text, or stands twice.
    pub(in crate::http) fn text_of(&self, name: &str) -> Option<String> {
        header_text(&self.request, name)?.ok().map(str::to_owned)
    }

    /// The tenant named in the request, if one is.
    pub(in crate::http) fn named_tenant(&self) -> Option<&str> {
        header_text(&self.request, path::TENANT_HEADER).and_then(Result::ok)
    }

    /// Whether the caller may name any tenant.
    pub(in crate::http) fn reaches_all_tenants(&self) -> bool {
        self.identity.reaches_all_tenants()
    }

    /// Reads the body: 415, 413, then 400 for headers and for bodies that do not arrive.
    pub(in crate::http) async fn body(&mut self, limit: usize) -> Result<Bytes, Rejection> {
        self.read_body(limit, true).await
    }

    /// The same for a body that may be left out.
    pub(in crate::http) async fn optional_body(&mut self, limit: usize) -> Result<Option<Bytes>, Rejection> {
        let body = self.read_body(limit, false).await?;
        Ok(Some(body).filter(|body| !body.is_empty()))
    }

    async fn read_body(&mut self, limit: usize, required: bool) -> Result<Bytes, Rejection> {
        let headers = self.request.headers();
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let present = declared.is_some_and(|length| length > 0) || chunked;
        if (present || required) && !is_json(&self.request) {
            return Err(Rejection::new(
                ErrorCode::UnsupportedMediaType,
                "send the body as plain JSON in UTF-8, with Content-Type: application/json",
            ));
        }
        let too_large =
            || Rejection::new(ErrorCode::PayloadTooLarge, format!("the body may have {limit} bytes at most"));
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        // Bytes that a caller only announces cost nothing yet.
        let mut body = BytesMut::with_capacity(declared.unwrap_or(0).min(MAX_RESERVED));
        let mut arrives = std::pin::pin!(tokio::time::sleep(self.app.body_timeout));
        loop {
            let chunk = tokio::select! {
                chunk = self.payload.next() => chunk,
                () = &mut arrives => return Err(incomplete("it did not arrive in time")),
            };
            match chunk {
                None => {
                    // The service's time begins here: how long the body took is the caller's matter.
                    self.caller.deadline = self.caller.deadline.renewed();
                    if required && body.is_empty() {
                        return Err(Rejection::new(
                            ErrorCode::MalformedJson,
                            "the body is empty, and this call needs one: {} where nothing is to be said",
                        ));
                    }
                    return Ok(body.freeze());
                }
                Some(Err(_)) => {
                    return Err(incomplete(
                        "it ends before its announced length, or its chunks are malformed",
                    ));
                }
                Some(Ok(chunk)) if body.len() + chunk.len() > limit => return Err(too_large()),
                Some(Ok(chunk)) if !self.share.add(chunk.len()) => return Err(no_room()),
                Some(Ok(chunk)) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// Query parameters, with the headers that have rules checked beside them.
    pub(in crate::http) fn params(&self) -> Result<Params, Rejection> {
        self.header("X-Tenant-ID", 128)?;
        self.header("X-User-ID", 255)?;
        Params::of(self.request.query_string())
    }

    /// A header that stands once at most and has 1 to `max` visible ASCII characters.
    fn header(&self, name: &'static str, max: usize) -> Result<Option<&str>, Rejection> {
        if self.request.headers().get_all(name).count() > 1 {
            return Err(Rejection::parameter(name, "it may stand once only"));
        }
        let Some(text) = header_text(&self.request, name) else { return Ok(None) };
        let text = text.unwrap_or_default();
        visible_ascii(text, max).map_err(|rule| Rejection::parameter(name, &rule))?;
        Ok(Some(text))
    }

    /// Refuses query parameters.
    pub(in crate::http) fn no_params(&self) -> Result<(), Rejection> {
        self.params()?.finish()
    }

    /// The idempotency key, to be [bound](Self::bound) to the body once that is known to fit.
    pub(in crate::http) fn idempotency_key(&self) -> Result<Option<&str>, Rejection> {
        self.header("Idempotency-Key", 255)
    }

    /// The idempotency key, bound to this body.
    pub(in crate::http) fn bound(&self, key: Option<&str>, body: &[u8]) -> Option<IdempotencyKey> {
        key.map(|key| IdempotencyKey {
            key: key.to_owned(),
            body: fingerprint(self.request.path(), body),
            request_id: self.request_id.clone(),
        })
    }

    /// Whether the request has an idempotency key, valid or not.
    pub(in crate::http) fn has_idempotency_key(&self) -> bool {
        self.request.headers().contains_key(path::IDEMPOTENCY_KEY_HEADER)
    }

    /// Whether the request has `If-Match`.
    pub(in crate::http) fn has_if_match(&self) -> bool {
        self.request.headers().contains_key(header::IF_MATCH)
    }

    /// The versions that `If-Match` names; `None`: any.
    pub(in crate::http) fn if_match(&self) -> Result<Option<Vec<i64>>, Rejection> {
        let Some(text) = header_text(&self.request, header::IF_MATCH.as_str()) else { return Ok(None) };
        let text = text.unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        text.split(',')
            .map(|tag| {
                let tag = tag.trim();
                let quoted = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                // A weak tag never matches strongly (RFC 9110, 13.1.1); a tag that is no version matches none.
                let weak = tag.strip_prefix("W/\"").and_then(|rest| rest.strip_suffix('"')).map(|_| "weak");
                quoted.or(weak).map(|version| version.parse().unwrap_or(-1))
            })
            .collect::<Option<Vec<i64>>>()
            .map(Some)
            .ok_or_else(|| Rejection::parameter("If-Match", "an entity tag such as \"3\", or *, is expected"))
    }

    /// A part of the path. The router leaves `%2F` and `%25` as they are; here all is decoded.
    pub(in crate::http) fn part(&self, name: &str) -> Cow<'_, str> {
        percent_decode_str(self.request.match_info().get(name).unwrap_or_default()).decode_utf8_lossy()
    }

    /// The task in the path: what is no UUID names none.
    pub(in crate::http) fn task_id(&self) -> Result<Uuid, Rejection> {
        let text = self.part("task_id");
        Uuid::try_parse(&text).map_err(|_| Failure::no_task(&text).into())
    }

    /// The key in the path: what is no UUID names none.
    pub(in crate::http) fn key_id(&self) -> Result<Uuid, Rejection> {
        let text = self.part("key_id");
        Uuid::try_parse(&text).map_err(|_| Failure::no_key(&text).into())
    }
}

fn lacks_role(roles: &[Role]) -> Rejection {
    let roles: Vec<_> = roles.iter().map(Role::as_str).collect();
    let detail =
        format!("this needs an API key with the role {}, which this one does not have", roles.join(" or "));
    Rejection::new(ErrorCode::Forbidden, detail)
}

/// The answer to a request without a good credential.
pub(in crate::http) fn unauthenticated(why: &str) -> Rejection {
    Rejection::new(ErrorCode::Unauthenticated, why)
}

fn no_room() -> Rejection {
    Rejection::new(
        ErrorCode::Overloaded,
        "the bodies of other requests take all the room that this server has for them; nothing was applied",
    )
}

fn incomplete(why: &str) -> Rejection {
    Rejection::new(ErrorCode::MalformedJson, format!("the body is incomplete: {why}"))
}

/// A header's text; `Some(Err)` when it is there and is no text.
pub(in crate::http) fn header_text<'a>(request: &'a HttpRequest, name: &str) -> Option<Result<&'a str, ()>> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let mut values = request.headers().get_all(name);
    let first = values.next()?;
    // Two of one kind would leave open which counts.
    Some(if values.next().is_some() { Err(()) } else { first.to_str().map_err(|_| ()) })
}

fn scope(identity: &Identity, request: &HttpRequest) -> Result<Scope, Rejection> {
    let named = header_text(request, path::TENANT_HEADER).map(Result::unwrap_or_default);
    let (own, task_types) = match identity {
        Identity::Anonymous | Identity::Bootstrap(_) => ("default", None),
        Identity::Issued(key, _) => (key.tenant.as_str(), key.task_types.as_deref()),
    };
    let may_name = identity.reaches_all_tenants() || matches!(identity, Identity::Anonymous);
    if named.is_some_and(|named| named != own) && !may_name {
        return Err(Rejection::new(
            ErrorCode::Forbidden,
            "the API key belongs to another tenant than X-Tenant-ID names: leave the header out",
        ));
    }
    if named.is_some_and(|named| named.starts_with('_')) && !matches!(identity, Identity::Anonymous) {
        return Err(Rejection::new(ErrorCode::Forbidden, "tenants that begin with _ are the service's own"));
    }
    let user = header_text(request, path::USER_HEADER).map(Result::unwrap_or_default);
    Ok(Scope {
        tenant: named.unwrap_or(own).into(),
        user: user.map(Into::into),
        task_types: task_types.map(Into::into),
    })
}

/// `application/json`, in UTF-8 if it says so, and not compressed.
fn is_json(request: &HttpRequest) -> bool {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let is_plain = encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(text) = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|part| match part.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    is_plain && is_json && is_utf8
}
