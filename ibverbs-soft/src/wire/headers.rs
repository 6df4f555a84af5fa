//! The bytes around a payload: what stands in front of it and behind it, read and written piece by piece.

use std::ops::Deref;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::aeth::AethBytes;
use super::atomic_eth::AtomicEthBytes;
use super::bth::BthBytes;
use super::deth::DethBytes;
use super::opcode::Opcode;
use super::reth::RethBytes;
use super::srd::{FlowBytes, FragmentBytes, WriteBytes, WriteEndBytes};
use super::{Aeth, AtomicEth, Operation, ParseError, Position, Reth, Srd, SrdPart};

/// The bytes of an invariant CRC.
pub(super) const ICRC_LEN: usize = 4;

/// The bytes of a packet in front of its payload.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    bytes: HeaderBytes,
    /// How many bytes of extended headers there are.
    len: usize,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    bth: BthBytes,
    extended: [u8; MAX_EXTENDED],
}

/// The longest extended headers are those of a piece of a scalable reliable datagram, with immediate data.
const MAX_EXTENDED: usize =
    size_of::<DethBytes>() + size_of::<FlowBytes>() + size_of::<FragmentBytes>() + size_of::<U32>();

impl Headers {
    /// The most bytes that there are.
    pub const MAX: usize = size_of::<HeaderBytes>();

    /// No headers but the first.
    pub(super) fn new(bth: BthBytes) -> Headers {
        Headers { bytes: HeaderBytes { bth, extended: [0; MAX_EXTENDED] }, len: 0 }
    }

    /// The bytes of the base transport header.
    pub(super) fn bth(&self) -> &BthBytes {
        &self.bytes.bth
    }

    /// The bytes of the other headers.
    pub(super) fn extended(&self) -> &[u8] {
        &self.bytes.extended[..self.len]
    }

    /// Appends a header.
    pub(super) fn put(&mut self, header: &(impl IntoBytes + Immutable)) {
        let bytes = header.as_bytes();
        self.bytes.extended[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends the headers of an operation.
    pub(super) fn put_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Send { imm, invalidate, .. } => {
                self.put_number(*imm);
                self.put_number(*invalidate);
            }
            Operation::Write { reth, imm, .. } => {
                if let Some(reth) = reth {
                    self.put(&RethBytes::from(reth));
                }
                self.put_number(*imm);
            }
            Operation::ReadRequest(reth) => self.put(&RethBytes::from(reth)),
            Operation::ReadResponse { aeth: None, .. } => {}
            Operation::ReadResponse { aeth: Some(aeth), .. } | Operation::Acknowledge(aeth) => {
                self.put(&AethBytes::from(aeth));
            }
            Operation::AtomicAcknowledge { aeth, original } => {
                self.put(&AethBytes::from(aeth));
                self.put(&U64::new(*original));
            }
            Operation::CompareSwap(eth) | Operation::FetchAdd(eth) => {
                self.put(&AtomicEthBytes::from(eth));
            }
            Operation::Srd(srd) => self.put_srd(srd),
        }
    }

    fn put_srd(&mut self, srd: &Srd) {
        self.put(&FlowBytes::new(srd.flow, srd.floor));
        match srd.part {
            SrdPart::Fragment { message, offset, len, imm } => {
                self.put(&FragmentBytes::new(message, offset, len));
                self.put_number(imm);
            }
            SrdPart::Write { addr, rkey } => self.put(&WriteBytes::new(addr, rkey)),
            SrdPart::WriteEnd { len, imm } => self.put(&WriteEndBytes::new(len, imm)),
            SrdPart::Read(reth) => self.put(&RethBytes::from(&reth)),
            SrdPart::Data => {}
            SrdPart::Ack { done } => self.put(&U64::new(done)),
            SrdPart::Nak(syndrome) => self.put(&AethBytes::from(&Aeth { syndrome, msn: 0 })),
        }
    }

    /// Appends immediate data or a key, if there is one.
    fn put_number(&mut self, number: Option<u32>) {
        if let Some(number) = number {
            self.put(&U32::new(number));
        }
    }
}

impl Deref for Headers {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes.as_bytes()[..size_of::<BthBytes>() + self.len]
    }
}

/// The bytes of a packet behind its payload. There are none at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trailer {
    bytes: [u8; Trailer::MAX],
    len: usize,
}

impl Trailer {
    /// The most bytes that there are.
    pub const MAX: usize = 3 + ICRC_LEN;

    /// Padding alone.
    pub(super) fn padding(pad: u8) -> Trailer {
        Trailer { bytes: [0; Trailer::MAX], len: usize::from(pad) }
    }

    /// Appends the CRC, which is the only field whose lower bytes come first.
    pub(super) fn put_icrc(&mut self, icrc: u32) {
        self.bytes[self.len..][..ICRC_LEN].copy_from_slice(&icrc.to_le_bytes());
        self.len += ICRC_LEN;
    }
}

