//! Tags: what tasks are searched by.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::Tags;

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
    fn tags_are_a_map_or_a_list() {
        let read = |text: &str| serde_json::from_str::<Tags>(text).ok();
        assert_eq!(read(r#"["a","b"]"#), Some(Tags::from([("a", ""), ("b", "")])));
        assert_eq!(read(r#"{"a":"x:y"}"#), Some(Tags::from([("a", "x:y")])));
        assert_eq!(read(r#"{"a":1}"#), None);
        assert_eq!(read(r#"{"a":"1","a":"2"}"#), None);
        assert!(Tags::from([("a:b", "")]).check().is_err());
        assert!(Tags::from([("a", "b:c")]).check().is_ok());
    }
}
