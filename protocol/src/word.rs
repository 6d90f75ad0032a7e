//! Words: the fixed names that stand for a status, a reason, a role, an error code.
//!
//! A newer version knows more of them. What is read from an answer or from the database therefore keeps a word that it
//! does not know ([`Word`]) and writes it as it was; only a request must name one of the words that are known
//! ([`known`]).

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most bytes that a word may have.
const MAX_WORD_BYTES: usize = 64;
/// How many unknown words a process keeps for good. Newer versions have some dozens; more than this are no words of
/// theirs, and must not fill the memory.
const MAX_UNKNOWN_WORDS: usize = 1000;

/// A word that this version does not know, kept as it was read: 1–64 bytes.
///
/// Each is kept once for as long as the process lives, so that enums of words stay small and can be copied. A process
/// reads 1 000 of them at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(&'static str);

static UNKNOWN_WORDS: RwLock<Option<HashSet<&'static str>>> = RwLock::new(None);

impl Word {
    /// `None`: the text is empty or longer than any word may be, or there are too many words already.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_WORD_BYTES {
            return None;
        }
        let find = |words: &Option<HashSet<&'static str>>| words.as_ref()?.get(text).copied();
        if let Some(word) = find(&UNKNOWN_WORDS.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(Self(word));
        }
        let mut words = UNKNOWN_WORDS.write().unwrap_or_else(PoisonError::into_inner);
        let words = words.get_or_insert_default();
        // Race: another thread may have added the word between the two locks. It is looked up again under this one, so that
        // no word is leaked twice.
        if let Some(word) = words.get(text) {
            return Some(Self(word));
        }
        if words.len() >= MAX_UNKNOWN_WORDS {
            return None;
        }
        let word: &'static str = Box::leak(text.into());
        words.insert(word);
        Some(Self(word))
    }

    /// The word itself.
    pub const fn as_str(&self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// Reads a text by `read`, which says `None` of one that does not fit.
struct WordVisitor<T> {
    read: fn(&str) -> Option<T>,
    /// What would fit; empty: any word.
    names: &'static [&'static str],
    kind: PhantomData<T>,
}

impl<T> de::Visitor<'_> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a word of 1 to {MAX_WORD_BYTES} bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| match self.names {
            [] => E::invalid_value(de::Unexpected::Str(text), &self),
            names => E::unknown_variant(text, names),
        })
    }
}

/// Reads any word: a known one, or one to be kept.
///
/// # Errors
/// When it is no word.
#[doc(hidden)]
pub fn any<'de, T: Known, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let read = |text: &str| T::find(text).or_else(|| Word::new(text).map(T::other));
    deserializer.deserialize_str(WordVisitor { read, names: &[], kind: PhantomData })
}

/// An enum of words.
pub trait Known: Copy + fmt::Display {
    /// The names of all words that are known.
    const NAMES: &'static [&'static str];

    /// The known word of that name.
    fn find(name: &str) -> Option<Self>;

    /// One that is not known.
    fn other(word: Word) -> Self;

    /// Whether this one is known.
    fn is_known(&self) -> bool;
}

/// Reads a word of a request: one that is known. Others are not kept, so that no caller can fill up the memory.
///
/// # Errors
/// When it is not known.
pub fn known<'de, T: Known, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(WordVisitor { read: T::find, names: T::NAMES, kind: PhantomData })
}

/// The same for a list of words.
///
/// # Errors
/// When one of them is not known.
pub fn all_known<'de, T: Known, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct KnownWord<T>(T);
    impl<'de, T: Known> Deserialize<'de> for KnownWord<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            known(deserializer).map(KnownWord)
        }
    }
    Ok(Vec::<KnownWord<T>>::deserialize(deserializer)?.into_iter().map(|KnownWord(word)| word).collect())
}

/// An enum of words: its variants with their names, and `Other` for what only a newer version knows. It reads, shows
/// and writes any word.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $visibility:vis enum $Name:ident {
        $($(#[$doc:meta])+ $Variant:ident = $name:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $visibility enum $Name {
            $($(#[$doc])+ $Variant,)+
            /// A word that only a newer version knows.
            Other($crate::word::Word),
        }

        impl $Name {
            /// All that are known, in their order.
            $visibility const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The word as it is written.
            $visibility fn as_str(&self) -> &'static str {
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

            fn find(name: &str) -> Option<Self> {
                Self::parse(name)
            }

            fn other(word: $crate::word::Word) -> Self {
                Self::Other(word)
            }

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
                $crate::word::any(deserializer)
            }
        }
    };
}

/// The schema of a word of a request: one that is known.
#[cfg(feature = "openapi")]
pub(crate) fn known_schema<T: Known>() -> utoipa::openapi::schema::Schema {
    let word = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String);
    word.enum_values(Some(T::NAMES.iter().copied())).into()
}

/// The same where `null` stands for none.
#[cfg(feature = "openapi")]
pub(crate) fn maybe_known_schema<T: Known>() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{SchemaType, Type};
    let word =
        utoipa::openapi::ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let names = T::NAMES.iter().map(|name| serde_json::Value::from(*name));
    word.enum_values(Some(names.chain([serde_json::Value::Null]))).into()
}

/// A schema of words as answers show them: those that are known are examples, since a newer version has more.
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
                        .description(Some("A newer version may have more words than these."))
                        .examples(<$Name as $crate::word::Known>::NAMES.iter().copied())
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
        for json in ["\"\"", "7", "null", &format!("\"{}\"", "x".repeat(MAX_WORD_BYTES + 1))] {
            assert!(read::<Colour>(json).is_err(), "{json}");
        }
        assert!(read::<Colour>(&format!("\"{}\"", "x".repeat(MAX_WORD_BYTES))).is_ok());
    }

    #[test]
    fn a_request_must_name_a_known_one() {
        let request: Request = read("{\"one\": \"red\", \"many\": [\"green\"]}").unwrap();
        assert_eq!((request.one, request.many), (Colour::Red, vec![Colour::Green]));
        for json in ["{\"one\": \"blue\"}", "{\"one\": \"red\", \"many\": [\"red\", \"blue\"]}"] {
            let error = read::<Request>(json).unwrap_err().to_string();
            assert!(error.contains("unknown variant `blue`") && error.contains("`red`"), "{error}");
            let words = UNKNOWN_WORDS.read().unwrap();
            assert!(!words.as_ref().is_some_and(|words| words.contains("blue")), "it is not kept");
        }
    }
}
