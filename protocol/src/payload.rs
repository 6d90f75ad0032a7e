//! What a payload's JSON text must keep to, found in one pass over its bytes and without building a tree.

/// Deepest nesting of arrays and objects that a payload may have; `[[1]]` is 2.
pub const MAX_DEPTH: usize = 32;

/// Which numbers a payload may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Any that JSON can spell.
    Any,
    /// Integers of up to 64 bits, and what a double can hold.
    SixtyFourBits,
}

/// Checks depth, surrogate pairs and numbers of one JSON value, which must be well-formed.
pub(crate) fn check(text: &str, numbers: Numbers) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err("arrays and objects may be nested 32 levels deep at most");
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at = check_string(bytes, at + 1)?;
                continue;
            }
            b'-' | b'0'..=b'9' if numbers == Numbers::SixtyFourBits => {
                let length = bytes[at..].iter().take_while(|byte| is_number_byte(**byte)).count();
                check_number(&text[at..at + length])?;
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn check_number(number: &str) -> Result<(), &'static str> {
    let is_integer = number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    let fits = if is_integer {
        number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
    } else {
        number.parse::<f64>().is_ok_and(f64::is_finite)
    };
    if fits { Ok(()) } else { Err("numbers must fit in 64 bits") }
}

/// Skips the string whose first character is at `at`; returns the place after its closing quote.
fn check_string(bytes: &[u8], mut at: usize) -> Result<usize, &'static str> {
    const LONE_SURROGATE: &str = "half a surrogate pair is not text";
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return Ok(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match utf16_unit(bytes, at) {
                Some(0xD800..=0xDBFF) => match utf16_unit(bytes, at + 6) {
                    Some(0xDC00..=0xDFFF) => at += 12,
                    _ => return Err(LONE_SURROGATE),
                },
                Some(0xDC00..=0xDFFF) => return Err(LONE_SURROGATE),
                _ => at += 6,
            },
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// The UTF-16 unit spelled `\uXXXX` at `at`, if one is.
fn utf16_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_arrays_and_objects() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(32), Numbers::Any), Ok(()));
        assert!(check(&nested(33), Numbers::Any).is_err());
        assert_eq!(check(&format!("[{}]", "[],".repeat(99) + "{}"), Numbers::Any), Ok(()));
        assert_eq!(check(&format!("\"{}\"", "[".repeat(99)), Numbers::Any), Ok(()));
        assert_eq!(check(&format!(r#""\"{}""#, "[".repeat(99)), Numbers::Any), Ok(()));
    }

    #[test]
    fn surrogates_come_in_pairs() {
        assert_eq!(check(r#""\ud83d\ude00""#, Numbers::Any), Ok(()));
        assert_eq!(check(r#""\\ud83d""#, Numbers::Any), Ok(()));
        for lone in [r#""\ud83d""#, r#""\ud83dx""#, r#""\ude00""#, r#"{"\ud83d\ud83d":1}"#, r#""\ud83d\n""#] {
            assert!(check(lone, Numbers::Any).is_err(), "{lone}");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_found_only_where_asked() {
        let limits = r#"{"a":18446744073709551615,"b":[-9223372036854775808],"c":1e308,"d":"1e999"}"#;
        assert_eq!(check(limits, Numbers::SixtyFourBits), Ok(()));
        for wrong in ["18446744073709551616", "-9223372036854775809", "[1e999]"] {
            assert!(check(wrong, Numbers::SixtyFourBits).is_err(), "{wrong}");
            assert_eq!(check(wrong, Numbers::Any), Ok(()));
        }
    }
}
