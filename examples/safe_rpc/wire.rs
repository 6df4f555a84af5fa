//! What the two processes say to each other, in bytes: greetings over TCP, messages over RDMA. Numbers are big-endian.
//!
//! Everything that is read here may be garbage, and is then an error.

use std::ops::RangeInclusive;

use anyhow::{bail, ensure, Context as _, Result};
use ibverbs::{Mtu, QueuePairEndpoint};

/// What all that is said over TCP begins with: the name of the protocol, and its version.
pub(crate) const HEAD: [u8; 10] = *b"safe_rpc\0\x01";

/// The longest request, in bytes.
pub(crate) const MAX_SIZE: u32 = 1 << 20;
/// The most requests that a client may have in flight.
pub(crate) const MAX_IN_FLIGHT: u16 = 1024;
/// How many receives one side has: at least two for messages, one for their answer, and one for credits alone.
pub(crate) const RECEIVES: RangeInclusive<i64> = 4..=1024;

/// Checks the head of what has come over TCP.
pub(crate) fn check_head(head: &[u8; HEAD.len()]) -> Result<()> {
    let version = |head: &[u8; HEAD.len()]| u16::from_be_bytes([head[8], head[9]]);
    ensure!(head[..8] == HEAD[..8], "the peer is another program");
    let (ours, theirs) = (version(&HEAD), version(head));
    ensure!(ours == theirs, "the peer speaks version {theirs}, and here it is {ours}");
    Ok(())
}

/// Numbers that are read one after the other.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().context("it is cut off")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(*self.bytes()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(*self.bytes()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(*self.bytes()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(*self.bytes()?))
    }
}

fn read_mtu(reader: &mut Reader<'_>) -> Result<Mtu> {
    let bytes = reader.u32()?;
    Mtu::from_bytes(bytes).with_context(|| format!("the peer has an MTU of {bytes}"))
}

fn read_receives(reader: &mut Reader<'_>) -> Result<u16> {
    let receives = reader.u16()?;
    let is_possible = RECEIVES.contains(&receives.into());
    ensure!(is_possible, "the peer has {receives} receives, which is not {RECEIVES:?}");
    Ok(receives)
}

/// What a server says to whoever connects, behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Banner {
    /// Whether it has no room for another client now.
    pub(crate) busy: bool,
    /// The longest packet of its port.
    pub(crate) mtu: Mtu,
    /// How many receives it posts for a client.
    pub(crate) receives: u16,
}

impl Banner {
    pub(crate) const BYTES: usize = 7;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.busy.into();
        bytes[1..5].copy_from_slice(&self.mtu.bytes().unwrap_or_default().to_be_bytes());
        bytes[5..].copy_from_slice(&self.receives.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Banner> {
        let mut reader = Reader(bytes);
        Ok(Banner {
            busy: reader.u8()? != 0,
            mtu: read_mtu(&mut reader)?,
            receives: read_receives(&mut reader)?,
        })
    }
}

/// What a client says then, behind the head. Its queue pair is ready, with its receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Whose session this is.
    pub(crate) client: u64,
    /// The replies of all requests up to this one are in its record.
    pub(crate) acked: u64,
    /// The longest request that it will send.
    pub(crate) size: u32,
    /// How many requests it will have in flight at most.
    pub(crate) in_flight: u16,
    /// The longest packet of its port.
    pub(crate) mtu: Mtu,
    /// How many receives it has posted.
    pub(crate) receives: u16,
    /// Its queue pair.
    pub(crate) endpoint: QueuePairEndpoint,
}

