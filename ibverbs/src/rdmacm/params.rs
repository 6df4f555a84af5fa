//! What two sides tell each other when they set up a connection.

use crate::ah::{AddressHandle, AddressVector};
use crate::error::{Error, Result};
use crate::ffi;
use crate::pd::ProtectionDomain;
use crate::qp::{Depths, QueuePair, Reliable, State};

/// What a side asks for when it connects or accepts (`struct rdma_conn_param`).
///
/// Nothing needs to be set: what is not comes from the queue pair, as its builder was told.
///
/// # Examples
///
/// ```
/// use ibverbs::rdmacm::ConnectionParams;
///
/// let params = ConnectionParams::new().set_private_data(b"version 2".as_slice()).set_initiator_depth(4);
/// assert_eq!(params.private_data(), b"version 2");
/// ```
#[doc(alias = "rdma_conn_param")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionParams {
    private_data: Vec<u8>,
    responder_resources: Option<u8>,
    initiator_depth: Option<u8>,
    flow_control: bool,
    retry_count: Option<u8>,
    rnr_retry_count: Option<u8>,
    srq: bool,
    qp_num: u32,
}

impl ConnectionParams {
    /// Parameters of which none is set.
    pub fn new() -> ConnectionParams {
        ConnectionParams::default()
    }

    /// Bytes for the peer, that come with the request or the answer.
    ///
    /// How many there may be depends on the message (see [`PrivateDataLimit`]); with more, the call that sends it
    /// fails. Their length does not arrive: where it matters, it is to be part of the data.
    pub fn set_private_data(mut self, private_data: impl Into<Vec<u8>>) -> Self {
        self.private_data = private_data.into();
        self
    }

    /// How many reads and atomics of the peer may be under way towards here. Default: what
    /// [`set_max_dest_rd_atomic`](crate::QueuePairBuilder::set_max_dest_rd_atomic) said of the queue pair, which is
    /// also the most.
    pub fn set_responder_resources(mut self, responder_resources: u8) -> Self {
        self.responder_resources = Some(responder_resources);
        self
    }

    /// How many reads and atomics may be under way from here. Default: what
    /// [`set_max_rd_atomic`](crate::QueuePairBuilder::set_max_rd_atomic) said of the queue pair, which is also the
    /// most. What is granted is at most what the peer offers.
    pub fn set_initiator_depth(mut self, initiator_depth: u8) -> Self {
        self.initiator_depth = Some(initiator_depth);
        self
    }

    /// Whether the hardware does flow control. Default: no.
    pub fn set_flow_control(mut self, flow_control: bool) -> Self {
        self.flow_control = flow_control;
        self
    }

    /// How often the peer should send again without an acknowledgement, 0 to 7; it is told only when connecting.
    /// Default: as often as this side's queue pair does.
    pub fn set_retry_count(mut self, retry_count: u8) -> Self {
        self.retry_count = Some(retry_count);
        self
    }

    /// How often the peer should send again when no receive is posted here, 0 to 6; 7 means without end. Default: as
    /// often as this side's queue pair does.
    pub fn set_rnr_retry_count(mut self, rnr_retry_count: u8) -> Self {
        self.rnr_retry_count = Some(rnr_retry_count);
        self
    }

    /// The number of the queue pair, for those who do not use [`for_queue_pair`](Self::for_queue_pair).
    pub fn set_qp_num(mut self, qp_num: u32) -> Self {
        self.qp_num = qp_num;
        self
    }

    /// Takes what was not set from the queue pair that is to be connected, and limits the rest to what it can do.
    pub fn for_queue_pair<T: Reliable, S: State>(mut self, qp: &QueuePair<T, S>) -> Self {
        let built = qp.config();
        let depths = self.depths_for(qp);
        self.responder_resources = Some(depths.max_dest_rd_atomic);
        self.initiator_depth = Some(depths.max_rd_atomic);
        self.retry_count = self.retry_count.or(Some(built.retry_count));
        self.rnr_retry_count = self.rnr_retry_count.or(Some(built.rnr_retries()));
        self.srq = qp.has_srq();
        self.qp_num = qp.qp_num();
        self
    }

    /// How many reads and atomics the queue pair can have under way with these parameters.
    pub(super) fn depths_for<T: Reliable, S: State>(&self, qp: &QueuePair<T, S>) -> Depths {
        let built = qp.config();
        let at_most = |asked: Option<u8>, most: u8| asked.map_or(most, |asked| asked.min(most));
        Depths {
            max_rd_atomic: at_most(self.initiator_depth, built.max_rd_atomic),
            max_dest_rd_atomic: at_most(self.responder_resources, built.max_dest_rd_atomic),
        }
    }

    /// What [`set_private_data`](Self::set_private_data) was given.
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// The C structure, for as long as self is borrowed.
    pub(super) fn to_raw(&self, limit: PrivateDataLimit) -> Result<ffi::rdma_conn_param> {
        for (what, value) in
            [("the retry count", self.retry_count), ("the RNR retry count", self.rnr_retry_count)]
        {
            if let Some(value) = value.filter(|&value| value > 7) {
                let value = u64::from(value);
                return Err(Error::InvalidArgument {
                    what,
                    value,
                    expected: "it must be at most 7",
                });
            }
        }
        Ok(ffi::rdma_conn_param {
            private_data: self.private_data.as_ptr().cast(),
            private_data_len: limit.check(&self.private_data)?,
            responder_resources: self.responder_resources.unwrap_or(AS_MUCH_AS_THERE_IS),
            initiator_depth: self.initiator_depth.unwrap_or(AS_MUCH_AS_THERE_IS),
            flow_control: self.flow_control.into(),
            retry_count: self.retry_count.unwrap_or(7),
            rnr_retry_count: self.rnr_retry_count.unwrap_or(7),
            srq: self.srq.into(),
            qp_num: self.qp_num,
        })
    }
}

