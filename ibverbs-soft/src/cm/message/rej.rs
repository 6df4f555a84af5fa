//! The rejection (REJ).

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{About, Layout};

/// A rejection: there is no connection, or there is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rej {
    /// The number by which the sender knows the connection; 0 if it does not.
    pub local_id: u32,
    /// The number by which the receiver does; 0 if the sender does not know it.
    pub remote_id: u32,
    /// Which message is rejected.
    pub about: About,
    /// Why: see [`reason`](crate::cm::reason).
    pub reason: u16,
    /// What else there is to say: the GUID of the device that has given up.
    pub guid: Option<u64>,
    /// What the programs make of it.
    pub private_data: [u8; Rej::PRIVATE_DATA],
}

impl Rej {
    /// How much private data there is.
    pub const PRIVATE_DATA: usize = 148;
}

/// How much of other information there can be.
const INFORMATION: usize = 72;
const GUID: usize = size_of::<u64>();

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RejBytes {
    local_id: U32,
    remote_id: U32,
    /// The message (2 bits), and 6 that are reserved.
    about: u8,
    /// How many bytes of information there are (7 bits), and one that is reserved.
    information_len: u8,
    reason: U16,
    information: [u8; INFORMATION],
    private_data: [u8; Rej::PRIVATE_DATA],
}

impl Layout for RejBytes {}

impl From<&Rej> for RejBytes {
    fn from(rej: &Rej) -> RejBytes {
        let mut information = [0; INFORMATION];
        if let Some(guid) = rej.guid {
            information[..GUID].copy_from_slice(&guid.to_be_bytes());
        }
        RejBytes {
            local_id: rej.local_id.into(),
            remote_id: rej.remote_id.into(),
            about: rej.about.bits(),
            information_len: if rej.guid.is_some() { (GUID as u8) << 1 } else { 0 },
            reason: rej.reason.into(),
            information,
            private_data: rej.private_data,
        }
    }
}

impl From<&RejBytes> for Rej {
    fn from(bytes: &RejBytes) -> Rej {
        let has_guid = usize::from(bytes.information_len >> 1) == GUID;
        let guid = bytes.information.first_chunk().filter(|_| has_guid);
        Rej {
            local_id: bytes.local_id.get(),
            remote_id: bytes.remote_id.get(),
            about: About::of(bytes.about),
            reason: bytes.reason.get(),
            guid: guid.copied().map(u64::from_be_bytes),
            private_data: bytes.private_data,
        }
    }
}
