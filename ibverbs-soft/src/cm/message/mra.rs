//! That a message has come, and that its answer will take a while (MRA).

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{About, Layout};

/// That a message has come, and that its answer will take a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mra {
    /// The number by which the sender knows the connection.
    pub local_id: u32,
    /// The number by which the receiver does.
    pub remote_id: u32,
    /// Which message has come.
    pub about: About,
    /// The encoded time that its answer may take: 5 bits.
    pub service_timeout: u8,
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MraBytes {
    local_id: U32,
    remote_id: U32,
    /// The message (2 bits), and 6 that are reserved.
    about: u8,
    /// The timeout (5 bits), and 3 that are reserved.
    service_timeout: u8,
    private_data: [u8; 222],
}

impl Layout for MraBytes {}

impl From<&Mra> for MraBytes {
    fn from(mra: &Mra) -> MraBytes {
        MraBytes {
            local_id: mra.local_id.into(),
            remote_id: mra.remote_id.into(),
            about: mra.about.bits(),
            service_timeout: mra.service_timeout << 3,
            private_data: [0; 222],
        }
    }
}

impl From<&MraBytes> for Mra {
    fn from(bytes: &MraBytes) -> Mra {
        Mra {
            local_id: bytes.local_id.get(),
            remote_id: bytes.remote_id.get(),
            about: About::of(bytes.about),
            service_timeout: bytes.service_timeout >> 3,
        }
    }
}
