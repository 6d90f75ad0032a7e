//! Parts of a document that are written whole, and what a newer version has put into them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bson::raw::CString;
use bson::{Bson, RawBson, RawDocumentBuf};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer as _, MapAccess, Visitor};
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

    /// Bytes of the fields that only a newer version knows.
    pub fn unknown_bytes(&self) -> usize {
        self.unknown.as_ref().map_or(0, |unknown| unknown.as_bytes().len())
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
        struct Whole<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Whole<T> {
            type Value = Kept<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a document")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Kept<T>, A::Error> {
                let mut known = KnownFields { map, names: fields_of::<T>(), next: 0, unknown: None };
                let part = T::deserialize(MapAccessDeserializer::new(&mut known))?;
                Ok(Kept { part, unknown: known.unknown })
            }
        }
        deserializer.deserialize_map(Whole(PhantomData))
    }
}

/// The fields of a document that are known, while the others are put aside.
struct KnownFields<A> {
    map: A,
    names: &'static [&'static str],
    /// Where the next name is looked for first: fields mostly come in one order.
    next: usize,
    unknown: Option<Box<RawDocumentBuf>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for &mut KnownFields<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            let key = self.map.next_key_seed(Name { names: self.names, next: self.next })?;
            match key {
                None => return Ok(None),
                Some(Ok(place)) => {
                    self.next = place + 1;
                    return seed.deserialize(self.names[place].into_deserializer()).map(Some);
                }
                Some(Err(name)) => {
                    let value: Bson = self.map.next_value()?;
                    let value = RawBson::try_from(value).map_err(de::Error::custom)?;
                    let name = CString::try_from(name).map_err(de::Error::custom)?;
                    self.unknown.get_or_insert_default().append(name, value);
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a name as its place among those that are known, or as itself.
struct Name {
    names: &'static [&'static str],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let (before, after) = self.names.split_at(self.next.min(self.names.len()));
        let place = after.iter().position(|known| *known == name).map(|place| before.len() + place);
        Ok(place.or_else(|| before.iter().position(|known| *known == name)).ok_or_else(|| name.to_owned()))
    }
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
