//! Query parameters: each is taken once it is known, and what is left over is refused.

use std::str::FromStr;

use task_repo_protocol::timestamp;
use task_repo_protocol::{DateTime, Utc};

use super::expected::nearest;
use crate::http::problems::Rejection;

/// Most values that one filter may have.
const MAX_VALUES: usize = 32;

/// Longest name of a parameter that an answer repeats, in characters.
const MAX_NAME: usize = 64;

/// The query parameters that have not been taken yet.
pub(in crate::http) struct Params {
    left: Vec<(String, String)>,
    /// The names that were asked for.
    known: Vec<String>,
}

impl Params {
    /// Takes a query string apart.
    pub(in crate::http) fn of(query: &str) -> Result<Self, Rejection> {
        let pairs = serde_urlencoded::from_str(query)
            .map_err(|error| Rejection::parameter("query", &error.to_string()))?;
        Ok(Self { left: pairs, known: Vec::new() })
    }

    /// All values of a parameter that may be repeated.
    pub(in crate::http) fn many(&mut self, name: &str) -> Result<Vec<String>, Rejection> {
        self.up_to(MAX_VALUES, name)
    }

    /// All values of a parameter that may stand that often.
    pub(in crate::http) fn up_to(&mut self, most: usize, name: &str) -> Result<Vec<String>, Rejection> {
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(key, _)| key == name);
        self.left = left;
        self.known.push(name.to_owned());
        let values: Vec<_> = Vec::<(String, String)>::into_iter(taken).map(|(_, value)| value).collect();
        if values.len() > most {
            return Err(Rejection::parameter(name, &format!("it may stand {most} times at most")));
        }
        Ok(values)
    }

    /// The value of a parameter that stands once at most.
    pub(in crate::http) fn one(&mut self, name: &str) -> Result<Option<String>, Rejection> {
        let mut values = self.many(name)?;
        if values.len() > 1 {
            return Err(Rejection::parameter(name, "it may stand once only"));
        }
        Ok(values.pop())
    }

    /// A whole number within bounds.
    pub(in crate::http) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<T>,
    ) -> Result<Option<T>, Rejection> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| plain && bounds.contains(number));
        let rule = || format!("a whole number from {} to {} is expected", bounds.start(), bounds.end());
        number.map(Some).ok_or_else(|| Rejection::parameter(name, &rule()))
    }

    /// `true` or `false`.
    pub(in crate::http) fn flag(&mut self, name: &str) -> Result<bool, Rejection> {
        match self.one(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Rejection::parameter(name, "true or false is expected")),
        }
    }

    /// An RFC 3339 time.
    pub(in crate::http) fn time(&mut self, name: &str) -> Result<Option<DateTime<Utc>>, Rejection> {
        let text = self.one(name)?;
        let read = |text: String| {
            timestamp::parse(&text).map_err(|rule| {
                // A plus sign in a query is a space (HTML forms), and offsets have one.
                let is_form = timestamp::parse(&text.replacen(' ', "+", 1)).is_ok();
                let rule =
                    if is_form { format!("{rule}; in a query + is written %2B") } else { rule.to_owned() };
                Rejection::parameter(name, &rule)
            })
        };
        text.map(read).transpose()
    }

    /// Refuses what nobody has taken.
    pub(in crate::http) fn finish(self) -> Result<(), Rejection> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let known = || self.known.iter().map(String::as_str);
        let rule = match nearest(name, known()) {
            Some(near) => format!("there is no such query parameter here; did you mean {near}?"),
            None if self.known.is_empty() => "there are no query parameters here".to_owned(),
            None => format!(
                "there is no such query parameter here; there are {}",
                known().collect::<Vec<_>>().join(", ")
            ),
        };
        let name: String = name.chars().take(MAX_NAME).collect();
        Err(Rejection::parameter(&name, &rule))
    }
}

/// What is wrong with one value of a parameter that may be repeated. Many try to give several values with commas.
pub(in crate::http) fn unfit(name: &str, value: &str, rule: &str, fits: impl Fn(&str) -> bool) -> Rejection {
    if !value.contains(',') {
        return Rejection::parameter(name, rule);
    }
    let several: Vec<_> = value
        .split(',')
        .map(str::trim)
        .filter(|one| fits(one))
        .take(4)
        .map(|one| format!("{name}={one}"))
        .collect();
    let example = if several.len() < 2 { format!("{name}=…&{name}=…") } else { several.join("&") };
    Rejection::parameter(name, &format!("{rule}; for several values repeat the parameter: {example}"))
}
