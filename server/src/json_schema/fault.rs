//! Why a schema is not taken.

use serde_json::Value;

/// Most characters of a message that repeats what a schema holds.
const MAX_MESSAGE: usize = 256;

/// Why a schema is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFault {
    /// Where in the schema: names and places in lists.
    pub place: Vec<Value>,
    /// The rule that it breaks.
    pub rule: String,
}

impl SchemaFault {
    pub(super) fn at(place: Vec<Value>, rule: impl Into<String>) -> Self {
        Self { place, rule: rule.into() }
    }
}

/// A message that is no longer than an answer should have it.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
