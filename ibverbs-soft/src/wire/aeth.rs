//! The acknowledgement extended transport header.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::u24::U24;
use super::ParseError;

/// The acknowledgement extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// What is acknowledged, and how.
    pub syndrome: Syndrome,
    /// The message sequence number: how many messages were completed. 24 bits.
    pub msn: u32,
}

/// How a request was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// It is acknowledged; the number is the encoded credit count (5 bits, 31: not counted).
    Ack(u8),
    /// The receiver is not ready; the number is the encoded time to wait (5 bits).
    RnrNak(u8),
    /// It is refused.
    Nak(NakCode),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NakCode {
    /// One or more packets before it are missing.
    SequenceError,
    /// The request is not valid.
    InvalidRequest,
    /// A key or its rights do not allow it.
    RemoteAccessError,
    /// The responder could not complete it.
    RemoteOperationalError,
    /// For reliable datagrams only.
    InvalidRdRequest,
}

const KIND: u8 = 0b1110_0000;
const ACK: u8 = 0b0000_0000;
const RNR_NAK: u8 = 0b0010_0000;
const NAK: u8 = 0b0110_0000;

impl Syndrome {
    /// The code: the kind in its upper three bits (the uppermost is reserved), a number in the lower five.
    const fn code(self) -> u8 {
        match self {
            Syndrome::Ack(credits) => ACK | credits & !KIND,
            Syndrome::RnrNak(timer) => RNR_NAK | timer & !KIND,
            Syndrome::Nak(NakCode::SequenceError) => NAK,
            Syndrome::Nak(NakCode::InvalidRequest) => NAK | 1,
            Syndrome::Nak(NakCode::RemoteAccessError) => NAK | 2,
            Syndrome::Nak(NakCode::RemoteOperationalError) => NAK | 3,
            Syndrome::Nak(NakCode::InvalidRdRequest) => NAK | 4,
        }
    }
}

impl TryFrom<u8> for Syndrome {
    type Error = ParseError;

    fn try_from(code: u8) -> Result<Syndrome, ParseError> {
        let number = code & !KIND;
        Ok(match (code & KIND, number) {
            (ACK, _) => Syndrome::Ack(number),
            (RNR_NAK, _) => Syndrome::RnrNak(number),
            (NAK, 0) => Syndrome::Nak(NakCode::SequenceError),
            (NAK, 1) => Syndrome::Nak(NakCode::InvalidRequest),
            (NAK, 2) => Syndrome::Nak(NakCode::RemoteAccessError),
            (NAK, 3) => Syndrome::Nak(NakCode::RemoteOperationalError),
            (NAK, 4) => Syndrome::Nak(NakCode::InvalidRdRequest),
            _ => return Err(ParseError::Syndrome(code)),
        })
    }
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AethBytes {
    syndrome: u8,
    msn: U24,
}

impl TryFrom<&AethBytes> for Aeth {
    type Error = ParseError;

    fn try_from(bytes: &AethBytes) -> Result<Aeth, ParseError> {
        Ok(Aeth { syndrome: bytes.syndrome.try_into()?, msn: bytes.msn.get() })
    }
}

impl From<&Aeth> for AethBytes {
    fn from(aeth: &Aeth) -> AethBytes {
        AethBytes { syndrome: aeth.syndrome.code(), msn: U24::new(aeth.msn) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syndrome_is_its_code_or_refused() {
        let mut reserved = 0;
        for code in 0..=u8::MAX {
            match Syndrome::try_from(code) {
                Ok(syndrome) => assert_eq!(syndrome.code(), code),
                Err(error) => {
                    assert_eq!(error, ParseError::Syndrome(code));
                    reserved += 1;
                }
            }
        }
        // All with one of the upper bits that are reserved, and the codes of refusals from 5 on.
        assert_eq!(reserved, 128 + 32 + 27);
    }
}
