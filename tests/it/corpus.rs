//! What attackers write where a name, a value or an id is expected.

use serde_json::{Value, json};

/// Text that some database, language, protocol or person would read as more than text.
#[rustfmt::skip]
const CORPUS: &[&str] = &[
    // MongoDB: operators, paths, variables, expressions, JavaScript, extended JSON.
    "$ne",
    "$gt",
    "$where",
    "$literal",
    "$$ROOT",
    "$tenant",
    "$set",
    "$",
    ".",
    "..",
    "a.b",
    "a.$[]",
    "$a.b",
    "_id",
    "tenant",
    "__proto__",
    r#"{"$ne":null}"#,
    r#"{"$gt":""}"#,
    r#"{"$regex":".*"}"#,
    r#"{"$in":["victims"]}"#,
    r#"{"$where":"while(1){}"}"#,
    r#"{"$literal":"victims"}"#,
    r#"{"$oid":"0123456789abcdef01234567"}"#,
    r#"["victims","alice"]"#,
    "'; return true; var x='",
    "' || '1'=='1",
    r#"" || ""==""#,
    "this.tenant != ''",
    "ObjectId('0123456789abcdef01234567')",
    "{$ne: null}",
    "[$ne]=1",
    // Patterns.
    ".*",
    "^",
    "^.*$",
    "(?i)VICTIMS",
    "victim.",
    "victims|x",
    "*",
    "%",
    "_",
    "?",
    "\\",
    "\\0",
    "/.*/i",
    "(a+)+$",
    // The end of a string, of a line, of a header.
    "\0",
    "victims\0",
    "\0victims",
    "victims\0x",
    "\r\n",
    "x\r\nX-Tenant-ID: theirs",
    "x\nX-User-ID: alice",
    "\u{1b}[2J",
    // Text that looks like other text.
    "Victims",
    "victims ",
    " victims",
    "victims\u{200b}",
    "v\u{456}ctims",
    "\u{ff36}ictims",
    "\u{202e}smitciv",
    "\u{feff}victims",
    "é",
    "e\u{301}",
    "ß",
    "ſ",
    "İ",
    "\u{ffff}",
    "\u{10ffff}",
    "😀",
    // Text that looks like other values, and what templates, shells, pages and SQL would make of it.
    "",
    "null",
    "undefined",
    "true",
    "0",
    "-1",
    "NaN",
    "1e400",
    "[]",
    "{}",
    "00000000-0000-0000-0000-000000000000",
    "any",
    "default",
    "theirs",
    "victims:x",
    "k:v",
    "a,b",
    "a&status=any",
    "a=b",
    "%24ne",
    "%00",
    "%0d%0a",
    "../keys",
    "..%2f..",
    "{{7*7}}",
    "${7*7}",
    "$(id)",
    "`id`",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "\"",
    "'",
];

/// Longer than any field may be, and as long as the longest.
fn long() -> [String; 3] {
    ["x".repeat(20_000), "$".repeat(256), "é".repeat(255)]
}

/// The whole corpus.
pub(crate) fn corpus() -> Vec<String> {
    CORPUS.iter().map(|text| (*text).to_owned()).chain(long()).collect()
}

/// The same as other JSON than text, where text is expected.
#[rustfmt::skip]
pub(crate) fn objects() -> Vec<Value> {
    vec![
        json!({"$ne": null}),
        json!({"$gt": ""}),
        json!({"$exists": true}),
        json!({"$regex": ".*"}),
        json!({"$in": ["victims", "alice"]}),
        json!({"$where": "while(1){}"}),
        json!({"$literal": "victims"}),
        json!({"$eq": "victims"}),
        json!({"a.b": 1}),
        json!(["victims"]),
        json!([[]]),
        json!({}),
        json!(0),
        json!(true),
    ]
}
