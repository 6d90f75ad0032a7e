//! When two JSON texts are the same value: spelling, white space and the order of keys do not count, numbers count
//! exactly.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A hash of the path and the JSON value of a body: spelling, white space and the order of keys do not count. It is stored
/// with tasks, so what it is of a value never changes.
pub fn fingerprint(path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path.as_bytes());
    hash.update(b"\0");
    if let Ok(value) = serde_json::from_slice::<&RawValue>(body) {
        let text = value.get();
        Walk { text, containers: containers(text.as_bytes()), at: 0, next: 0, hash: &mut hash }
            .value(MAX_DEPTH);
    }
    hash.finalize().into()
}

/// Whether two JSON texts are the same value.
pub fn same(left: &str, right: &str) -> bool {
    left == right || fingerprint("", left.as_bytes()) == fingerprint("", right.as_bytes())
}

/// Deeper values are compared by their text: no task holds them.
const MAX_DEPTH: usize = 40;

/// An array or object in a text.
struct Container {
    /// Where the text goes on behind it.
    end: u32,
    /// How many items an array has.
    items: u32,
    /// Which container begins first behind it.
    next: u32,
}

/// A position or count: no body is longer.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The arrays and objects of a valid JSON text, in the order in which they begin, as far down as they are taken apart. Known
/// beforehand, they need not be read once more for each that they are in.
fn containers(text: &[u8]) -> Vec<Container> {
    let mut found: Vec<Container> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    // How many are open that are not noted.
    let mut deeper = 0_usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if let Some(outer) = open.last().map(|outer| &mut found[*outer].items) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | b':' | b']' | b'}' => {}
                b',' => *outer += 1,
                _ => *outer = (*outer).max(1),
            }
        }
        match byte {
            b'[' | b'{' if open.len() > MAX_DEPTH => deeper += 1,
            b']' | b'}' if deeper > 0 => deeper -= 1,
            b'[' | b'{' => {
                open.push(found.len());
                found.push(Container { end: 0, items: 0, next: 0 });
            }
            b']' | b'}' => {
                let next = short(found.len());
                if let Some(closed) = open.pop() {
                    found[closed].end = short(at + 1);
                    found[closed].next = next;
                }
            }
            b'"' => {
                at = string_end(text, at);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Where the text goes on behind the string that begins there.
fn string_end(text: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    loop {
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// A string as it is meant.
fn unescaped(literal: &str) -> Cow<'_, str> {
    match literal.get(1..literal.len().saturating_sub(1)) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        // What is no Unicode text, a lone half of a pair, stands for itself.
        _ => serde_json::from_str(literal).map_or(Cow::Borrowed(literal), Cow::Owned),
    }
}

/// A member of an object: where its value begins, and the first container from there on.
struct Member {
    value: u32,
    next: u32,
}

/// A walk through a valid JSON text, in which objects are walked in the order of their keys.
struct Walk<'a> {
    text: &'a str,
    containers: Vec<Container>,
    at: usize,
    /// The first container that begins there or later.
    next: usize,
    hash: &'a mut Sha256,
}

impl<'a> Walk<'a> {
    /// Each kind of value begins with a mark of its own, and all that varies in length says how long it is.
    fn sized(&mut self, mark: &[u8], bytes: &[u8]) {
        self.hash.update(mark);
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    fn skip(&mut self, skipped: &[u8]) {
        while self.text.as_bytes().get(self.at).is_some_and(|byte| skipped.contains(byte)) {
            self.at += 1;
        }
    }

    /// The text of the value that begins here; the walk goes on behind it.
    fn pass(&mut self) -> &'a str {
        let (whole, begin) = (self.text, self.at);
        let text = whole.as_bytes();
        self.at = match text.get(begin) {
            Some(b'[' | b'{') => {
                let container = &self.containers[self.next];
                self.next = container.next as usize;
                container.end as usize
            }
            Some(b'"') => string_end(text, begin),
            _ => {
                let ends = |byte: &u8| b",]} \n\r\t".contains(byte);
                text[begin..].iter().position(ends).map_or(text.len(), |length| begin + length)
            }
        };
        &whole[begin..self.at]
    }

    fn value(&mut self, depth: usize) {
        self.skip(b" \n\r\t");
        let first = self.text.as_bytes().get(self.at);
        if matches!(first, Some(b'{' | b'[')) && depth > 0 {
            let (is_object, items) = (first == Some(&b'{'), self.containers[self.next].items as usize);
            let (end, next) = (self.containers[self.next].end, self.containers[self.next].next);
            self.at += 1;
            self.next += 1;
            if is_object {
                self.object(items, depth);
            } else {
                self.array(items, depth);
            }
            (self.at, self.next) = (end as usize, next as usize);
            return;
        }
        let first = first.copied();
        let text = self.pass();
        match first {
            _ if depth == 0 => self.sized(b"d", text.as_bytes()),
            Some(b'"') => self.sized(b"\"", unescaped(text).as_bytes()),
            Some(b'-' | b'0'..=b'9') => self.sized(b"0", plain_number(text).as_bytes()),
            _ => self.sized(b"l", text.as_bytes()),
        }
    }

    fn array(&mut self, items: usize, depth: usize) {
        self.sized(b"[", &items.to_be_bytes());
        for _ in 0..items {
            self.skip(b", \n\r\t");
            self.value(depth - 1);
        }
    }

    fn object(&mut self, members: usize, depth: usize) {
        let mut found = Vec::with_capacity(members);
        for _ in 0..members {
            self.skip(b", \n\r\t");
            let key = unescaped(self.pass());
            self.skip(b": \n\r\t");
            found.push((key, Member { value: short(self.at), next: short(self.next) }));
            self.pass();
        }
        // Of several with one key the last one counts.
        found.reverse();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|(one, _), (other, _)| one == other);
        self.sized(b"{", &found.len().to_be_bytes());
        for (name, member) in &found {
            self.hash.update((name.len() as u64).to_be_bytes());
            self.hash.update(name.as_bytes());
            (self.at, self.next) = (member.value as usize, member.next as usize);
            self.value(depth - 1);
        }
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
    use rand::seq::IndexedRandom as _;
    use rand::{Rng, RngExt, SeedableRng as _};

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

    /// As the first release made it, which read each value once more for each that it is in.
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

    fn of_the_first_release(body: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"\0");
        digest(serde_json::from_str::<&RawValue>(body).unwrap(), MAX_DEPTH, &mut hash);
        hash.finalize().into()
    }

    /// A value in one of its spellings.
    fn spelled(random: &mut impl Rng, depth: usize) -> String {
        let space = |random: &mut _| [" ", "", "\n\t", ""].choose::<_>(random).copied().unwrap_or_default();
        let list = |random: &mut _, each: &dyn Fn(&mut _) -> String, marks: [&str; 2]| {
            let count = RngExt::random_range(random, 0..4);
            let all: Vec<_> =
                (0..count).map(|_| format!("{}{}{}", space(random), each(random), space(random))).collect();
            format!("{}{}{}{}", marks[0], space(random), all.join(","), marks[1])
        };
        let text = |random: &mut _| {
            let texts = [
                r#""""#,
                r#""a""#,
                r#""\u0061""#,
                r#""[,]{:}""#,
                r#""\"\\""#,
                r#""\ud800""#,
                r#""ä€𝄞""#,
                r#""b\n""#,
            ];
            (*texts.choose(random).unwrap()).to_owned()
        };
        // A key that is no text is refused with its body.
        let key = |random: &mut _| {
            (*[r#""a""#, r#""\u0061""#, r#""b,]""#, r#""\"""#].choose(random).unwrap()).to_owned()
        };
        match random.random_range(0..if depth == 0 { 3 } else { 6 }) {
            0 => text(random),
            1 => (*["0", "-1.50e1", "1E400", "12345678901234567890"].choose(random).unwrap()).to_owned(),
            2 => (*["null", "true", "false"].choose(random).unwrap()).to_owned(),
            3 | 4 => list(random, &|random| spelled(random, depth - 1), ["[", "]"]),
            _ => {
                let member = |random: &mut _| {
                    format!(
                        "{}{}:{}{}",
                        key(random),
                        space(random),
                        space(random),
                        spelled(random, depth - 1)
                    )
                };
                list(random, &member, ["{", "}"])
            }
        }
    }

    #[test]
    fn fingerprints_are_those_that_the_first_release_has_stored() {
        let mut random = rand::rngs::SmallRng::seed_from_u64(1);
        for _ in 0..5_000 {
            let body = spelled(&mut random, 4);
            assert_eq!(fingerprint("", body.as_bytes()), of_the_first_release(&body), "{body}");
        }
        let deep = |n: usize| format!("{}[1,{{}}]{}", r#"{"a":["#.repeat(n), "]}".repeat(n));
        for n in [19, 20, 21] {
            assert_eq!(fingerprint("", deep(n).as_bytes()), of_the_first_release(&deep(n)), "{n}");
        }
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
