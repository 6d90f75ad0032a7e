//! Payloads kept exactly as sent, and the fields that need more than a derive.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Any JSON value as the text it was sent in: big integers, key order, `$` and `.` keys survive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The JSON text of `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form, such as a map with keys that are no strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// Takes JSON text as it is.
    ///
    /// # Errors
    /// When the text is not one JSON value.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The text itself, without a copy.
    pub fn into_text(self) -> String {
        String::from(Box::<str>::from(self.0))
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// When the JSON does not fit `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

/// Same text; the same value spelled otherwise counts as different.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A task's `request` or `result` in an answer, which lists leave out.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Payload {
    /// Not part of this answer.
    #[default]
    Omitted,
    /// There is none.
    Null,
    /// The JSON as it was sent.
    Json(Json),
}

impl Payload {
    /// Whether this answer leaves the payload out.
    pub const fn is_omitted(&self) -> bool {
        matches!(self, Self::Omitted)
    }

    /// The payload, if there is one and the answer carries it.
    pub const fn json(&self) -> Option<&Json> {
        match self {
            Self::Json(json) => Some(json),
            Self::Omitted | Self::Null => None,
        }
    }
}

impl From<Option<Json>> for Payload {
    fn from(json: Option<Json>) -> Self {
        json.map_or(Self::Null, Self::Json)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<Json>::deserialize(deserializer).map(Self::from)
    }
}

/// How urgent a task is: 0–100, higher first. On the way in also `low` 25, `medium` 50, `high` 75, `critical` 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// `low`.
    pub const LOW: Self = Self(25);
    /// `medium`, the default.
    pub const MEDIUM: Self = Self(50);
    /// `high`.
    pub const HIGH: Self = Self(75);
    /// `critical`, the highest there is.
    pub const CRITICAL: Self = Self(100);

    /// The priority of that number, if it is one: 0–100.
    pub fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| *number <= 100).map(Self)
    }

    /// 0–100.
    pub const fn get(self) -> u8 {
        self.0
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "low" => Self::LOW,
            "medium" => Self::MEDIUM,
            "high" => Self::HIGH,
            "critical" => Self::CRITICAL,
            _ => return None,
        })
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::MEDIUM
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PriorityVisitor;

        impl Visitor<'_> for PriorityVisitor {
            type Value = Priority;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 100, or one of low, medium, high, critical")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Priority, E> {
                Priority::new(number)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Priority, E> {
                let signed = i64::try_from(number).unwrap_or(i64::MAX);
                Priority::new(signed)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Priority, E> {
                Priority::named(name).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(name), &self))
            }
        }

        deserializer.deserialize_any(PriorityVisitor)
    }
}

/// A task's tags: up to 32 strings by key (≤ 64 characters, no `:`), values up to 256 characters. A list of keys is
/// taken as those keys with empty values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Tags(pub BTreeMap<String, String>);

impl Tags {
    /// How many tags a task may have.
    pub const MAX: usize = 32;
    /// Longest key, in characters.
    pub const MAX_KEY: usize = 64;
    /// Longest value, in characters.
    pub const MAX_VALUE: usize = 256;

    /// Checks the rules of the type's description.
    ///
    /// # Errors
    /// The first rule broken, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > Self::MAX {
            return Err(format!("at most {} tags", Self::MAX));
        }
        for (key, value) in &self.0 {
            if key.is_empty() || key.chars().count() > Self::MAX_KEY || key.contains(':') {
                return Err(format!("tag keys have 1 to {} characters and no ':'", Self::MAX_KEY));
            }
            if value.chars().count() > Self::MAX_VALUE {
                return Err(format!("tag values have at most {} characters", Self::MAX_VALUE));
            }
        }
        Ok(())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Tags {
    fn from(tags: [(&str, &str); N]) -> Self {
        Self(tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings, or a list of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut tags = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if tags.insert(key, value).is_some() {
                        return Err(A::Error::custom("a tag key stands twice"));
                    }
                }
                Ok(Tags(tags))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tags, A::Error> {
                let mut tags = BTreeMap::new();
                while let Some(key) = seq.next_element::<String>()? {
                    tags.insert(key, String::new());
                }
                Ok(Tags(tags))
            }
        }

        deserializer.deserialize_any(TagsVisitor)
    }
}