impl Greeting {
    pub(crate) const BYTES: usize = 28 + QueuePairEndpoint::BYTES;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.client.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.acked.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.size.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.in_flight.to_be_bytes());
        bytes[22..26].copy_from_slice(&self.mtu.bytes().unwrap_or_default().to_be_bytes());
        bytes[26..28].copy_from_slice(&self.receives.to_be_bytes());
        bytes[28..].copy_from_slice(&self.endpoint.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Greeting> {
        let mut reader = Reader(bytes);
        let (client, acked) = (reader.u64()?, reader.u64()?);
        let (size, in_flight) = (reader.u32()?, reader.u16()?);
        ensure!((1..=MAX_SIZE).contains(&size), "requests of {size} bytes are not 1 to {MAX_SIZE}");
        ensure!(
            (1..=MAX_IN_FLIGHT).contains(&in_flight),
            "{in_flight} requests in flight are not 1 to {MAX_IN_FLIGHT}"
        );
        Ok(Greeting {
            client,
            acked,
            size,
            in_flight,
            mtu: read_mtu(&mut reader)?,
            receives: read_receives(&mut reader)?,
            endpoint: QueuePairEndpoint::from_bytes(reader.0)?,
        })
    }
}

/// What the server answers. Its queue pair is connected, with its receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// How many requests of the session it has executed.
    pub(crate) executed: u64,
    /// Its queue pair.
    pub(crate) endpoint: QueuePairEndpoint,
}

/// What stands before a [`Welcome`]. A peer that has something else to say in its place, or later, says why it ends the
/// connection.
pub(crate) const WELCOME: u8 = 1;

impl Welcome {
    pub(crate) const BYTES: usize = 8 + QueuePairEndpoint::BYTES;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.executed.to_be_bytes());
        bytes[8..].copy_from_slice(&self.endpoint.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Welcome> {
        let mut reader = Reader(bytes);
        let executed = reader.u64()?;
        Ok(Welcome { executed, endpoint: QueuePairEndpoint::from_bytes(reader.0)? })
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A request, which is the payload.
    Request {
        /// Its number in the session: the first has 1.
        id: u64,
        /// The replies of all requests up to this one are in the client's record.
        acked: u64,
    },
    /// The reply to this request.
    Reply { id: u64 },
    /// Nothing but credits.
    Credits,
    /// The client wants to know what the session's account is.
    Report { acked: u64 },
    /// That account is the payload, and so many requests were executed.
    Account { executed: u64 },
}

/// A message that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) head: Head,
    /// How many receives the sender has posted, since it last said so.
    pub(crate) credits: u16,
    pub(crate) payload: &'a [u8],
}

/// How many bytes stand before the payload.
pub(crate) const HEADER: usize = 24;

impl Head {
    /// Writes what stands before a payload of this length, with no credits.
    pub(crate) fn write(self, to: &mut [u8], payload: usize) {
        let (kind, a, b) = match self {
            Head::Request { id, acked } => (1, id, acked),
            Head::Reply { id } => (2, id, 0),
            Head::Credits => (3, 0, 0),
            Head::Report { acked } => (4, acked, 0),
            Head::Account { executed } => (5, executed, 0),
        };
        to[..4].copy_from_slice(&[kind, 0, 0, 0]);
        to[4..8].copy_from_slice(&(payload as u32).to_be_bytes());
        to[8..16].copy_from_slice(&u64::to_be_bytes(a));
        to[16..HEADER].copy_from_slice(&u64::to_be_bytes(b));
    }
}