impl Deref for Trailer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What of a packet has not been read.
pub(super) struct Reader<'a> {
    len: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { len: bytes.len(), rest: bytes }
    }

    /// Reads a header.
    pub(super) fn take<T>(&mut self) -> Result<&'a T, ParseError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let (header, rest) =
            T::ref_from_prefix(self.rest).map_err(|_| self.too_short(size_of::<T>()))?;
        self.rest = rest;
        Ok(header)
    }

    /// Reads the headers of an operation.
    pub(super) fn operation(&mut self, opcode: Opcode) -> Result<Operation, ParseError> {
        use Position::{First, Last, Middle, Only};
        let send = |position| Operation::Send { position, imm: None, invalidate: None };
        let response = |position, aeth| Operation::ReadResponse { position, aeth };
        Ok(match opcode {
            Opcode::SendFirst => send(First),
            Opcode::SendMiddle => send(Middle),
            Opcode::SendLast => send(Last),
            Opcode::SendOnly => send(Only),
            Opcode::SendLastWithImmediate => self.send_with_immediate(Last)?,
            Opcode::SendOnlyWithImmediate => self.send_with_immediate(Only)?,
            Opcode::SendLastWithInvalidate => self.send_with_invalidate(Last)?,
            Opcode::SendOnlyWithInvalidate => self.send_with_invalidate(Only)?,
            Opcode::WriteFirst => {
                Operation::Write { position: First, reth: Some(self.reth()?), imm: None }
            }
            Opcode::WriteMiddle => Operation::Write { position: Middle, reth: None, imm: None },
            Opcode::WriteLast => Operation::Write { position: Last, reth: None, imm: None },
            Opcode::WriteLastWithImmediate => {
                Operation::Write { position: Last, reth: None, imm: Some(self.number()?) }
            }
            Opcode::WriteOnly => {
                Operation::Write { position: Only, reth: Some(self.reth()?), imm: None }
            }
            Opcode::WriteOnlyWithImmediate => {
                let reth = Some(self.reth()?);
                Operation::Write { position: Only, reth, imm: Some(self.number()?) }
            }
            Opcode::ReadRequest => Operation::ReadRequest(self.reth()?),
            Opcode::ReadResponseFirst => response(First, Some(self.aeth()?)),
            Opcode::ReadResponseMiddle => response(Middle, None),
            Opcode::ReadResponseLast => response(Last, Some(self.aeth()?)),
            Opcode::ReadResponseOnly => response(Only, Some(self.aeth()?)),
            Opcode::Acknowledge => Operation::Acknowledge(self.aeth()?),
            Opcode::AtomicAcknowledge => {
                let aeth = self.aeth()?;
                Operation::AtomicAcknowledge { aeth, original: self.take::<U64>()?.get() }
            }
            Opcode::CompareSwap => Operation::CompareSwap(self.atomic_eth()?),
            Opcode::FetchAdd => Operation::FetchAdd(self.atomic_eth()?),
            Opcode::SrdFragment
            | Opcode::SrdFragmentWithImmediate
            | Opcode::SrdWrite
            | Opcode::SrdWriteEnd
            | Opcode::SrdRead
            | Opcode::SrdData
            | Opcode::SrdAck
            | Opcode::SrdNak => {
                let flow = self.take::<FlowBytes>()?;
                Operation::Srd(flow.with(self.srd_part(opcode)?))
            }
        })
    }

    /// Reads what comes after the flow.
    fn srd_part(&mut self, opcode: Opcode) -> Result<SrdPart, ParseError> {
        Ok(match opcode {
            Opcode::SrdFragment => self.take::<FragmentBytes>()?.with(None),
            Opcode::SrdFragmentWithImmediate => {
                let fragment = self.take::<FragmentBytes>()?;
                fragment.with(Some(self.number()?))
            }
            Opcode::SrdWrite => self.take::<WriteBytes>()?.part(),
            Opcode::SrdWriteEnd => self.take::<WriteEndBytes>()?.part(),
            Opcode::SrdRead => SrdPart::Read(self.reth()?),
            Opcode::SrdAck => SrdPart::Ack { done: self.take::<U64>()?.get() },
            Opcode::SrdNak => SrdPart::Nak(self.aeth()?.syndrome),
            _ => SrdPart::Data,
        })
    }

    /// Everything but the last bytes: the padding, and the CRC.
    pub(super) fn until_trailer(&self, pad: usize) -> Result<&'a [u8], ParseError> {
        let len = self.rest.len().checked_sub(pad + ICRC_LEN);
        len.map(|len| &self.rest[..len]).ok_or_else(|| self.too_short(pad))
    }

    fn send_with_immediate(&mut self, position: Position) -> Result<Operation, ParseError> {
        Ok(Operation::Send { position, imm: Some(self.number()?), invalidate: None })
    }

    fn send_with_invalidate(&mut self, position: Position) -> Result<Operation, ParseError> {
        Ok(Operation::Send { position, imm: None, invalidate: Some(self.number()?) })
    }

    fn reth(&mut self) -> Result<Reth, ParseError> {
        self.take::<RethBytes>().map(Reth::from)
    }

    fn atomic_eth(&mut self) -> Result<AtomicEth, ParseError> {
        self.take::<AtomicEthBytes>().map(AtomicEth::from)
    }

    fn aeth(&mut self) -> Result<Aeth, ParseError> {
        self.take::<AethBytes>()?.try_into()
    }

    /// Reads immediate data or a key.
    fn number(&mut self) -> Result<u32, ParseError> {
        self.take::<U32>().map(|number| number.get())
    }

    /// The error if there is no room for this many bytes and the CRC.
    fn too_short(&self, more: usize) -> ParseError {
        let needed = self.len - self.rest.len() + more + ICRC_LEN;
        ParseError::TooShort { len: self.len, needed }
    }
}
