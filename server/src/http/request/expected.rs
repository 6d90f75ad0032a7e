//! What a schema expects, in the words of JSON.

use serde_json::Value;
use task_repo_protocol::{Uuid, timestamp};

/// Longest number that an answer repeats, in characters.
const MAX_NUMBER: usize = 24;

/// The kinds of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Kind {
    Object,
    List,
    Text,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// That of a value's JSON text.
    pub(in crate::http) fn of(raw: &str) -> Self {
        match raw.trim_start().as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::List,
            Some(b'"') => Self::Text,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }
}

/// Whether a form of a schema takes values of that kind. One without a type takes all.
pub(in crate::http) fn takes(form: &Value, kind: Kind) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("object") => kind == Kind::Object,
        Some("array") => kind == Kind::List,
        Some("string") => kind == Kind::Text,
        Some("integer" | "number") => kind == Kind::Number,
        Some("boolean") => kind == Kind::Bool,
        Some("null") => kind == Kind::Null,
        _ => false,
    };
    match &form["type"] {
        Value::Array(names) => names.iter().any(is),
        Value::Null => true,
        name => is(name),
    }
}

fn has_type(form: &Value, name: &str) -> bool {
    match &form["type"] {
        Value::Array(names) => names.iter().any(|one| one == name),
        one => one == name,
    }
}

/// What a value is, as a message repeats it. Texts are not repeated: one may be a secret in the wrong place.
pub(in crate::http) fn found(raw: &str) -> String {
    match Kind::of(raw) {
        Kind::Object => "an object".to_owned(),
        Kind::List => "a list".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::Number if raw.len() > MAX_NUMBER => "such a number".to_owned(),
        Kind::Number | Kind::Bool | Kind::Null => raw.to_owned(),
    }
}

/// What the forms of a schema take, such as `a whole number from 0 to 100, or one of low, high`.
pub(in crate::http) fn in_words(forms: &[&Value]) -> String {
    let words: Vec<_> =
        forms.iter().map(|form| form_in_words(form)).filter(|words| !words.is_empty()).collect();
    match words.as_slice() {
        [] => "null".to_owned(),
        words => words.join(", or "),
    }
}

fn form_in_words(form: &Value) -> String {
    let of = |form: &Value| match &form["type"] {
        Value::String(kind) if kind == "string" => " of strings",
        _ => "",
    };
    if has_type(form, "object") {
        format!("an object{}", of(&form["additionalProperties"]))
    } else if has_type(form, "array") {
        let (least, most) = (form["minItems"].as_u64().unwrap_or(0), form["maxItems"].as_u64());
        let what = match form["items"]["type"].as_str() {
            Some("string") => "strings",
            Some("object") => "objects",
            _ if form["items"].get("$ref").is_some() => "objects",
            _ => "values",
        };
        match most {
            Some(most) => format!("a list of {least} to {most} {what}"),
            None => format!("a list of {what}"),
        }
    } else if let Some(names) = names_of(form) {
        format!("one of {}", names.join(", "))
    } else if has_type(form, "string") {
        text_in_words(form)
    } else if has_type(form, "integer") {
        format!("a whole number{}", bounds_in_words(form))
    } else if has_type(form, "number") {
        format!("a number{}", bounds_in_words(form))
    } else if has_type(form, "boolean") {
        "true or false".to_owned()
    } else {
        String::new()
    }
}

fn text_in_words(form: &Value) -> String {
    match form["format"].as_str() {
        Some("date-time") => {
            return "an RFC 3339 time with an offset, such as 2030-01-31T08:00:00Z,".to_owned();
        }
        Some("uuid") => return "a UUID".to_owned(),
        _ => {}
    }
    let what = rule_of(form).map_or("characters", |rule| rule.words);
    match (form["minLength"].as_u64().unwrap_or(0), form["maxLength"].as_u64()) {
        (0, None) => "a string".to_owned(),
        (0, Some(most)) => format!("a string of at most {most} {what}"),
        (least, None) => format!("a string of at least {least} {what}"),
        (least, Some(most)) => format!("a string of {least} to {most} {what}"),
    }
}

fn bounds_in_words(form: &Value) -> String {
    let bound = |key: &str| {
        let number = &form[key];
        // utoipa writes bounds of numbers as floats.
        number
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() < 9e15)
            .map(|float| format!("{float:.0}"))
            .or_else(|| (!number.is_null()).then(|| number.to_string()))
    };
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(" from {least} on"),
        (None, Some(most)) => format!(" up to {most}"),
        (None, None) => String::new(),
    }
}

fn names_of(form: &Value) -> Option<Vec<&str>> {
    Some(form["enum"].as_array()?.iter().filter_map(Value::as_str).collect())
}

/// Checks a text by that of the forms that takes texts.
pub(in crate::http) fn check_text(text: &str, forms: &[&Value], form: &Value) -> Result<(), String> {
    if let Some(names) = names_of(form) {
        if names.contains(&text) {
            return Ok(());
        }
        let meant = nearest(text, names.iter().copied());
        let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        return Err(format!("{} is expected{meant}", in_words(forms)));
    }
    let fits = match form["format"].as_str() {
        Some("date-time") => timestamp::parse(text).is_ok(),
        Some("uuid") => Uuid::try_parse(text).is_ok(),
        _ => return check_length(text, forms, form),
    };
    if fits { Ok(()) } else { Err(format!("{} is expected", in_words(forms).trim_end_matches(','))) }
}

