//! Payloads kept exactly as sent, and fields that must be objects.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::finite;

/// The struct by whose name `serde_json` knows text that it is to write as it is. It is not part of its interface, so only
/// the service, which builds with one version and tests it, relies on it.
const RAW_VALUE_STRUCT: &str = "$serde_json::private::RawValue";

/// Any JSON value as the text it was sent in: big integers, key order, `$` and `.` keys survive.
#[derive(Debug, Clone)]
pub struct Json(JsonText);

#[derive(Debug, Clone)]
enum JsonText {
    /// As `serde_json` read it.
    Read(Box<RawValue>),
    /// Known to be JSON, because it was read before it was stored.
    Known(Box<str>),
}

impl Json {
    /// The JSON text of `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form, such as a map with keys that are no strings, or a number that is NaN or infinite.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        finite::check(value)?;
        serde_json::value::to_raw_value(value).map(Self::read)
    }

    /// Takes JSON text as it is.
    ///
    /// # Errors
    /// When the text is not one JSON value.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self::read)
    }

    /// Takes JSON text as it is, unread: for text that was JSON when it was stored. Reading 2 KiB costs up to 8 µs.
    #[doc(hidden)]
    pub fn known(text: String) -> Self {
        Self(JsonText::Known(text.into_boxed_str()))
    }

    fn read(json: Box<RawValue>) -> Self {
        Self(JsonText::Read(json))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            JsonText::Read(json) => json.get(),
            JsonText::Known(text) => text,
        }
    }

    /// The text itself, without a copy.
    pub fn into_text(self) -> String {
        String::from(match self.0 {
            JsonText::Read(json) => Box::<str>::from(json),
            JsonText::Known(text) => text,
        })
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// When the JSON does not fit `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            JsonText::Read(json) => json.serialize(serializer),
            JsonText::Known(text) => {
                let mut raw = serializer.serialize_struct(RAW_VALUE_STRUCT, 1)?;
                raw.serialize_field(RAW_VALUE_STRUCT, &**text)?;
                raw.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::read)
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

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType};
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::Json;

    impl PartialSchema for Json {
        fn schema() -> RefOr<Schema> {
            ObjectBuilder::new().schema_type(SchemaType::AnyValue).build().into()
        }
    }

    impl ToSchema for Json {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_keep_their_text() {
        let text = r#"{"b":123456789012345678901234567890,"a":{"$set":1,"x.y":1.0}}"#;
        let json: Json = serde_json::from_str(text).expect("valid JSON");
        assert_eq!(json.as_str(), text);
        let known = Json::known(text.to_owned());
        assert_eq!(known, json);
        for json in [json, known] {
            assert_eq!(serde_json::to_string(&json).expect("serializes"), text);
            let inside = serde_json::to_string(&[Payload::Json(json)]).expect("serializes");
            assert_eq!(inside, format!("[{text}]"));
        }
    }
}
