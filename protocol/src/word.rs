//! Words: the fixed names that stand for a status, a reason, a role, an error code.
//!
//! A newer version knows more of them. What is read from an answer or from the database therefore keeps a word that it
//! does not know ([`Word`]) and writes it as it was; only a request must name one of the words that are known
//! ([`known`]).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most bytes that a word may have, and one for their number: a word is as large as a small struct and needs no heap.
const SIZE: usize = 40;

/// A word that this version does not know, kept as it was read: 1–39 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    bytes: [u8; SIZE - 1],
    length: u8,
}

impl Word {
    /// `None`: the text is empty or longer than any word may be.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; SIZE - 1];
        bytes.get_mut(..text.len()).filter(|place| !place.is_empty())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// The word itself.
    pub fn as_str(&self) -> &str {
        // Made of text, and of all of it.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialOrd for Word {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Word {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a word of 1 to {} bytes", SIZE - 1)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Word::new(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Whether a word is one that this version knows.
pub trait Known: Copy + fmt::Display {
    /// The names of all words that are known.
    const NAMES: &'static [&'static str];

    /// Whether this one is.
    fn is_known(&self) -> bool;
}

/// Reads a word of a request: one that is known.
///
/// # Errors
/// When it is not.
pub fn known<'de, T: Known + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let word = T::deserialize(deserializer)?;
    if word.is_known() { Ok(word) } else { Err(de::Error::unknown_variant(&word.to_string(), T::NAMES)) }
}

/// The same for a list of words.
///
/// # Errors
/// When one of them is not known.
pub fn all_known<'de, T: Known + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct One<T>(T);
    impl<'de, T: Known + Deserialize<'de>> Deserialize<'de> for One<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            known(deserializer).map(One)
        }
    }
    Ok(Vec::<One<T>>::deserialize(deserializer)?.into_iter().map(|One(word)| word).collect())
}

/// An enum of words: its variants with their names, and `Other` for what only a newer version knows. It reads, shows
/// and writes any word; in an OpenAPI document it is a text with the known words as examples of all there are.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $visibility:vis enum $Name:ident {
        $($(#[$doc:meta])+ $Variant:ident = $name:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(clippy::large_enum_variant, reason = "a word that is not known needs no heap either")]
        $visibility enum $Name {
            $($(#[$doc])+ $Variant,)+
            /// A word that only a newer version knows.
            Other($crate::word::Word),
        }

        impl $Name {
            /// All that are known, in their order.
            $visibility const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The word as it is written.
            $visibility fn as_str(&self) -> &str {
                match self {
                    $(Self::$Variant => $name,)+
                    Self::Other(word) => word.as_str(),
                }
            }

            /// The known one of that name, if there is one.
            $visibility fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == name)
            }
        }

        $crate::word_traits!($Name, [$($name),+]);
    };
}

/// What every enum of words can do; for those that [`words!`] does not make itself.
#[doc(hidden)]
#[macro_export]
macro_rules! word_traits {
    ($Name:ident, [$($name:literal),+]) => {
        impl $crate::word::Known for $Name {
            const NAMES: &'static [&'static str] = &[$($name),+];

            fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl ::std::fmt::Display for $Name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::serde::Serialize for $Name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $Name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                let word = <$crate::word::Word as ::serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self::parse(word.as_str()).unwrap_or(Self::Other(word)))
            }
        }
    };
}

/// A schema of the words that are known.
#[cfg(feature = "openapi")]
#[doc(hidden)]
#[macro_export]
macro_rules! word_schema {
    ($($Name:ident),+) => {
        $(
            impl ::utoipa::PartialSchema for $Name {
                fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::schema::Schema> {
                    ::utoipa::openapi::ObjectBuilder::new()
                        .schema_type(::utoipa::openapi::schema::Type::String)
                        .enum_values(Some(<$Name as $crate::word::Known>::NAMES.iter().copied()))
                        .into()
                }
            }

            impl ::utoipa::ToSchema for $Name {
                fn name() -> ::std::borrow::Cow<'static, str> {
                    stringify!($Name).into()
                }
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    words! {
        /// What a test needs.
        pub(crate) enum Colour {
            /// Of blood.
            Red = "red",
            /// Of grass.
            Green = "green",
        }
    }

    #[derive(Debug, Deserialize)]
    struct Request {
        #[serde(deserialize_with = "known")]
        one: Colour,
        #[serde(default, deserialize_with = "all_known")]
        many: Vec<Colour>,
    }

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> serde_json::Result<T> {
        serde_json::from_str(json)
    }

    #[test]
    fn an_unknown_word_is_read_and_written_as_it_was() {
        assert_eq!(read::<Colour>("\"red\"").unwrap(), Colour::Red);
        let other: Colour = read("\"ultra_violet\"").unwrap();
        assert_eq!((other.as_str(), other.is_known()), ("ultra_violet", false));
        assert_eq!(serde_json::to_string(&other).unwrap(), "\"ultra_violet\"");
        assert_eq!(Colour::parse("ultra_violet"), None);
    }

    #[test]
    fn what_is_no_word_is_not_read() {
        for json in ["\"\"", "7", "null", &format!("\"{}\"", "x".repeat(SIZE))] {
            assert!(read::<Colour>(json).is_err(), "{json}");
        }
        assert!(read::<Colour>(&format!("\"{}\"", "x".repeat(SIZE - 1))).is_ok());
    }

    #[test]
    fn a_request_must_name_a_known_one() {
        let request: Request = read("{\"one\": \"red\", \"many\": [\"green\"]}").unwrap();
        assert_eq!((request.one, request.many), (Colour::Red, vec![Colour::Green]));
        for json in ["{\"one\": \"blue\"}", "{\"one\": \"red\", \"many\": [\"red\", \"blue\"]}"] {
            let error = read::<Request>(json).unwrap_err().to_string();
            assert!(error.contains("unknown variant `blue`") && error.contains("`red`"), "{error}");
        }
    }
}