fn check_length(text: &str, forms: &[&Value], form: &Value) -> Result<(), String> {
    let length = text.chars().count() as u64;
    let is_short = form["minLength"].as_u64().is_some_and(|least| length < least);
    let is_long = form["maxLength"].as_u64().is_some_and(|most| length > most);
    if is_short || is_long {
        return Err(format!("{} is expected, not one of {length}", in_words(forms)));
    }
    if rule_of(form).is_some_and(|rule| !(rule.holds)(text)) {
        return Err(format!("{} is expected", in_words(forms)));
    }
    Ok(())
}

/// Checks a number by that of the forms that takes numbers; says the kind of violation with the message.
pub(in crate::http) fn check_number(
    raw: &str,
    forms: &[&Value],
    form: &Value,
) -> Result<(), (&'static str, String)> {
    let violation = |kind| Err((kind, format!("{} is expected, not {}", in_words(forms), found(raw))));
    // serde_json reads -0 as a float.
    let is_whole = raw != "-0" && raw.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    if has_type(form, "integer") && !is_whole {
        let (kind, message) = ("type_error", format!("{} is expected, not {}", in_words(forms), found(raw)));
        // Adding 0 takes the sign from -0.
        let meant = raw.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
        let advice = meant.map_or_else(String::new, |number| format!("; write it as {:.0}", number + 0.0));
        return Err((kind, format!("{message}{advice}")));
    }
    let Some(number) = raw.parse::<f64>().ok().filter(|number| number.is_finite()) else {
        return violation("value_error");
    };
    let is_low = form["minimum"].as_f64().is_some_and(|least| number < least);
    let is_high = form["maximum"].as_f64().is_some_and(|most| number > most);
    if is_low || is_high { violation("value_error") } else { Ok(()) }
}

/// Checks the name of a member of an object with free names.
pub(in crate::http) fn check_name(name: &str, names: &Value) -> Result<(), String> {
    check_text(name, &[names], names).map_err(|msg| format!("as the name, {msg}"))
}

/// What to say of a field that an object does not have; `told_names`: whether the fields it has were told before.
pub(in crate::http) fn instead_of(name: &str, form: &Value, task: &Value, told_names: &mut bool) -> String {
    let fields =
        || form["properties"].as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
    let has = |field: &str| form["properties"].get(field).is_some();
    let (is_create, is_edit) = (has("request") && has("task_type"), has("request") && !has("task_type"));
    if is_edit && name == "status" {
        return "an edit does not set the status; PUT /api/v1/tasks/{task_id}/status, POST /api/v1/tasks/{task_id}/cancel \
                and POST /api/v1/tasks/{task_id}/execute move a task"
            .to_owned();
    }
    if task["properties"].get(name).is_some() {
        if is_edit {
            return "an edit does not change this field".to_owned();
        }
        if is_create {
            return "only the server sets this field".to_owned();
        }
    }
    if let Some(near) = nearest(name, fields()) {
        return format!("there is no such field here; did you mean {near}?");
    }
    if !*told_names && fields().next().is_some() {
        *told_names = true;
        let fields: Vec<_> = fields().collect();
        return format!("there is no such field here; there are {}", fields.join(", "));
    }
    "there is no such field here".to_owned()
}

/// The name that was probably meant: spelled otherwise, a part of the name, or few letters away.
pub(in crate::http) fn nearest<'n>(meant: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .filter_map(|name| Some((distance(meant, name)?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How far a text is from a name that may be meant; `None`: too far.
pub(in crate::http) fn distance(meant: &str, name: &str) -> Option<usize> {
    const MAX_LENGTH: usize = 40;
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
    };
    if meant.is_empty() || meant.len() > MAX_LENGTH {
        return None;
    }
    let (wanted, plain_name) = (plain(meant), plain(name));
    let has_word = |words: &str, word: &str| words.split('_').any(|one| one.eq_ignore_ascii_case(word));
    if wanted == plain_name {
        Some(0)
    } else if wanted.len() >= 3
        && (plain_name.starts_with(&wanted) || has_word(name, meant) || has_word(meant, name))
    {
        Some(1)
    } else {
        Some(edits(&wanted, &plain_name)).filter(|edits| edits * 3 <= wanted.len())
    }
}

/// How many letters must be changed, added, left out or swapped with their neighbour to make one text of the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// A pattern of a schema.
struct Rule {
    pattern: &'static str,
    words: &'static str,
    holds: fn(&str) -> bool,
}

/// The patterns that bodies use.
static RULES: [Rule; 4] = [
    Rule {
        pattern: "^[A-Za-z0-9._:-]+$",
        words: "of A-Z a-z 0-9 . _ : -",
        holds: |text| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)),
    },
    Rule {
        pattern: "^[\\x21-\\x7e]+$",
        words: "visible ASCII characters",
        holds: |text| text.bytes().all(|byte| byte.is_ascii_graphic()),
    },
    Rule {
        pattern: "^[\\x21-\\x5e\\x60-\\x7e][\\x21-\\x7e]*$",
        words: "visible ASCII characters, the first of them not _,",
        holds: |text| text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with('_'),
    },
    Rule { pattern: "^[^:]*$", words: "characters without :", holds: |text| !text.contains(':') },
];

fn rule_of(form: &Value) -> Option<&'static Rule> {
    let pattern = form["pattern"].as_str()?;
    RULES.iter().find(|rule| rule.pattern == pattern)
}

/// Whether the pattern of that form is one that has words.
#[cfg(test)]
pub(in crate::http) fn knows_pattern(form: &Value) -> bool {
    rule_of(form).is_some()
}
