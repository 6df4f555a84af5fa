//! What a peer must know to connect to a queue pair.

use crate::error::{Error, Result};
use crate::gid::Gid;

/// The address of a queue pair: what two programs exchange, by any means, before they connect. Of a datagram
/// queue pair a peer must know the queue key as well, which is not in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePairEndpoint {
    qp_num: u32,
    psn: u32,
    lid: u16,
    gid: Option<Gid>,
}

const VERSION: u8 = 1;
const HAS_GID: u8 = 1;
/// Queue-pair and packet sequence numbers have 24 bits.
pub(super) const MASK_24: u32 = 0x00ff_ffff;

impl QueuePairEndpoint {
    /// The length of [`to_bytes`](Self::to_bytes).
    pub const BYTES: usize = 28;

    /// An endpoint of these numbers, for programs that exchange them in a format of their own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the queue pair's number or the packet sequence number has more than
    /// 24 bits.
    pub fn new(qp_num: u32, psn: u32, lid: u16, gid: Option<Gid>) -> Result<QueuePairEndpoint> {
        for (what, value) in
            [("the queue pair number", qp_num), ("the packet sequence number", psn)]
        {
            if value > MASK_24 {
                let expected = "it has 24 bits";
                return Err(Error::InvalidArgument { what, value: u64::from(value), expected });
            }
        }
        Ok(QueuePairEndpoint { qp_num, psn, lid, gid })
    }

    /// The number of the queue pair, 24 bits.
    pub fn qp_num(&self) -> u32 {
        self.qp_num
    }

    /// The sequence number of the first packet that it will send, 24 bits.
    pub fn psn(&self) -> u32 {
        self.psn
    }

    /// The local identifier of its port; zero on Ethernet.
    pub fn lid(&self) -> u16 {
        self.lid
    }

    /// The GID that it is reached at, if it uses one.
    pub fn gid(&self) -> Option<Gid> {
        self.gid
    }

    /// The bytes to send to the peer: a version, flags, the local identifier, the two numbers and the
    /// GID, in network byte order.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = VERSION;
        bytes[1] = if self.gid.is_some() { HAS_GID } else { 0 };
        bytes[2..4].copy_from_slice(&self.lid.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.qp_num.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.psn.to_be_bytes());
        if let Some(gid) = self.gid {
            bytes[12..].copy_from_slice(&<[u8; 16]>::from(gid));
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidBytes`] if the length or the version is another one, or a field holds what
    /// `to_bytes` never writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<QueuePairEndpoint> {
        let invalid = |reason| Error::InvalidBytes { what: "queue pair endpoint", reason };
        let bytes: &[u8; Self::BYTES] =
            bytes.try_into().map_err(|_| invalid("they must be exactly 28 bytes"))?;
        let &[version, flags, l0, l1, q0, q1, q2, q3, p0, p1, p2, p3, ref raw_gid @ ..] = bytes;
        if version != VERSION {
            return Err(invalid("their version is not 1"));
        }
        let gid = match flags {
            0 if *raw_gid == [0; 16] => None,
            0 => return Err(invalid("there is a GID, but its flag is not set")),
            HAS_GID => Some(Gid::from(*raw_gid)),
            _ => return Err(invalid("they have unknown flags")),
        };
        let (qp_num, psn) =
            (u32::from_be_bytes([q0, q1, q2, q3]), u32::from_be_bytes([p0, p1, p2, p3]));
        if qp_num > MASK_24 {
            return Err(invalid("the queue pair number has more than 24 bits"));
        }
        if psn > MASK_24 {
            return Err(invalid("the packet sequence number has more than 24 bits"));
        }
        Ok(QueuePairEndpoint { qp_num, psn, lid: u16::from_be_bytes([l0, l1]), gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(gid: Option<Gid>) -> QueuePairEndpoint {
        QueuePairEndpoint::new(0x123456, 0xabcdef, 7, gid).unwrap()
    }

    #[test]
    fn bytes_round_trip() {
        for gid in [None, Some(Gid::from([9; 16])), Some(Gid::from([0; 16]))] {
            assert_eq!(
                QueuePairEndpoint::from_bytes(&endpoint(gid).to_bytes()).unwrap(),
                endpoint(gid)
            );
        }
    }

    #[test]
    fn the_wire_format_does_not_change() {
        let mut expected = vec![1, 1, 0, 7, 0, 0x12, 0x34, 0x56, 0, 0xab, 0xcd, 0xef];
        expected.extend([9; 16]);
        assert_eq!(endpoint(Some(Gid::from([9; 16]))).to_bytes(), expected[..]);
    }

    #[test]
    fn garbage_is_refused() {
        let good = endpoint(None).to_bytes();
        let with = |index: usize, value: u8| {
            let mut bytes = good;
            bytes[index] = value;
            QueuePairEndpoint::from_bytes(&bytes)
        };
        assert!(with(0, 0).is_err(), "version");
        assert!(with(0, 2).is_err(), "version");
        assert!(with(1, 2).is_err(), "flags");
        let error = with(20, 1).unwrap_err().to_string();
        assert!(error.contains("its flag is not set"), "{error}");
        assert!(with(4, 1).is_err(), "queue pair number");
        assert!(with(8, 1).is_err(), "packet sequence number");
        assert!(QueuePairEndpoint::from_bytes(&good[..27]).is_err(), "too short");
        assert!(
            QueuePairEndpoint::from_bytes(&[good.as_slice(), &[0]].concat()).is_err(),
            "too long"
        );
        assert!(QueuePairEndpoint::from_bytes(&[]).is_err(), "empty");
    }

    #[test]
    fn what_is_read_writes_the_same_bytes() {
        // Whatever bytes are accepted: no two encodings of one endpoint.
        for seed in 0..if cfg!(miri) { 100 } else { 10_000u32 } {
            let mut bytes = endpoint(None).to_bytes();
            let place = seed as usize % bytes.len();
            bytes[place] ^= (seed / 28) as u8;
            if let Ok(endpoint) = QueuePairEndpoint::from_bytes(&bytes) {
                assert_eq!(endpoint.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn numbers_of_more_than_24_bits_are_refused() {
        assert!(QueuePairEndpoint::new(1 << 24, 0, 0, None).is_err());
        assert!(QueuePairEndpoint::new(0, 1 << 24, 0, None).is_err());
    }
}