/// What librdmacm takes for the most that the device has (`RDMA_MAX_RESP_RES`, `RDMA_MAX_INIT_DEPTH`).
const AS_MUCH_AS_THERE_IS: u8 = ffi::RDMA_MAX_RESP_RES as u8;

/// How many bytes of private data a message can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateDataLimit {
    message: &'static str,
    bytes: usize,
}

impl PrivateDataLimit {
    /// A connection request. Of its 92 bytes, the connection manager itself takes 36 for the addresses.
    pub const CONNECT: PrivateDataLimit =
        PrivateDataLimit { message: "a connection request", bytes: 56 };
    /// The answer to a connection request.
    pub const ACCEPT: PrivateDataLimit =
        PrivateDataLimit { message: "the answer to a connection request", bytes: 196 };
    /// The refusal of a connection request.
    pub const REJECT: PrivateDataLimit =
        PrivateDataLimit { message: "the refusal of a connection request", bytes: 148 };
    /// The request for a queue pair of datagrams. Of its 216 bytes, the connection manager itself takes 36.
    pub const CONNECT_DATAGRAM: PrivateDataLimit =
        PrivateDataLimit { message: "the request for a datagram queue pair", bytes: 180 };
    /// The answer to the request for a queue pair of datagrams, and its refusal.
    pub const ACCEPT_DATAGRAM: PrivateDataLimit = PrivateDataLimit {
        message: "the answer to the request for a datagram queue pair",
        bytes: 136,
    };

    /// How many bytes there may be.
    pub const fn bytes(self) -> usize {
        self.bytes
    }

    /// The length of the private data, as the C functions take it.
    pub(super) fn check(self, private_data: &[u8]) -> Result<u8> {
        let bytes = private_data.len();
        let length = u8::try_from(bytes).ok().filter(|_| bytes <= self.bytes);
        length.ok_or(Error::PrivateDataTooLong {
            message: self.message,
            bytes,
            available: self.bytes,
        })
    }
}

/// What the peer offers and asks for (`struct rdma_conn_param`), seen from here: of a
/// [`CmEvent`](super::CmEvent).
#[doc(alias = "rdma_conn_param")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerParams {
    /// How many reads and atomics of the peer it wants to be able to have under way towards here.
    pub responder_resources: u8,
    /// How many reads and atomics from here the peer will answer at a time.
    pub initiator_depth: u8,
    /// Whether the peer's hardware does flow control.
    pub flow_control: bool,
    /// How often this side should send again without an acknowledgement.
    pub retry_count: u8,
    /// How often this side should send again when the peer has no receive posted; 7 means without end.
    pub rnr_retry_count: u8,
    /// Whether the peer's queue pair has a shared receive queue.
    pub srq: bool,
    /// The number of the peer's queue pair.
    pub qp_num: u32,
}

impl PeerParams {
    pub(super) fn from_raw(raw: &ffi::rdma_conn_param) -> PeerParams {
        PeerParams {
            responder_resources: raw.responder_resources,
            initiator_depth: raw.initiator_depth,
            flow_control: raw.flow_control != 0,
            retry_count: raw.retry_count,
            rnr_retry_count: raw.rnr_retry_count,
            srq: raw.srq != 0,
            qp_num: raw.qp_num,
        }
    }
}

/// Where datagrams go: a peer's queue pair, or a multicast group (`struct rdma_ud_param`).
#[doc(alias = "rdma_ud_param")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPeer {
    /// The way there.
    pub address: AddressVector,
    /// The number of the queue pair there; of a multicast group
    /// [`AddressHandle::MULTICAST_QPN`].
    pub qp_num: u32,
    /// The queue key that its datagrams take.
    pub qkey: u32,
}

impl DatagramPeer {
    pub(super) fn from_raw(raw: &ffi::rdma_ud_param) -> DatagramPeer {
        DatagramPeer {
            address: AddressVector::from_raw(&raw.ah_attr),
            qp_num: raw.qp_num,
            qkey: raw.qkey,
        }
    }

    /// Creates the address handle that goes there; an operation is addressed with
    /// `.to(&ah, peer.qp_num, peer.qkey)`.
    ///
    /// # Errors
    ///
    /// Those of [`ProtectionDomain::create_ah`].
    pub fn create_ah(&self, pd: &ProtectionDomain) -> Result<AddressHandle> {
        pd.create_ah(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_data_that_is_too_long_is_refused_with_both_numbers() {
        let limit = PrivateDataLimit::CONNECT;
        assert_eq!(limit.check(&[0; 56]).ok(), Some(56));
        let error = limit.check(&[0; 57]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "57 bytes of private data are too many for a connection request: it carries at most 56"
        );
    }
}
