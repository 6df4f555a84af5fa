//! Packets whose payload lies elsewhere: how bytes become packets, and packets bytes.

use zerocopy::FromZeros;

use super::bth::BthBytes;
use super::deth::DethBytes;
use super::headers::{Headers, Reader, Trailer, ICRC_LEN};
use super::opcode::Opcode;
use super::{Bth, Deth, EmitError, Encapsulation, Operation, Packet, ParseError};

/// The most payload that a packet can have: the largest path MTU.
pub const MAX_PAYLOAD: usize = 4096;

/// A packet whose payload is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketView<'a> {
    /// The base transport header.
    pub bth: Bth,
    /// Of datagrams only.
    pub deth: Option<Deth>,
    /// What it is for, with its extended headers.
    pub operation: Operation,
    /// The payload, without padding.
    pub payload: &'a [u8],
}

impl<'a> PacketView<'a> {
    /// Reads a packet from the payload of a UDP datagram. Its CRC is skipped: [`Encapsulation::check`] looks at it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<PacketView<'a>, ParseError> {
        if bytes.len() % 4 != 0 {
            return Err(ParseError::Unaligned(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let header = reader.take::<BthBytes>()?;
        let (bth, opcode) = header.parse()?;
        let deth = match bth.service.is_datagram() {
            true => Some(reader.take::<DethBytes>()?.into()),
            false => None,
        };
        let operation = reader.operation(opcode)?;
        let pad = usize::from(header.pad());
        let payload = reader.until_trailer(pad)?;
        let len = payload.len();
        if len + pad > 0 && !opcode.has_payload() {
            let opcode = opcode.code(bth.service);
            return Err(ParseError::UnexpectedPayload { opcode, len: len + pad });
        }
        if len > MAX_PAYLOAD {
            return Err(ParseError::PayloadTooLong(len));
        }
        Ok(PacketView { bth, deth, operation, payload })
    }

    /// The packet, with a copy of its payload.
    pub fn to_packet(self) -> Packet {
        let PacketView { bth, deth, operation, payload } = self;
        Packet { bth, deth, operation, payload: payload.to_vec() }
    }

    /// The bytes in front of its payload.
    ///
    /// # Errors
    ///
    /// If its values contradict each other.
    pub fn headers(&self) -> Result<Headers, EmitError> {
        let opcode = self.opcode()?;
        Ok(self.headers_behind(BthBytes::new(&self.bth, opcode, self.pad())))
    }

    /// The bytes behind its payload, which is between these headers and them: padding and CRC.
    pub fn trailer(&self, encapsulation: &Encapsulation, headers: &Headers) -> Trailer {
        let mut trailer = Trailer::padding(self.pad());
        let icrc = encapsulation.icrc(headers.bth(), &[headers.extended(), self.payload, &trailer]);
        trailer.put_icrc(icrc);
        trailer
    }

    /// The whole payload of the UDP datagram.
    ///
    /// # Errors
    ///
    /// If its values contradict each other.
    pub fn to_bytes(&self, encapsulation: &Encapsulation) -> Result<Vec<u8>, EmitError> {
        let headers = self.headers()?;
        let trailer = self.trailer(encapsulation, &headers);
        Ok([&*headers, self.payload, &*trailer].concat())
    }

    /// How many bytes [`Self::to_bytes`] makes.
    pub fn wire_len(&self) -> usize {
        let pad = usize::from(self.pad());
        self.headers_behind(BthBytes::new_zeroed()).len() + self.payload.len() + pad + ICRC_LEN
    }

    fn headers_behind(&self, bth: BthBytes) -> Headers {
        let mut headers = Headers::new(bth);
        if let Some(deth) = &self.deth {
            headers.put(&DethBytes::from(deth));
        }
        headers.put_operation(&self.operation);
        headers
    }

    /// The opcode, if everything fits together.
    fn opcode(&self) -> Result<Opcode, EmitError> {
        let service = self.bth.service;
        let opcode = Opcode::of(&self.operation).filter(|opcode| opcode.is_of(service));
        let opcode = opcode.ok_or(EmitError::Operation(service))?;
        let len = self.payload.len();
        if self.deth.is_some() != service.is_datagram() {
            Err(EmitError::Datagram(service))
        } else if len > 0 && !opcode.has_payload() {
            Err(EmitError::UnexpectedPayload(len))
        } else if len > MAX_PAYLOAD {
            Err(EmitError::PayloadTooLong(len))
        } else {
            Ok(opcode)
        }
    }

    /// How many bytes fill the payload up to a multiple of four.
    fn pad(&self) -> u8 {
        (self.payload.len() as u8).wrapping_neg() & 0b11
    }
}
