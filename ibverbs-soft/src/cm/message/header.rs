//! The header that all management datagrams have.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Context, MessageBytes, ParseError};

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderBytes {
    base_version: u8,
    class: u8,
    class_version: u8,
    method: u8,
    status: U16,
    class_specific: U16,
    transaction: U64,
    attribute: U16,
    reserved: U16,
    modifier: U32,
}

const BASE_VERSION: u8 = 1;
/// Communication management.
const CLASS: u8 = 7;
const CLASS_VERSION: u8 = 2;
const SEND: u8 = 3;

impl HeaderBytes {
    pub(super) fn new(context: Context, attribute: u16) -> HeaderBytes {
        HeaderBytes {
            base_version: BASE_VERSION,
            class: CLASS,
            class_version: CLASS_VERSION,
            method: SEND,
            status: U16::ZERO,
            class_specific: U16::ZERO,
            transaction: context.transaction.into(),
            attribute: attribute.into(),
            reserved: U16::ZERO,
            modifier: context.modifier.into(),
        }
    }

    /// The context, and which message it is.
    pub(super) fn parse(bytes: &MessageBytes) -> Result<(Context, u16), ParseError> {
        let (header, _) =
            HeaderBytes::ref_from_prefix(bytes).map_err(|_| ParseError::Len(bytes.len()))?;
        let HeaderBytes { class, class_version: version, method, .. } = *header;
        if header.base_version != BASE_VERSION
            || (class, version, method) != (CLASS, CLASS_VERSION, SEND)
        {
            return Err(ParseError::Class { class, version, method });
        }
        let context =
            Context { transaction: header.transaction.get(), modifier: header.modifier.get() };
        Ok((context, header.attribute.get()))
    }
}
