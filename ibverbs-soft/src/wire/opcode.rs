//! The codes of operations.

use zerocopy::TryFromBytes;

use super::{Operation, ParseError, Position, Service, SrdPart};

/// The lower five bits of an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes)]
#[repr(u8)]
pub(super) enum Opcode {
    SendFirst = 0x00,
    SendMiddle = 0x01,
    SendLast = 0x02,
    SendLastWithImmediate = 0x03,
    SendOnly = 0x04,
    SendOnlyWithImmediate = 0x05,
    WriteFirst = 0x06,
    WriteMiddle = 0x07,
    WriteLast = 0x08,
    WriteLastWithImmediate = 0x09,
    WriteOnly = 0x0a,
    WriteOnlyWithImmediate = 0x0b,
    ReadRequest = 0x0c,
    ReadResponseFirst = 0x0d,
    ReadResponseMiddle = 0x0e,
    ReadResponseLast = 0x0f,
    ReadResponseOnly = 0x10,
    Acknowledge = 0x11,
    AtomicAcknowledge = 0x12,
    CompareSwap = 0x13,
    FetchAdd = 0x14,
    SendLastWithInvalidate = 0x16,
    SendOnlyWithInvalidate = 0x17,
    SrdFragment = 0x18,
    SrdFragmentWithImmediate = 0x19,
    SrdWrite = 0x1a,
    SrdWriteEnd = 0x1b,
    SrdRead = 0x1c,
    SrdData = 0x1d,
    SrdAck = 0x1e,
    SrdNak = 0x1f,
}

const RC: u8 = 0b000 << 5;
const UC: u8 = 0b001 << 5;
const UD: u8 = 0b011 << 5;
/// The specification leaves the codes from 0xc0 on to manufacturers.
const SRD: u8 = 0b110 << 5;
const SERVICE: u8 = 0b111 << 5;

impl Opcode {
    /// Which service and which operation a code is for.
    pub(super) fn parse(code: u8) -> Result<(Service, Opcode), ParseError> {
        let invalid = ParseError::Opcode(code);
        let service = match code & SERVICE {
            RC => Service::Rc,
            UC => Service::Uc,
            UD => Service::Ud,
            SRD => Service::Srd,
            _ => return Err(invalid),
        };
        match Opcode::try_read_from_bytes(&[code & !SERVICE]) {
            Ok(opcode) if opcode.is_of(service) => Ok((service, opcode)),
            _ => Err(invalid),
        }
    }

    /// The whole code.
    pub(super) const fn code(self, service: Service) -> u8 {
        let service = match service {
            Service::Rc => RC,
            Service::Uc => UC,
            Service::Ud => UD,
            Service::Srd => SRD,
        };
        service | self as u8
    }

    /// Whether the service has it.
    pub(super) const fn is_of(self, service: Service) -> bool {
        match service {
            Service::Rc => (self as u8) < Opcode::SrdFragment as u8,
            Service::Uc => self as u8 <= Opcode::WriteOnlyWithImmediate as u8,
            Service::Ud => matches!(self, Opcode::SendOnly | Opcode::SendOnlyWithImmediate),
            Service::Srd => self as u8 >= Opcode::SrdFragment as u8,
        }
    }

    /// What says this operation: nothing if its values contradict each other.
    pub(super) const fn of(operation: &Operation) -> Option<Opcode> {
        use Position::{First, Last, Middle, Only};
        Some(match *operation {
            Operation::Send { position, imm, invalidate } => {
                match (position, imm.is_some(), invalidate.is_some()) {
                    (First, false, false) => Opcode::SendFirst,
                    (Middle, false, false) => Opcode::SendMiddle,
                    (Last, false, false) => Opcode::SendLast,
                    (Last, true, false) => Opcode::SendLastWithImmediate,
                    (Last, false, true) => Opcode::SendLastWithInvalidate,
                    (Only, false, false) => Opcode::SendOnly,
                    (Only, true, false) => Opcode::SendOnlyWithImmediate,
                    (Only, false, true) => Opcode::SendOnlyWithInvalidate,
                    _ => return None,
                }
            }
            Operation::Write { position, reth, imm } => {
                match (position, reth.is_some(), imm.is_some()) {
                    (First, true, false) => Opcode::WriteFirst,
                    (Middle, false, false) => Opcode::WriteMiddle,
                    (Last, false, false) => Opcode::WriteLast,
                    (Last, false, true) => Opcode::WriteLastWithImmediate,
                    (Only, true, false) => Opcode::WriteOnly,
                    (Only, true, true) => Opcode::WriteOnlyWithImmediate,
                    _ => return None,
                }
            }
            Operation::ReadRequest(_) => Opcode::ReadRequest,
            Operation::ReadResponse { position, aeth } => match (position, aeth.is_some()) {
                (First, true) => Opcode::ReadResponseFirst,
                (Middle, false) => Opcode::ReadResponseMiddle,
                (Last, true) => Opcode::ReadResponseLast,
                (Only, true) => Opcode::ReadResponseOnly,
                _ => return None,
            },
            Operation::Acknowledge(_) => Opcode::Acknowledge,
            Operation::AtomicAcknowledge { .. } => Opcode::AtomicAcknowledge,
            Operation::CompareSwap(_) => Opcode::CompareSwap,
            Operation::FetchAdd(_) => Opcode::FetchAdd,
            Operation::Srd(srd) => match srd.part {
                SrdPart::Fragment { imm: None, .. } => Opcode::SrdFragment,
                SrdPart::Fragment { imm: Some(_), .. } => Opcode::SrdFragmentWithImmediate,
                SrdPart::Write { .. } => Opcode::SrdWrite,
                SrdPart::WriteEnd { .. } => Opcode::SrdWriteEnd,
                SrdPart::Read(_) => Opcode::SrdRead,
                SrdPart::Data => Opcode::SrdData,
                SrdPart::Ack { .. } => Opcode::SrdAck,
                SrdPart::Nak(_) => Opcode::SrdNak,
            },
        })
    }

    /// Whether a payload may come with it.
    pub(super) const fn has_payload(self) -> bool {
        !matches!(
            self,
            Opcode::ReadRequest
                | Opcode::Acknowledge
                | Opcode::AtomicAcknowledge
                | Opcode::CompareSwap
                | Opcode::FetchAdd
                | Opcode::SrdWriteEnd
                | Opcode::SrdRead
                | Opcode::SrdAck
                | Opcode::SrdNak
        )
    }
}
