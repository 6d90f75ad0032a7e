//! Rules that several bodies share.

use chrono::{DateTime, Utc};

use crate::json::{Json, Payload};
use crate::limits::{MAX_CHECKPOINT_BYTES, MAX_METADATA_BYTES};
use crate::payload::{self, Numbers};
use crate::tags::Tags;

/// 1–128 of `[A-Za-z0-9._:-]`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_task_type(task_type: &str, _: &()) -> garde::Result {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    if (1..=128).contains(&task_type.len()) && task_type.bytes().all(allowed) {
        Ok(())
    } else {
        Err(garde::Error::new("1 to 128 of A-Z a-z 0-9 . _ : - are expected"))
    }
}

/// Whether `task_type` could be one: 1–128 of `[A-Za-z0-9._:-]`.
pub fn task_type_is_valid(task_type: &str) -> bool {
    is_task_type(task_type, &()).is_ok()
}

/// Whether `text` is 1–`max` visible ASCII characters, as tenant and user ids and idempotency keys are.
///
/// # Errors
/// The rule, in words.
pub fn visible_ascii(text: &str, max: usize) -> Result<(), String> {
    if (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(format!("1 to {max} visible ASCII characters are expected"))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_user_id(user: &str, _: &()) -> garde::Result {
    visible_ascii(user, 255).map_err(garde::Error::new)
}

/// Any JSON up to the depth allowed.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_payload(json: &Json, _: &()) -> garde::Result {
    payload::check(json.as_str(), Numbers::Any).map_err(garde::Error::new)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_parameters(parameters: &Payload, context: &()) -> garde::Result {
    parameters.json().map_or(Ok(()), |json| is_payload(json, context))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_checkpoint(checkpoint: &Payload, context: &()) -> garde::Result {
    let Some(json) = checkpoint.json() else { return Ok(()) };
    if json.as_str().len() > MAX_CHECKPOINT_BYTES {
        return Err(garde::Error::new("a checkpoint may have 64 KiB at most"));
    }
    is_payload(json, context)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_metadata(metadata: &Json, _: &()) -> garde::Result {
    let text = metadata.as_str();
    if !text.starts_with('{') {
        return Err(garde::Error::new("a JSON object is expected"));
    }
    if text.len() > MAX_METADATA_BYTES {
        return Err(garde::Error::new("metadata may have 16 KiB at most"));
    }
    payload::check(text, Numbers::SixtyFourBits).map_err(garde::Error::new)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn are_tags(tags: &Tags, _: &()) -> garde::Result {
    tags.check().map_err(garde::Error::new)
}

pub(crate) fn is_only_delay(
    run_at: Option<DateTime<Utc>>,
) -> impl FnOnce(&Option<i64>, &()) -> garde::Result {
    let both = run_at.is_some();
    move |delay, ()| match delay {
        Some(_) if both => Err(garde::Error::new("run_at and delay_seconds cannot both be given")),
        _ => Ok(()),
    }
}

/// The schema of 1–100 task types.
#[cfg(feature = "openapi")]
pub(crate) fn task_types_schema() -> utoipa::openapi::schema::Schema {
    task_types().into()
}

/// The same where `null` stands for none.
#[cfg(feature = "openapi")]
pub(crate) fn maybe_task_types_schema() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{SchemaType, Type};
    task_types().schema_type(SchemaType::from_iter([Type::Array, Type::Null])).into()
}

#[cfg(feature = "openapi")]
fn task_types() -> utoipa::openapi::schema::ArrayBuilder {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
    ArrayBuilder::new()
        .items(name.pattern(Some("^[A-Za-z0-9._:-]+$")))
        .min_items(Some(1))
        .max_items(Some(100))
}
