//! A schema that was checked and compiled.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use task_repo_protocol::Violation;

use super::fault::{SchemaFault, shortened};
use super::{check, misses};

/// Most bytes of one compiled pattern, where a schema has few; together they have 16 times as many.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// A pattern may have so many bytes, compiled, however many there are.
const MIN_PATTERN_BYTES: usize = 32 << 10;
/// Most digits of a number that is held against a schema. Each keyword that judges a number reads all of them.
const MAX_DIGITS: usize = 1000;
/// A schema that was checked and compiled.
#[derive(Debug)]
pub struct JsonSchema {
    validator: Validator,
    /// With each reference written out.
    subschemas: usize,
}

impl JsonSchema {
    /// Checks and compiles a schema. This may take some milliseconds of computing.
    ///
    /// # Errors
    /// Where it breaks which rule.
    pub fn compile(text: &str) -> Result<Self, SchemaFault> {
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| SchemaFault::at(Vec::new(), format!("a JSON Schema is expected: {error}")))?;
        let checked = check::check(&schema)?;
        let pattern_bytes = 16 * MAX_PATTERN_BYTES / checked.patterns.max(1);
        let patterns =
            PatternOptions::regex().size_limit(pattern_bytes.clamp(MIN_PATTERN_BYTES, MAX_PATTERN_BYTES));
        let built = jsonschema::options()
            .with_draft(checked.draft)
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns)
            .build(&schema);
        let validator = built.map_err(|error| {
            let place = misses::place(&schema, error.instance_path());
            SchemaFault::at(place, shortened(&error.masked_with("this").to_string()))
        })?;
        Ok(Self { validator, subschemas: checked.subschemas })
    }

    /// What of a JSON value misses the schema, with places that begin at the value: so many faults at most. Nothing counts as
    /// `null`.
    pub fn misses(&self, text: Option<&str>, most: usize) -> Vec<Violation> {
        let miss = |msg: String| vec![Violation { loc: Vec::new(), msg, kind: "value_error".to_owned() }];
        if text.is_some_and(has_long_number) {
            return miss(format!(
                "a number may have {MAX_DIGITS} digits at most, to be held against a schema"
            ));
        }
        match serde_json::from_str(text.unwrap_or("null")) {
            Ok(value) => misses::misses(&self.validator, &value, most),
            // Its depth was checked before, so that it can always be read.
            Err(error) => miss(error.to_string()),
        }
    }

    /// How much work a check of so many bytes may be, in subschemas that look at a byte.
    pub fn work(&self, bytes: usize) -> usize {
        (self.subschemas + 1).saturating_mul(bytes)
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        (self.subschemas + 1) * 2048
    }
}

