//! A property's value in the types of D-Bus that properties have.

use rustbus::wire::errors::MarshalError;
use rustbus::wire::marshal::MarshalContext;
use rustbus::wire::marshal::traits::SignatureBuffer;
use rustbus::{Marshal, Signature, signature};

/// Names and values.
pub(crate) type Properties = Vec<(String, Value)>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Byte(u8),
    Short(i16),
    UShort(u16),
    Int(i32),
    UInt(u32),
    Long(i64),
    ULong(u64),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
    Pairs(Vec<(String, String)>),
}

impl Signature for Value {
    fn signature() -> signature::Type {
        signature::Type::Container(signature::Container::Variant)
    }

    fn alignment() -> usize {
        1
    }

    fn sig_str(buffer: &mut SignatureBuffer) {
        buffer.push_static("v");
    }

    fn has_sig(signature: &str) -> bool {
        signature.starts_with('v')
    }
}

impl Marshal for Value {
    fn marshal(&self, context: &mut MarshalContext<'_, '_>) -> Result<(), MarshalError> {
        match self {
            Self::Flag(value) => value.marshal_as_variant(context),
            Self::Text(value) => value.marshal_as_variant(context),
            Self::Texts(value) => value.marshal_as_variant(context),
            Self::Byte(value) => value.marshal_as_variant(context),
            Self::Short(value) => value.marshal_as_variant(context),
            Self::UShort(value) => value.marshal_as_variant(context),
            Self::Int(value) => value.marshal_as_variant(context),
            Self::UInt(value) => value.marshal_as_variant(context),
            Self::Long(value) => value.marshal_as_variant(context),
            Self::ULong(value) => value.marshal_as_variant(context),
            Self::Bytes(value) => value.marshal_as_variant(context),
            Self::Numbers(value) => value.marshal_as_variant(context),
            Self::Pairs(value) => value.marshal_as_variant(context),
        }
    }
}
