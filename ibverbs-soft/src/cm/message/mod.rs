//! The messages of the connection manager: management datagrams of 256 bytes, of which 232 are the message's own.
//!
//! Names and numbers are those of the InfiniBand Architecture Specification, volume 1, chapter 12.

mod dreq;
mod header;
mod mra;
mod path;
mod rej;
mod rep;
mod req;
mod short;
mod sidr_rep;
mod sidr_req;
#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use dreq::Dreq;
pub use mra::Mra;
pub use path::PathRecord;
pub use rej::Rej;
pub use rep::Rep;
pub use req::Req;
pub use short::Short;
pub use sidr_rep::SidrRep;
pub use sidr_req::SidrReq;

use header::HeaderBytes;

/// How long every message is.
pub const MESSAGE_LEN: usize = 256;

/// How much of it is the message's own.
const DATA_LEN: usize = MESSAGE_LEN - size_of::<HeaderBytes>();

/// The bytes of a message.
pub type MessageBytes = [u8; MESSAGE_LEN];

/// What a message is about that answers another: which one it rejects, or asks to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A request.
    Req,
    /// A reply.
    Rep,
    /// Something else.
    Other,
}

impl About {
    /// In the upper two bits of a byte.
    fn bits(self) -> u8 {
        match self {
            About::Req => 0,
            About::Rep => 1 << 6,
            About::Other => 2 << 6,
        }
    }

    fn of(byte: u8) -> About {
        match byte >> 6 {
            0 => About::Req,
            1 => About::Rep,
            _ => About::Other,
        }
    }
}

/// What comes with every message, beside the message itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The transaction: the same in all messages that set one connection up.
    pub transaction: u64,
    /// The modifier of the attribute. Requests and replies carry options of vendors there.
    pub modifier: u32,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request for a connection.
    Req(Box<Req>),
    /// The reply that accepts it.
    Rep(Box<Rep>),
    /// The confirmation of the reply: ready to use.
    Rtu(Short),
    /// A rejection.
    Rej(Box<Rej>),
    /// That a request or reply has come, and that its answer will take a while.
    Mra(Mra),
    /// A request to end the connection.
    Dreq(Dreq),
    /// The reply to that.
    Drep(Short),
    /// A question for the queue pair of a service of datagrams.
    SidrReq(Box<SidrReq>),
    /// The answer to that.
    SidrRep(Box<SidrRep>),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Management datagrams have one length.
    #[error("{0} bytes are not the 256 of a management datagram")]
    Len(usize),
    /// It is a management datagram of another class, version or method.
    #[error("class {class:#04x} of version {version}, method {method:#04x}: not the connection manager's")]
    Class {
        /// The class.
        class: u8,
        /// Its version.
        version: u8,
        /// The method.
        method: u8,
    },
    /// There is no such message here.
    #[error("attribute {0:#06x} is unknown")]
    Attribute(u16),
}

const REQ: u16 = 0x10;
const MRA: u16 = 0x11;
const REJ: u16 = 0x12;
const REP: u16 = 0x13;
const RTU: u16 = 0x14;
const DREQ: u16 = 0x15;
const DREP: u16 = 0x16;
const SIDR_REQ: u16 = 0x17;
const SIDR_REP: u16 = 0x18;

/// The bytes of a kind of message, behind the header.
trait Layout: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Sized {
    const FITS: () = assert!(size_of::<Self>() == DATA_LEN);
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes. Values that mean nothing are left to whoever uses them.
    pub fn parse(bytes: &[u8]) -> Result<(Context, Message), ParseError> {
        let Ok(bytes) = <&MessageBytes>::try_from(bytes) else {
            return Err(ParseError::Len(bytes.len()));
        };
        let (context, attribute) = HeaderBytes::parse(bytes)?;
        let message = match attribute {
            REQ => Message::Req(Box::new(view::<req::ReqBytes>(bytes).into())),
            MRA => Message::Mra(view::<mra::MraBytes>(bytes).into()),
            REJ => Message::Rej(Box::new(view::<rej::RejBytes>(bytes).into())),
            REP => Message::Rep(Box::new(view::<rep::RepBytes>(bytes).into())),
            RTU => Message::Rtu(view::<short::ShortBytes>(bytes).into()),
            DREQ => Message::Dreq(view::<dreq::DreqBytes>(bytes).into()),
            DREP => Message::Drep(view::<short::ShortBytes>(bytes).into()),
            SIDR_REQ => Message::SidrReq(Box::new(view::<sidr_req::SidrReqBytes>(bytes).into())),
            SIDR_REP => Message::SidrRep(Box::new(view::<sidr_rep::SidrRepBytes>(bytes).into())),
            _ => return Err(ParseError::Attribute(attribute)),
        };
        Ok((context, message))
    }

    /// Its bytes.
    pub fn emit(&self, context: Context) -> Box<MessageBytes> {
        match self {
            Message::Req(it) => put(context, REQ, &req::ReqBytes::from(&**it)),
            Message::Mra(it) => put(context, MRA, &mra::MraBytes::from(it)),
            Message::Rej(it) => put(context, REJ, &rej::RejBytes::from(&**it)),
            Message::Rep(it) => put(context, REP, &rep::RepBytes::from(&**it)),
            Message::Rtu(it) => put(context, RTU, &short::ShortBytes::from(it)),
            Message::Dreq(it) => put(context, DREQ, &dreq::DreqBytes::from(it)),
            Message::Drep(it) => put(context, DREP, &short::ShortBytes::from(it)),
            Message::SidrReq(it) => put(context, SIDR_REQ, &sidr_req::SidrReqBytes::from(&**it)),
            Message::SidrRep(it) => put(context, SIDR_REP, &sidr_rep::SidrRepBytes::from(&**it)),
        }
    }
}

/// The message behind the header, as bytes of its kind.
fn view<T: Layout>(bytes: &MessageBytes) -> &T {
    let () = T::FITS;
    let data = &bytes[size_of::<HeaderBytes>()..];
    T::ref_from_bytes(data).expect("they are as long, and not aligned")
}

fn put<T: Layout>(context: Context, attribute: u16, data: &T) -> Box<MessageBytes> {
    let () = T::FITS;
    let mut bytes = Box::new([0; MESSAGE_LEN]);
    let (front, back) = bytes.split_at_mut(size_of::<HeaderBytes>());
    front.copy_from_slice(HeaderBytes::new(context, attribute).as_bytes());
    back.copy_from_slice(data.as_bytes());
    bytes
}

/// Data for the front of a field, which is filled up with zeros; nothing if it does not fit.
pub fn filled_up<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
    let mut field = [0; N];
    field.get_mut(..data.len())?.copy_from_slice(data);
    Some(field)
}
