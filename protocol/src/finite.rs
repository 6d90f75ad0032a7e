//! Finds numbers that JSON does not know: `serde_json` would write them as `null`, and the value would be lost in silence.

use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

type Checked = Result<(), serde_json::Error>;

/// Whether JSON can hold every number of `value`.
///
/// # Errors
/// When one is NaN or infinite.
pub(crate) fn check<T: Serialize + ?Sized>(value: &T) -> Checked {
    value.serialize(FiniteNumbers)
}

/// Writes nothing, and fails at a number that is NaN or infinite.
#[derive(Clone, Copy)]
struct FiniteNumbers;

/// Methods for values that are no numbers, or numbers that are always finite.
macro_rules! nothing_to_check {
    ($($method:ident($($value:ty),*)),* $(,)?) => {
        $(fn $method(self, $(_: $value),*) -> Checked {
            Ok(())
        })*
    };
}

/// Methods that begin a value with others in it.
macro_rules! compound {
    ($($method:ident($($argument:ty),*) -> $kind:ident),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Result<Self::$kind, Self::Error> {
            Ok(self)
        })*
    };
}

impl Serializer for FiniteNumbers {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    nothing_to_check! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
        serialize_none(), serialize_unit(), serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    }

    compound! {
        serialize_seq(Option<usize>) -> SerializeSeq,
        serialize_tuple(usize) -> SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant,
        serialize_map(Option<usize>) -> SerializeMap,
        serialize_struct(&'static str, usize) -> SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant,
    }

    fn serialize_f32(self, number: f32) -> Checked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Checked {
        if number.is_finite() {
            Ok(())
        } else {
            Err(serde_json::Error::custom(format_args!("{number} is no number that JSON knows")))
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Checked {
        value.serialize(self)
    }
}

/// The traits of values with others in it, each with a method that takes the next one.
macro_rules! values {
    ($($kind:ident::$method:ident($($name:ty)?)),* $(,)?) => {
        $(impl $kind for FiniteNumbers {
            type Ok = ();
            type Error = serde_json::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Checked {
                value.serialize(*self)
            }

            fn end(self) -> Checked {
                Ok(())
            }
        })*
    };
}

values! {
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str),
}

impl SerializeMap for FiniteNumbers {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        value.serialize(*self)
    }

    fn end(self) -> Checked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Nothing,
        One(f64),
        Two(f64, f32),
        Named { size: Option<f64> },
    }

    #[derive(Serialize)]
    struct Pair(Shape, f64);

    #[test]
    fn what_json_can_hold_passes() {
        let raw = crate::Json::from_text("[1e400, null]".to_owned()).expect("JSON");
        let values = BTreeMap::from([("a", Some(0.5)), ("b", None)]);
        assert!(check(&(1_u128, f64::MAX, "text", [1_i8], values, Pair(Shape::Nothing, 0.0), raw)).is_ok());
    }

    #[test]
    fn what_json_cannot_hold_is_found_wherever_it_is() {
        assert!(check(&f64::NAN).is_err_and(|error| error.to_string().contains("NaN")));
        assert!(check(&f32::INFINITY).is_err());
        assert!(check(&[Some(f64::NEG_INFINITY)]).is_err());
        assert!(check(&BTreeMap::from([("a", (1, f64::NAN))])).is_err());
        assert!(check(&Shape::One(f64::NAN)).is_err());
        assert!(check(&Shape::Two(0.0, f32::NAN)).is_err());
        assert!(check(&Shape::Named { size: Some(f64::NAN) }).is_err());
        assert!(check(&Pair(Shape::Nothing, f64::NAN)).is_err());
    }
}
