//! The invariant CRC: over what no router and no switch on the way changes.
//!
//! It is the CRC of Ethernet, over 8 bytes of ones (in place of the header of InfiniBand's links), the headers of IP and UDP, and
//! the packet. Fields that may change on the way count as ones.

use crc32fast::Hasher;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::bth::BthBytes;
use super::encapsulation::{Encapsulation, IpBytes};
use super::headers::{Headers, ICRC_LEN};
use super::MAX_PAYLOAD;

/// Why a CRC does not confirm a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IcrcError {
    /// No packet has this length.
    #[error("no packet is {0} bytes long")]
    Length(usize),
    /// The CRC is another one, whatever the identification of IPv4.
    #[error("the invariant CRC is {found:#010x}, not {expected:#010x}")]
    Mismatch {
        /// What it should be, with the identification that was expected.
        expected: u32,
        /// What it is.
        found: u32,
    },
}

/// The CRC of 8 bytes of ones.
const ONES: u32 = 0x2144_df1c;

impl Encapsulation {
    /// Whether a CRC confirms a packet that came so, and the identification that it has travelled with.
    ///
    /// Programs do not see the identification in the IPv4 header of what they receive, but the CRC covers it. If it does not fit
    /// the one that is expected, it is computed which one would fit. So one of 2^16 damaged packets passes, not one of 2^32.
    ///
    /// # Errors
    ///
    /// If the length is not one of a packet, or if the CRC is wrong for every identification.
    pub fn check(&self, packet: &[u8]) -> Result<u16, IcrcError> {
        let length = IcrcError::Length(packet.len());
        let (covered, found) = packet.split_last_chunk::<ICRC_LEN>().ok_or(length)?;
        let (bth, rest) = BthBytes::ref_from_prefix(covered).map_err(|_| length)?;
        let quotient = *QUOTIENTS.get(packet.len() / 4).ok_or(length)?;
        if packet.len() % 4 != 0 {
            return Err(length);
        }
        let found = u32::from_le_bytes(*found);
        let expected = self.icrc(bth, &[rest]);
        if found == expected {
            return Ok(self.identification);
        }
        let difference = multiply(found ^ expected, quotient);
        let is_v4 = matches!(self.ip(packet.len()), IpBytes::V4(_));
        if !is_v4 || difference & 0xffff != 0 {
            return Err(IcrcError::Mismatch { expected, found });
        }
        // Both bytes begin with the lowest bit, and so does the header's first.
        let difference = u16::from_be_bytes(((difference >> 16) as u16).to_le_bytes());
        Ok(self.identification ^ difference)
    }

    /// The CRC of a packet that travels so: its base transport header, and what comes after it, in parts.
    pub(super) fn icrc(&self, bth: &BthBytes, rest: &[&[u8]]) -> u32 {
        let len = rest.iter().map(|part| part.len()).sum::<usize>() + size_of_val(bth) + ICRC_LEN;
        let mut hasher = Hasher::new_with_initial(ONES);
        match self.ip(len) {
            IpBytes::V4(mut header) => {
                header.type_of_service = u8::MAX;
                header.time_to_live = u8::MAX;
                header.checksum = U16::MAX_VALUE;
                hasher.update(header.as_bytes());
            }
            IpBytes::V6(mut header) => {
                // All but the version, which is in the upper four bits.
                header.version_class_flow |= U32::new(u32::MAX >> 4);
                header.hop_limit = u8::MAX;
                hasher.update(header.as_bytes());
            }
        }
        let mut udp = self.udp(len);
        udp.checksum = U16::MAX_VALUE;
        hasher.update(udp.as_bytes());
        hasher.update(bth.with_ones().as_bytes());
        for part in rest {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

// A CRC is a remainder of polynomials over GF(2): adding `d` to the identification, with `n` bytes behind it, adds
// d * x^(8 n + 32) to the CRC, modulo the CRC's polynomial. Divided by that power, the difference between two CRCs is `d` itself
// if it comes from the identification, and then it has a degree below 16; each other difference gives each polynomial
// below degree 32 equally often.

/// The CRC's polynomial without x^32; the highest bit is the coefficient of 1, the lowest that of x^31.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// The longest packet, in words.
const MAX_WORDS: usize = (Headers::MAX + MAX_PAYLOAD + ICRC_LEN) / 4;

/// What the difference is multiplied by, by the words of a packet: x^-(8 n + 32).
static QUOTIENTS: [u32; MAX_WORDS + 1] = {
    // Behind the identification come 14 bytes of IP, 8 of UDP, and the packet without its CRC, which is 32 bits itself.
    let mut quotient = ONE;
    let mut bit = 0;
    while bit < 8 * (14 + 8) {
        quotient = divide_by_x(quotient);
        bit += 1;
    }
    let mut quotients = [quotient; MAX_WORDS + 1];
    let mut word = 1;
    while word < quotients.len() {
        let mut bit = 0;
        while bit < 32 {
            quotient = divide_by_x(quotient);
            bit += 1;
        }
        quotients[word] = quotient;
        word += 1;
    }
    quotients
};

/// The inverse of [`multiply_by_x`].
const fn divide_by_x(a: u32) -> u32 {
    if a & ONE == 0 {
        a << 1
    } else {
        (a ^ POLYNOMIAL) << 1 | 1
    }
}

const fn multiply_by_x(a: u32) -> u32 {
    let reduced = if a & 1 == 0 { 0 } else { POLYNOMIAL };
    a >> 1 ^ reduced
}

/// The product modulo the CRC's polynomial.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for power in 0..32 {
        if a << power & ONE != 0 {
            product ^= b;
        }
        b = multiply_by_x(b);
    }
    product
}

#[cfg(test)]
mod tests;
