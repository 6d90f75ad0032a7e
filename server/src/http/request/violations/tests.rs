//! Bodies that are broken on purpose: what is told of them points to where they were broken.

use garde::Validate;
use proptest::prelude::*;
use serde_json::{Value, json};
use task_repo_protocol::claim::{ClaimOne, HeartbeatItem};
use task_repo_protocol::{
    Cancel, Claim, Complete, Fail, KeyRotation, NewKey, NewTask, Outcome, Release, StatusChange, TaskEdit,
    Violation,
};

use super::super::body::{Body, parse};
use super::*;

/// What stands in place of a value, as JSON text. None of it is a word that any body knows.
const WRONG: &[&str] = &[
    "null",
    "true",
    "-1",
    "1.5",
    "-0",
    "99999999999999",
    "1e400",
    "123456789012345678901234567890",
    "\"\"",
    "\"no such word\"",
    "\"\\ud83d\"",
    "[]",
    "{}",
    "[[[]]]",
    "[1,null]",
    r#"{"a":{"b":1}}"#,
];

/// Says what is wrong with a text.
type Check = fn(&str) -> Option<Vec<Violation>>;

/// Bodies that fit, each as it is read; the members that take any JSON are named so.
const BODIES: &[(&str, Check)] = &[
    (
        r#"{"task_type":"t","user_id":"u","name":"n","description":"d","priority":"high","tags":{"a":"b"},
            "template":{"service_type":"s"},"run_at":"2030-01-01T00:00:00Z","max_attempts":3,"retry":{"backoff":"fixed",
            "base_seconds":5,"cap_seconds":6,"jitter":0.5},"lease_seconds":60,"timeout_seconds":300,"retention_seconds":5,
            "due_date":"2030-01-01T00:00:00Z","reminder_time":null}"#,
        violations::<NewTask>,
    ),
    (
        r#"{"name":"n","priority":5,"template":{"service_type":"s"},"tags":["a"],"max_attempts":3}"#,
        violations::<TaskEdit>,
    ),
    (r#"{"status":"failed","error_message":"m"}"#, violations::<StatusChange>),
    (
        r#"{"task_types":["a","b"],"limit":5,"worker_id":"w","lease_seconds":60,"wait_ms":0,
            "claim_id":"0198f2c4-0000-7000-8000-000000000000","tags":{"a":"b"}}"#,
        violations::<Claim>,
    ),
    (r#"{"worker_id":"w","lease_seconds":60}"#, violations::<ClaimOne>),
    (
        r#"{"lease_token":"x","result_id":"r","usage":{"credits_consumed":0.5,"tokens_used":1,"api_calls_made":2}}"#,
        violations::<Complete>,
    ),
    (
        r#"{"lease_token":"x","error":{"message":"m","code":"c"},"retry":"never","retry_after_seconds":5}"#,
        violations::<Fail>,
    ),
    (r#"{"lease_token":"x","delay_seconds":5}"#, violations::<Release>),
    (r#"{"lease_token":"x"}"#, violations::<Cancel>),
    (
        r#"{"id":"i","lease_token":"x","lease_seconds":60,"progress":{"value":0.5,"text":"t"}}"#,
        violations::<HeartbeatItem>,
    ),
    (
        r#"{"id":"i","lease_token":"x","outcome":"failed","error":{"message":"m"},"retry":"auto","usage":{"tokens_used":1}}"#,
        violations::<Outcome>,
    ),
    (
        r#"{"name":"n","roles":["viewer","worker"],"tenant_id":"t","task_types":["a"],"expires_at":"2030-01-01T00:00:00Z"}"#,
        violations::<NewKey>,
    ),
    (r#"{"overlap_seconds":5}"#, violations::<KeyRotation>),
];

/// What is wrong with `text`; `None`: it fits. What fits must have no violations by its schema either.
fn violations<T: Body + Validate<Context = ()>>(text: &str) -> Option<Vec<Violation>> {
    match parse::<T>(text.as_bytes()) {
        Ok(_) => {
            let by_schema = Violations::of::<T>(text, &["body".into()]).into_violations();
            assert_eq!(by_schema, [], "{text} fits");
            None
        }
        Err(rejection) => {
            let problem = rejection.problem("r");
            Some(problem.errors.unwrap_or_else(|| panic!("{text}: {}", problem.code)))
        }
    }
}

/// A place in a body, and what is done there.
#[derive(Debug, Clone)]
struct Mutation {
    place: Vec<Value>,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Replaced(&'static str),
    Removed,
    /// A member that is not known, with dots in its name, is added.
    Added,
}

fn places(value: &Value, at: &mut Vec<Value>, all: &mut Vec<Vec<Value>>) {
    if at.len() > 1 {
        all.push(at.clone());
    }
    let inner: Vec<(Value, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.as_str().into(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(place, value)| (place.into(), value)).collect(),
        _ => return,
    };
    for (step, value) in inner {
        at.push(step);
        places(value, at, all);
        at.pop();
    }
}

fn at_place<'v>(body: &'v mut Value, place: &[Value]) -> &'v mut Value {
    place.iter().skip(1).fold(body, |value, step| match step {
        Value::String(name) => &mut value[name.as_str()],
        step => &mut value[usize::try_from(step.as_u64().unwrap_or_default()).unwrap_or_default()],
    })
}

/// Breaks `body` at that place; `None`: this cannot be done there. Says where it is broken then.
fn broken(body: &mut Value, mutation: &Mutation) -> Option<Vec<Value>> {
    let (last, parent) = mutation.place.split_last()?;
    match mutation.change {
        Change::Replaced(text) => {
            *at_place(body, &mutation.place) = Value::from(format!("@{text}@"));
            Some(mutation.place.clone())
        }
        Change::Removed => {
            at_place(body, parent).as_object_mut()?.remove(last.as_str()?)?;
            Some(mutation.place.clone())
        }
        Change::Added => {
            at_place(body, parent).as_object_mut()?.insert("a.b[0]".to_owned(), json!(1));
            Some(parent.iter().cloned().chain([json!("a.b[0]")]).collect())
        }
    }
}

/// The text, with what is to stand there as it is.
fn text_of(body: &Value) -> String {
    WRONG.iter().fold(body.to_string(), |text, wrong| {
        let marker = Value::from(format!("@{wrong}@")).to_string();
        text.replace(&marker, wrong)
    })
}

fn are_related(a: &[Value], b: &[Value]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => prop::sample::select(WRONG).prop_map(Change::Replaced),
        1 => Just(Change::Removed),
        1 => Just(Change::Added),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn violations_point_to_where_a_body_was_broken(
        which in 0..BODIES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 1..6),
    ) {
        let (text, violations) = BODIES[which];
        let whole: Value = serde_json::from_str(text).expect("JSON");
        prop_assert_eq!(violations(text), None);
        let mut all = Vec::new();
        places(&whole, &mut vec!["body".into()], &mut all);
        let (mut body, mut where_broken, mut certain) = (whole.clone(), Vec::<Vec<Value>>::new(), Vec::new());
        for (index, change) in changes {
            let mutation = Mutation { place: index.get(&all).clone(), change };
            let mut alone = whole.clone();
            let Some(place) = broken(&mut alone, &mutation) else { continue };
            if where_broken.iter().any(|other| are_related(other, &place) || are_related(other, &mutation.place)) {
                continue;
            }
            broken(&mut body, &mutation);
            if violations(&text_of(&alone)).is_some() {
                certain.push(place.clone());
            }
            where_broken.push(place);
        }
        let text = text_of(&body);
        let told = violations(&text).unwrap_or_default();
        for violation in &told {
            prop_assert!(where_broken.iter().any(|place| are_related(place, &violation.loc)), "{text}: {violation:?}");
            for word in ["i64", "u64", "f64", "u32", "invalid", "struct", "variant", "lower than", "greater than", "`"] {
                prop_assert!(!violation.msg.contains(word), "{text}: {violation:?}");
            }
        }
        // Whether an error is required depends on the outcome, which is not guessed.
        let depends = told.iter().any(|found| found.loc == [json!("body"), json!("outcome")]);
        for place in certain.iter().filter(|_| !depends) {
            prop_assert!(told.iter().any(|found| are_related(place, &found.loc)), "{text}: {place:?} is not in {told:?}");
        }
        let missing = told.iter().skip_while(|found| found.kind != "missing");
        prop_assert!(missing.clone().all(|found| found.kind == "missing"), "{told:?}");
    }
}

#[test]
fn a_field_that_stands_twice_is_told() {
    let told = violations::<NewTask>(r#"{"task_type":"t","name":"a","name":"b","tags":{"a":"1","a":"2"}}"#)
        .expect("violations");
    let told: Vec<_> = told.into_iter().map(|found| (Value::from(found.loc), found.msg)).collect();
    let twice = "the field stands twice".to_owned();
    assert_eq!(told, [(json!(["body", "name"]), twice.clone()), (json!(["body", "tags", "a"]), twice)]);
}

#[test]
fn every_pattern_of_the_schemas_has_words() {
    fn look(schema: &Value) {
        if let Some(pattern) = schema.get("pattern").filter(|pattern| pattern.is_string()) {
            assert!(expected::knows_pattern(schema), "{pattern}");
        }
        match schema {
            Value::Object(members) => members.values().for_each(look),
            Value::Array(items) => items.iter().for_each(look),
            _ => {}
        }
    }
    let document = serde_json::to_value(crate::http::openapi_document()).unwrap();
    look(&document["components"]["schemas"]);
}

#[test]
fn a_name_that_is_like_no_other_is_not_guessed() {
    let names = ["task_type", "priority", "delay_seconds", "name"];
    let near = |meant| expected::nearest(meant, names.iter().copied());
    assert_eq!(near("type"), Some("task_type"));
    assert_eq!(near("delaySeconds"), Some("delay_seconds"));
    assert_eq!(near("pirority"), Some("priority"));
    for meant in ["", "id", "version", "nonsense", &"x".repeat(1000)] {
        assert_eq!(near(meant), None, "{meant}");
    }
}