/// Writes the credits of a message whose head is written.
pub(crate) fn set_credits(message: &mut [u8], credits: u16) {
    message[2..4].copy_from_slice(&credits.to_be_bytes());
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Message<'a>> {
        let mut reader = Reader(bytes);
        let ([kind, zero], credits, len) = (*reader.bytes()?, reader.u16()?, reader.u32()?);
        let (a, b, payload) = (reader.u64()?, reader.u64()?, reader.0);
        ensure!(zero == 0, "a message has {zero} where nothing should be");
        ensure!(payload.len() as u64 == len.into(), "{} of {len} bytes came", payload.len());
        let head = match (kind, b) {
            (1, acked) => Head::Request { id: a, acked },
            (2, 0) => Head::Reply { id: a },
            (3, 0) if a == 0 && len == 0 => Head::Credits,
            (4, 0) if len == 0 => Head::Report { acked: a },
            (5, 0) => Head::Account { executed: a },
            _ => bail!("a message of {} bytes begins with {kind}, which is none", bytes.len()),
        };
        Ok(Message { head, credits, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> QueuePairEndpoint {
        QueuePairEndpoint::new(7, 9, 3, None).unwrap()
    }

    fn greeting() -> Greeting {
        Greeting {
            client: u64::MAX - 1,
            acked: 1 << 40,
            size: 4096,
            in_flight: 64,
            mtu: Mtu::B1024,
            receives: 16,
            endpoint: endpoint(),
        }
    }

    #[test]
    fn what_is_said_over_tcp_arrives() {
        let banner = Banner { busy: true, mtu: Mtu::B4096, receives: 32 };
        assert_eq!(Banner::from_bytes(&banner.to_bytes()).unwrap(), banner);
        assert_eq!(Greeting::from_bytes(&greeting().to_bytes()).unwrap(), greeting());
        let welcome = Welcome { executed: 1 << 40, endpoint: endpoint() };
        assert_eq!(Welcome::from_bytes(&welcome.to_bytes()).unwrap(), welcome);
    }

    #[test]
    fn others_are_recognised() {
        check_head(&HEAD).unwrap();
        let says = |head| check_head(head).unwrap_err().to_string();
        assert_eq!(says(b"GET / HTTP"), "the peer is another program");
        assert_eq!(says(b"safe_rpc\x01\x02"), "the peer speaks version 258, and here it is 1");
    }

    #[test]
    fn terms_that_cannot_be_met_are_refused() {
        let refusal = |change: &dyn Fn(&mut Greeting)| {
            let mut greeting = greeting();
            change(&mut greeting);
            Greeting::from_bytes(&greeting.to_bytes()).unwrap_err().to_string()
        };
        assert!(refusal(&|greeting| greeting.size = 0).contains("requests of 0 bytes"));
        assert!(refusal(&|greeting| greeting.size = u32::MAX).contains("requests of 4294967295"));
        assert!(refusal(&|greeting| greeting.in_flight = 0).contains("0 requests in flight"));
        assert!(refusal(&|greeting| greeting.in_flight = 1025).contains("1025 requests in flight"));
        assert!(refusal(&|greeting| greeting.receives = 3).contains("3 receives"));
        assert!(Greeting::from_bytes(&[0xff; Greeting::BYTES]).is_err());
        assert!(Banner::from_bytes(&[0; Banner::BYTES]).is_err());
        assert!(Welcome::from_bytes(&[0xff; Welcome::BYTES]).is_err());
    }

    fn written(head: Head, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xff; HEADER];
        head.write(&mut bytes, payload.len());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn messages_arrive_with_their_credits() {
        for (head, payload) in [
            (Head::Request { id: 1, acked: u64::MAX }, &b"request"[..]),
            (Head::Request { id: 1, acked: 0 }, b""),
            (Head::Reply { id: u64::MAX }, b"reply"),
            (Head::Credits, b""),
            (Head::Report { acked: 5 }, b""),
            (Head::Account { executed: 5 }, b"account"),
        ] {
            let mut bytes = written(head, payload);
            assert_eq!(Message::read(&bytes).unwrap(), Message { head, credits: 0, payload });
            set_credits(&mut bytes, 300);
            assert_eq!(Message::read(&bytes).unwrap(), Message { head, credits: 300, payload });
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let good = written(Head::Request { id: 1, acked: 0 }, b"request");
        for len in 0..good.len() {
            assert!(Message::read(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(Message::read(&[&good[..], &[0]].concat()).is_err(), "one byte too many");
        for kind in [0, 6, 255] {
            let mut bytes = good.clone();
            bytes[0] = kind;
            assert!(Message::read(&bytes).is_err(), "{kind}");
        }
        assert!(Message::read(&written(Head::Credits, b"x")).is_err());
    }
}
