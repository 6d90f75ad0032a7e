//! Parts of a document that are written whole, and what a newer version has put into them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bson::{RawDocument, RawDocumentBuf};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// A part of a document, with the fields that only a newer version knows. They are written back with it.
///
/// A change writes the difference of two stored forms, field by field of the whole document, so unknown fields at its
/// top stay by themselves. An attempt or a lease is one such field and is written whole.
#[derive(Clone, PartialEq, Default)]
pub struct Kept<T> {
    part: T,
    /// Rarely there, so it takes one word where it is not.
    unknown: Option<Box<RawDocumentBuf>>,
}

impl<T> From<T> for Kept<T> {
    fn from(part: T) -> Self {
        Self { part, unknown: None }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.part
    }
}

impl<T> Kept<T> {
    /// The part alone.
    pub fn into_part(self) -> T {
        self.part
    }

    /// The same with another part in place of this one.
    #[must_use]
    pub fn with(self, part: T) -> Self {
        Self { part, ..self }
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.fmt(f)
    }
}

impl<T: Serialize> Serialize for Kept<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(unknown) = &self.unknown else { return self.part.serialize(serializer) };
        let mut whole = bson::serialize_to_raw_document_buf(&self.part).map_err(ser::Error::custom)?;
        for element in unknown.iter() {
            let (key, value) = element.map_err(ser::Error::custom)?;
            whole.append(key, value);
        }
        whole.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Kept<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = RawDocumentBuf::deserialize(deserializer)?;
        let part = bson::deserialize_from_slice(whole.as_bytes()).map_err(de::Error::custom)?;
        let unknown = unknown_fields::<T>(&whole).map_err(de::Error::custom)?;
        Ok(Self { part, unknown })
    }
}

fn unknown_fields<T: DeserializeOwned>(
    whole: &RawDocument,
) -> bson::error::Result<Option<Box<RawDocumentBuf>>> {
    let known = fields_of::<T>();
    let mut unknown: Option<Box<RawDocumentBuf>> = None;
    for element in whole {
        let (key, value) = element?;
        if !known.contains(&key.as_str()) {
            unknown.get_or_insert_default().append(key, value);
        }
    }
    Ok(unknown)
}

/// The names of a struct's fields. `serde`'s derived code tells them to whatever it is to be read from.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Names(&'static [&'static str]);

    /// What a struct answers when it is to be read from nothing: its fields, as an error.
    #[derive(Debug)]
    struct Told(&'static [&'static str]);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the fields of a struct")
        }
    }

    impl std::error::Error for Told {}

    impl de::Error for Told {
        fn custom<M: fmt::Display>(_: M) -> Self {
            Self(&[])
        }
    }

    impl<'de> Deserializer<'de> for Names {
        type Error = Told;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Told> {
            Err(Told(self.0))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Told> {
            Err(Told(fields))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    T::deserialize(Names(&[])).err().map_or(&[], |told| told.0)
}

#[cfg(test)]
mod tests {
    use bson::{doc, rawdoc};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner {
        word: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Outer {
        number: i32,
        #[serde(rename = "in")]
        inner: Option<Kept<Inner>>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Whole {
        parts: Vec<Kept<Outer>>,
    }

    #[test]
    fn the_fields_of_a_struct_are_known_by_their_stored_names() {
        assert_eq!(fields_of::<Outer>(), ["number", "in"]);
        assert_eq!(fields_of::<crate::task::LeaseRecord>()[0], "token");
    }

    #[test]
    fn unknown_fields_are_written_back_at_every_depth() {
        let stored = rawdoc! { "parts": [
            { "number": 1, "in": { "word": "a", "later": [1, { "b": 2 }] }, "newer": "x" },
            { "number": 2 },
        ] };
        let mut read: Whole = bson::deserialize_from_slice(stored.as_bytes()).unwrap();
        read.parts[0].number = 7;
        read.parts[0].inner.as_mut().unwrap().word = "z".to_owned();
        let written = bson::serialize_to_document(&read).unwrap();
        let expected = doc! { "parts": [
            { "number": 7, "in": { "word": "z", "later": [1, { "b": 2 }] }, "newer": "x" },
            { "number": 2, "in": null },
        ] };
        assert_eq!(written, expected);
        assert_eq!(read.parts[1], Outer { number: 2, inner: None }.into());
    }
}
