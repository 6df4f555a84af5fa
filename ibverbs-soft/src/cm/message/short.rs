//! Messages that say nothing but which connection they are about: ready to use (RTU), and the reply to a request to end it (DREP).

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;

/// A message that says nothing but which connection it is about. Its private data is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// The number by which the sender knows the connection.
    pub local_id: u32,
    /// The number by which the receiver does.
    pub remote_id: u32,
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ShortBytes {
    local_id: U32,
    remote_id: U32,
    private_data: [u8; 224],
}

impl Layout for ShortBytes {}

impl From<&Short> for ShortBytes {
    fn from(it: &Short) -> ShortBytes {
        let Short { local_id, remote_id } = *it;
        ShortBytes {
            local_id: local_id.into(),
            remote_id: remote_id.into(),
            private_data: [0; 224],
        }
    }
}

impl From<&ShortBytes> for Short {
    fn from(bytes: &ShortBytes) -> Short {
        Short { local_id: bytes.local_id.get(), remote_id: bytes.remote_id.get() }
    }
}