/// Whether some number in a JSON text has more digits than are judged.
fn has_long_number(text: &str) -> bool {
    let (mut in_string, mut is_escaped, mut digits) = (false, false, 0_usize);
    text.bytes().any(|byte| {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = byte == b'\\' && !is_escaped;
            return false;
        }
        in_string = byte == b'"';
        digits = if matches!(byte, b'0'..=b'9' | b'.') { digits + 1 } else { 0 };
        digits > MAX_DIGITS
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::DRAFTS;
    use super::*;

    fn compiled(schema: &Value) -> JsonSchema {
        JsonSchema::compile(&schema.to_string()).unwrap_or_else(|fault| panic!("{schema}: {fault:?}"))
    }

    fn fault(schema: &Value) -> (String, String) {
        let fault = JsonSchema::compile(&schema.to_string()).expect_err(&schema.to_string());
        (Value::from(fault.place).to_string(), fault.rule)
    }

    fn misses(schema: &Value, text: &str) -> Vec<(String, String)> {
        let missed = compiled(schema).misses(Some(text), 20);
        missed.into_iter().map(|miss| (Value::from(miss.loc).to_string(), miss.kind)).collect()
    }

    #[test]
    fn numbers_are_judged_as_the_decimals_they_are_written_as() {
        let fits = |schema: &str, text: &str| {
            let schema = JsonSchema::compile(schema).expect("a schema");
            schema.misses(Some(text), 20).is_empty()
        };
        assert!(fits(r#"{"multipleOf":0.01}"#, "1070468.14"));
        assert!(!fits(r#"{"multipleOf":0.01}"#, "1070468.145"));
        assert!(!fits(r#"{"maximum":9007199254740992}"#, "9007199254740993"));
        assert!(!fits(r#"{"maximum":9007199254740992}"#, "9007199254740992.5"));
        assert!(!fits(r#"{"maximum":0.1}"#, "0.1000000000000000055"));
        assert!(!fits(r#"{"maximum":18446744073709551616}"#, "18446744073709551617"));
        assert!(fits(r#"{"maximum":18446744073709551616}"#, "18446744073709551616"));
        assert!(fits(r#"{"type":"integer"}"#, "1.0"));
        assert!(fits(r#"{"type":"integer"}"#, "123456789012345678901234567890"));
        assert!(fits(r#"{"type":"number"}"#, "1e999"));
        assert!(!fits(r#"{"maximum":5}"#, "1e999999999"));
        assert!(!fits(r#"{"const":1}"#, "2"));
        assert!(fits(r#"{"const":1.50}"#, "1.5"));
    }

    #[test]
    fn a_miss_says_where_and_of_which_kind() {
        let schema = json!({"type": "object", "required": ["to"], "additionalProperties": false,
            "properties": {"to": {"type": "string", "maxLength": 3}, "list": {"items": {"type": "integer"}},
                "0": {"type": "integer"}}});
        let one = |loc: &str, kind: &str| vec![(loc.to_owned(), kind.to_owned())];
        assert_eq!(misses(&schema, "{}"), one(r#"["to"]"#, "missing"));
        assert_eq!(misses(&schema, "null"), one("[]", "type_error"));
        assert_eq!(misses(&schema, r#"{"to":1}"#), one(r#"["to"]"#, "type_error"));
        assert_eq!(misses(&schema, r#"{"to":"long"}"#), one(r#"["to"]"#, "value_error"));
        assert_eq!(misses(&schema, r#"{"to":"a","x":1}"#), one(r#"["x"]"#, "unknown_field"));
        assert_eq!(misses(&schema, r#"{"to":"a","list":[1,"b"]}"#), one(r#"["list",1]"#, "type_error"));
        assert_eq!(misses(&schema, r#"{"to":"a","0":"b"}"#), one(r#"["0"]"#, "type_error"));
        let many: Vec<_> = (0..50).map(|n| format!("\"x{n}\":1")).collect();
        assert_eq!(misses(&schema, &format!("{{{}}}", many.join(","))).len(), 20);
        assert!(compiled(&json!({"type": "null"})).misses(None, 20).is_empty(), "nothing counts as null");
    }

    #[test]
    fn what_leads_outside_or_in_a_circle_is_refused() {
        for (schema, place) in [
            (json!({"$ref": "https://example.com/a"}), json!(["$ref"])),
            (json!({"properties": {"a": {"$ref": "other.json#/a"}}}), json!(["properties", "a", "$ref"])),
            (json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}), json!(["$ref"])),
            (json!({"$ref": "#/nowhere"}), json!(["$ref"])),
            (json!({"$ref": "#nowhere"}), json!(["$ref"])),
            (json!({"properties": {"a": {"$ref": "#"}}}), json!(["properties", "a", "$ref"])),
            (
                json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
                json!(["$defs", "a", "$ref"]),
            ),
            (json!({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}), json!(["items", "$dynamicRef"])),
            (
                json!({"$schema": "https://json-schema.org/draft/2019-09/schema",
                    "items": {"$recursiveRef": "#"}}),
                json!(["items", "$recursiveRef"]),
            ),
            (json!({"$schema": "https://example.com/schema"}), json!(["$schema"])),
            (json!({"$schema": 7}), json!(["$schema"])),
            (json!({"type": "text"}), json!(["type"])),
            (json!({"properties": {"a": {"minLength": -1}}}), json!(["properties", "a", "minLength"])),
        ] {
            assert_eq!(fault(&schema).0, place.to_string(), "{schema}");
        }
    }

    #[test]
    fn references_within_a_schema_are_followed() {
        let by_pointer = json!({"$defs": {"a/b": {"type": "string"}}, "items": {"$ref": "#/$defs/a~1b"}});
        let by_anchor =
            json!({"$defs": {"a": {"$anchor": "text", "type": "string"}}, "items": {"$ref": "#text"}});
        let by_id = json!({"$id": "https://example.com/root", "items": {"$ref": "text"},
            "$defs": {"a": {"$id": "https://example.com/text", "type": "string"}}});
        let by_own_id = json!({"$id": "https://example.com/root", "$defs": {"a": {"type": "string"}},
            "items": {"$ref": "https://example.com/root#/$defs/a"}});
        let older = json!({"$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"$id": "#text", "type": "string"}}, "items": {"$ref": "#text"}});
        let oldest = json!({"$schema": "http://json-schema.org/draft-04/schema",
            "definitions": {"a": {"type": "string"}}, "items": {"$ref": "#/definitions/a"}});
        for schema in [by_pointer, by_anchor, by_id, by_own_id, older, oldest] {
            assert_eq!(misses(&schema, "[1]"), [("[0]".to_owned(), "type_error".to_owned())], "{schema}");
            assert!(misses(&schema, r#"["a"]"#).is_empty(), "{schema}");
        }
    }

    #[test]
    fn what_grows_without_bound_is_refused() {
        let properties = |count: usize| {
            let all: serde_json::Map<_, _> = (0..count).map(|n| (format!("p{n}"), json!({}))).collect();
            json!({"properties": all})
        };
        compiled(&properties(1000));
        assert!(fault(&properties(1001)).1.contains("1000 subschemas"));
        let mut laughs = serde_json::Map::new();
        laughs.insert("a0".to_owned(), json!({"type": "string"}));
        for n in 1..20 {
            let before = json!({"$ref": format!("#/$defs/a{}", n - 1)});
            laughs.insert(format!("a{n}"), json!({"anyOf": [before, before]}));
        }
        assert!(fault(&json!({"$defs": laughs})).1.contains("1000 subschemas"));
        let mut chain = serde_json::Map::new();
        chain.insert("a0".to_owned(), json!({"type": "string"}));
        for n in 1..900 {
            chain.insert(format!("a{n}"), json!({"$ref": format!("#/$defs/a{}", n - 1)}));
        }
        assert!(fault(&json!({"$defs": chain, "$ref": "#/$defs/a899"})).1.contains("levels"));
    }

    #[test]
    fn patterns_take_linear_time_and_little_room() {
        for pattern in ["(?=a)b", "(?<!a)b", r"(a)\1", "(", "a{99999}{99999}", r"\p{L}{9999}"] {
            assert_eq!(fault(&json!({"pattern": pattern})).0, r#"["pattern"]"#, "{pattern}");
            let by_name = json!({"patternProperties": {pattern: {}}});
            assert!(fault(&by_name).0.contains("patternProperties"), "{pattern}");
        }
        let schema = json!({"pattern": r"^\d{2,9}[a-z]+$"});
        assert!(misses(&schema, r#""123abc""#).is_empty());
        assert_eq!(misses(&schema, r#""x""#), [("[]".to_owned(), "value_error".to_owned())]);
    }

    #[test]
    fn what_would_take_long_to_read_is_no_number() {
        let long = "7".repeat(1001);
        let schema = json!({"type": ["number", "string", "array"]});
        for text in [long.clone(), format!("[0.{long}]"), format!("[\"\\\"\",{long}]")] {
            assert_eq!(misses(&schema, &text), [("[]".to_owned(), "value_error".to_owned())], "{text}");
        }
        for text in [format!("\"{long}\""), format!("[\"\\\\{long}\"]"), "7".repeat(1000)] {
            assert!(misses(&schema, &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn format_is_not_checked() {
        for draft in DRAFTS {
            let schema = json!({"$schema": draft.0, "format": "email"});
            assert!(misses(&schema, r#""no address""#).is_empty(), "{schema}");
        }
    }
}