/// A `T` that must come as a JSON object. What is derived for a struct alone would also take a list of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// Reads a field that must be an object.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// Reads a field that must be an object or `null`.
pub(crate) fn maybe_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(deserializer).map(|object| object.map(|Object(value)| value))
}

/// [`maybe_object`] for a field that is there: absent, `null` and an object are three things.
#[allow(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    maybe_object(deserializer).map(Some)
}

/// Reads a field that is there, `null` or not: with `#[serde(default)]`, absent is `None` and `null` is `Some(None)`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Times as RFC 3339 in UTC with milliseconds; any offset is taken.
pub mod timestamp {
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
}

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{
        AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type,
    };
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::{Json, Priority, Tags};

    impl PartialSchema for Json {
        fn schema() -> RefOr<Schema> {
            ObjectBuilder::new().schema_type(SchemaType::AnyValue).build().into()
        }
    }

    impl ToSchema for Json {}

    impl PartialSchema for Priority {
        fn schema() -> RefOr<Schema> {
            let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(100));
            let name = ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(["low", "medium", "high", "critical"]));
            RefOr::T(Schema::OneOf(OneOfBuilder::new().item(number).item(name).build()))
        }
    }

    impl ToSchema for Priority {}

    impl PartialSchema for Tags {
        fn schema() -> RefOr<Schema> {
            let text = || ObjectBuilder::new().schema_type(Type::String);
            let key = || text().min_length(Some(1)).max_length(Some(Self::MAX_KEY)).pattern(Some("^[^:]*$"));
            let map = ObjectBuilder::new()
                .schema_type(Type::Object)
                .max_properties(Some(Self::MAX))
                .property_names(Some(key()))
                .additional_properties(Some(AdditionalProperties::RefOr(
                    text().max_length(Some(Self::MAX_VALUE)).build().into(),
                )));
            let list = ArrayBuilder::new().items(key()).max_items(Some(Self::MAX));
            RefOr::T(Schema::OneOf(OneOfBuilder::new().item(map).item(list).build()))
        }
    }

    impl ToSchema for Tags {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_keep_their_text() {
        let text = r#"{"b":123456789012345678901234567890,"a":{"$set":1,"x.y":1.0}}"#;
        let json: Json = serde_json::from_str(text).expect("valid JSON");
        assert_eq!(json.as_str(), text);
        assert_eq!(serde_json::to_string(&json).expect("serializes"), text);
    }

    #[test]
    fn priorities_are_numbers_or_names() {
        let read = |text: &str| serde_json::from_str::<Priority>(text).ok().map(Priority::get);
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("100"), Some(100));
        assert_eq!(read("\"high\""), Some(75));
        for wrong in ["101", "-1", "1.5", "\"HIGH\"", "null", "true", "1e99", "18446744073709551615"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tags_are_a_map_or_a_list() {
        let read = |text: &str| serde_json::from_str::<Tags>(text).ok();
        assert_eq!(read(r#"["a","b"]"#), Some(Tags::from([("a", ""), ("b", "")])));
        assert_eq!(read(r#"{"a":"x:y"}"#), Some(Tags::from([("a", "x:y")])));
        assert_eq!(read(r#"{"a":1}"#), None);
        assert_eq!(read(r#"{"a":"1","a":"2"}"#), None);
        assert!(Tags::from([("a:b", "")]).check().is_err());
        assert!(Tags::from([("a", "b:c")]).check().is_ok());
    }

    #[test]
    fn times_take_any_offset_and_keep_milliseconds() {
        let read = |text| timestamp::parse(text).map(|time| timestamp::format(&time)).ok();
        assert_eq!(read("2030-01-31T10:00:00.1239+02:00").as_deref(), Some("2030-01-31T08:00:00.123Z"));
        for wrong in ["2030-01-31", "2030-01-31T08:00:00", "9999-12-31T23:59:59-23:59", "tomorrow", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
