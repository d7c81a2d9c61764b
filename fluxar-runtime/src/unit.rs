//! Tells a value that is nothing, as `()`, from an empty list: serde's CBOR writes both as an empty array.

use std::fmt;

use serde::ser::{Impossible, Serialize, Serializer};

/// Whether `value` is `()`, or a type that serde treats in the same way.
pub(crate) fn is_unit(value: &(impl Serialize + ?Sized)) -> bool {
    value.serialize(Probe).is_ok()
}

/// Takes units, and nothing else.
struct Probe;

#[derive(Debug)]
struct NotUnit;

impl fmt::Display for NotUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a unit")
    }
}

impl std::error::Error for NotUnit {}

impl serde::ser::Error for NotUnit {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Never = Impossible<(), NotUnit>;

macro_rules! scalars {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, _: $type) -> Result<(), NotUnit> {
            Err(NotUnit)
        }
    )*};
}

macro_rules! compounds {
    ($($method:ident($($type:ty),*) -> $compound:ident;)*) => {
        $(type $compound = Never;)*
        $(fn $method(self, $(_: $type),*) -> Result<Never, NotUnit> {
            Err(NotUnit)
        })*
    };
}

impl Serializer for Probe {
    type Ok = ();
    type Error = NotUnit;

    fn serialize_unit(self) -> Result<(), NotUnit> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotUnit> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotUnit> {
        value.serialize(self)
    }

    scalars! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64)
    }

    compounds! {
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct(&'static str, usize) -> SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }

    fn serialize_none(self) -> Result<(), NotUnit> {
        Err(NotUnit)
    }

    /// `Some(())` must not become `None`.
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), NotUnit> {
        Err(NotUnit)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), NotUnit> {
        Err(NotUnit)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotUnit> {
        Err(NotUnit)
    }
}
