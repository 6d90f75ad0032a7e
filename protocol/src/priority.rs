//! How urgent a task is.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

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

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::Priority;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
