//! Times as RFC 3339 in UTC with milliseconds; any offset is taken.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Reads RFC 3339 text, to the millisecond.
///
/// # Errors
/// When the text is no RFC 3339 time, or lies outside the years 1 to 9999 in UTC.
pub fn parse(text: &str) -> Result<DateTime<Utc>, &'static str> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .and_then(|time| DateTime::<Utc>::from_timestamp_millis(time.timestamp_millis()))
        .filter(|time| (1..=9999).contains(&time.year()))
        .ok_or("an RFC 3339 time with an offset is expected, such as 2030-01-31T08:00:00Z")
}

/// `2030-01-31T08:00:00.000Z`.
pub fn format(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(time))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// The same for a time that may be `null`.
pub(crate) mod option {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};
    use serde::de::Error as _;

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<DateTime<Utc>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| super::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

/// The same for an edit, where absent, `null` and a time are three things.
pub(crate) mod edit {
    use super::{DateTime, Deserializer, Serializer, Utc};

    #[allow(
        clippy::option_option,
        clippy::ref_option,
        reason = "absent, null and a value are three things; serde's signature"
    )]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Option<DateTime<Utc>>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::option::serialize(&time.flatten(), serializer)
    }

    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
        super::option::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_any_offset_and_keep_milliseconds() {
        let read = |text| parse(text).map(|time| format(&time)).ok();
        assert_eq!(read("2030-01-31T10:00:00.1239+02:00").as_deref(), Some("2030-01-31T08:00:00.123Z"));
        for wrong in ["2030-01-31", "2030-01-31T08:00:00", "9999-12-31T23:59:59-23:59", "tomorrow", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
