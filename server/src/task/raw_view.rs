//! A stored task as an operator sees it when it cannot be read as a task: its fields as they are, and no secret.

use bson::{Bson, Document, RawDocument};
use task_repo_protocol::Uuid;

/// Parts of the names of fields whose values are secrets, or lead to one.
const SECRET_NAMES: [&str; 6] = ["token", "idempotency", "claim_id", "secret", "password", "hash"];
/// Fields in which tokens lie. A text in them that might be one is not shown either.
const WITH_TOKENS: [&str; 2] = ["lease", "attempts"];

/// A stored document as `MongoDB`'s relaxed extended JSON, without secrets.
///
/// Tokens, hashes and the ids of attempts are stored as binary values, so none of these is shown but the document's id. Where
/// a document is of a form that is not known, a secret may also stand as text: it is told by the name of its field, or by
/// its form where tokens lie. `None`: it is no document.
pub fn raw_view(document: &RawDocument) -> Option<serde_json::Value> {
    let document = Document::try_from(document).ok()?;
    let shown = document.into_iter().map(|(name, value)| {
        let shown =
            if name == "_id" { value } else { without_secrets(&name, value, WITH_TOKENS.contains(&&*name)) };
        (name, shown)
    });
    Some(Bson::Document(shown.collect()).into_relaxed_extjson())
}

fn without_secrets(name: &str, value: Bson, may_be_token: bool) -> Bson {
    let lowered = name.to_ascii_lowercase();
    if SECRET_NAMES.iter().any(|part| lowered.contains(part)) {
        return not_shown(&value);
    }
    match value {
        Bson::Document(document) => Bson::Document(
            document
                .into_iter()
                .map(|(name, value)| {
                    let shown = without_secrets(&name, value, may_be_token);
                    (name, shown)
                })
                .collect(),
        ),
        Bson::Array(items) => {
            Bson::Array(items.into_iter().map(|item| without_secrets(name, item, may_be_token)).collect())
        }
        Bson::Binary(_) => not_shown(&value),
        Bson::String(ref text) if may_be_token && Uuid::try_parse(text).is_ok() => not_shown(&value),
        value => value,
    }
}

fn not_shown(value: &Bson) -> Bson {
    Bson::String(format!("({:?}, not shown)", value.element_type()))
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use bson::spec::BinarySubtype;
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_shown_but_secrets() {
        let secret = || Bson::Binary(bson::Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] });
        let text = Uuid::from_u128(7).to_string();
        let document = doc! {
            "_id": 5, "status": "pending", "run_at": bson::DateTime::from_millis(0), "request": "{\"a\":1}",
            "lease": [{ "token": secret(), "worker_id": "w", "other": secret(), "odd": &text, "lost_token": &text }],
            "attempts": { "id": &text, "claim_id": "x", "number": 1_i64 },
            "claim_ids": [secret()], "idempotency_request": "{}", "strange": { "deep": [secret(), 1.5] },
            "result_id": &text,
        };
        let document = bson::RawDocumentBuf::try_from(&document).expect("a document");
        let shown = raw_view(&document).expect("a view");
        let (binary, string) = ("(Binary, not shown)", "(String, not shown)");
        assert_eq!(
            shown,
            json!({
                "_id": 5, "status": "pending", "run_at": {"$date": "1970-01-01T00:00:00Z"}, "request": "{\"a\":1}",
                "lease": [{"token": binary, "worker_id": "w", "other": binary, "odd": string, "lost_token": string}],
                "attempts": {"id": string, "claim_id": string, "number": 1},
                "claim_ids": "(Array, not shown)", "idempotency_request": string, "strange": {"deep": [binary, 1.5]},
                "result_id": text,
            })
        );
    }
}
