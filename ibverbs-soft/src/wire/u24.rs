//! Numbers of 24 bits, as they stand in headers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The bytes of a number below 2^24.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub(crate) struct U24([u8; 3]);

impl U24 {
    /// The lower 24 bits of a number.
    pub(crate) const fn new(number: u32) -> U24 {
        let [_, high, middle, low] = number.to_be_bytes();
        U24([high, middle, low])
    }

    /// The number.
    pub(crate) const fn get(self) -> u32 {
        let [high, middle, low] = self.0;
        u32::from_be_bytes([0, high, middle, low])
    }
}
