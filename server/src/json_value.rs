//! When two JSON texts are the same value: spelling, white space and the order of keys do not count, numbers count
//! exactly.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A hash of the path and the JSON value of a body: spelling, white space and the order of keys do not count.
pub fn fingerprint(path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path.as_bytes());
    hash.update(b"\0");
    if let Ok(value) = serde_json::from_slice::<&RawValue>(body) {
        digest(value, MAX_DEPTH, &mut hash);
    }
    hash.finalize().into()
}

/// Whether two JSON texts are the same value.
pub fn same(left: &str, right: &str) -> bool {
    left == right || fingerprint("", left.as_bytes()) == fingerprint("", right.as_bytes())
}

/// Deeper values are compared by their text: no task holds them, and taking them apart would cost without end.
const MAX_DEPTH: usize = 40;

fn digest(value: &RawValue, depth: usize, hash: &mut Sha256) {
    let text = value.get();
    // Each kind of value begins with a mark of its own, and all that varies in length says how long it is.
    let mut sized = |mark: &[u8], bytes: &[u8]| {
        hash.update(mark);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match text.as_bytes().first() {
        _ if depth == 0 => sized(b"d", text.as_bytes()),
        Some(b'{') => {
            let fields: std::collections::BTreeMap<String, &RawValue> =
                serde_json::from_str(text).unwrap_or_default();
            sized(b"{", &fields.len().to_be_bytes());
            for (key, field) in fields {
                hash.update((key.len() as u64).to_be_bytes());
                hash.update(key.as_bytes());
                digest(field, depth - 1, hash);
            }
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            sized(b"[", &items.len().to_be_bytes());
            for item in items {
                digest(item, depth - 1, hash);
            }
        }
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(string) => sized(b"\"", string.as_bytes()),
            Err(_) => sized(b"\"", text.as_bytes()),
        },
        Some(b'-' | b'0'..=b'9') => sized(b"0", plain_number(text).as_bytes()),
        _ => sized(b"l", text.as_bytes()),
    }
}

/// A number's sign, digits and exponent without anything that does not change its value: `1.50e1` is `15e0`.
fn plain_number(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.trim_start_matches('+').parse::<i64>() else {
        return format!("{sign}{text}");
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let shortest = significant.trim_end_matches('0');
    if shortest.is_empty() {
        return "0".to_owned();
    }
    let dropped = i64::try_from(significant.len() - shortest.len()).unwrap_or(0);
    let exponent =
        exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(0)).saturating_add(dropped);
    format!("{sign}{shortest}e{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_has_the_same_fingerprint_however_it_is_spelled() {
        let print = |body: &str| fingerprint("/tasks", body.as_bytes());
        let plain = print(r#"{"a":1.5,"b":["x",{}]}"#);
        assert_eq!(plain, print("{ \"b\": [\"\\u0078\", { }],\n \"a\": 15e-1 }"));
        for other in
            [r#"{"a":1.51,"b":["x",{}]}"#, r#"{"a":1.5,"b":["x",[]]}"#, r#"{"a":"1.5","b":["x",{}]}"#]
        {
            assert_ne!(plain, print(other), "{other}");
        }
        assert_ne!(plain, fingerprint("/tasks/batch", br#"{"a":1.5,"b":["x",{}]}"#));
        assert_ne!(print("18446744073709551616"), print("18446744073709551617"));
    }

    #[test]
    fn bottomless_values_have_a_fingerprint_too() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_ne!(fingerprint("/", deep(100_000).as_bytes()), fingerprint("/", deep(99_999).as_bytes()));
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for (left, right) in [("1", "1.0"), ("100", "1e2"), ("-0.50", "-5E-1"), ("0", "-0.0e9")] {
            assert_eq!(plain_number(left), plain_number(right), "{left} {right}");
        }
        assert_ne!(plain_number("1"), plain_number("-1"));
        assert_ne!(plain_number("10"), plain_number("1"));
    }
}
