//! What a queue pair is built with, and what `ibv_modify_qp` changes.

use std::net::IpAddr;

use crate::transport::work::{CqId, PdId, SrqId, Through};
use crate::wire::{Psn, Service};

/// The states of a queue pair (`enum ibv_qp_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// New, or as new.
    Reset,
    /// Receives may be posted.
    Init,
    /// Ready to receive.
    ReadyToReceive,
    /// Ready to send.
    ReadyToSend,
    /// What was begun is finished, and nothing is begun.
    SendQueueDrain,
    /// A send failed (UC and UD); receiving goes on.
    SendQueueError,
    /// Nothing goes on; all requests are flushed.
    Error,
}

/// What cannot be changed after the creation.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The number: 24 bits.
    pub qp_num: u32,
    /// The transport service.
    pub service: Service,
    /// The protection domain.
    pub pd: PdId,
    /// Where sends complete.
    pub send_cq: CqId,
    /// Where receives complete.
    pub recv_cq: CqId,
    /// Where receives come from, if not from the queue pair's own queue.
    pub srq: Option<SrqId>,
    /// How many sends can be outstanding.
    pub max_send_wr: u32,
    /// How many receives can be outstanding.
    pub max_recv_wr: u32,
    /// Whether every send makes a completion.
    pub signal_all: bool,
}

impl Config {
    /// What keys are checked against that are used through this queue pair.
    pub const fn through(&self) -> Through {
        Through { pd: self.pd, qp_num: self.qp_num }
    }
}

/// How packets get to a peer: what of an address vector a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address.
    pub dest: IpAddr,
    /// The traffic class (type of service).
    pub traffic_class: u8,
    /// The hop limit (time to live).
    pub hop_limit: u8,
    /// The flow label, of IPv6 only.
    pub flow_label: u32,
}

/// What peers may do with memory through a queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteAccess {
    /// RDMA writes.
    pub write: bool,
    /// RDMA reads.
    pub read: bool,
    /// Atomic operations.
    pub atomic: bool,
}

/// What `ibv_modify_qp` sets. Which of it may be set when, its caller has checked.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// The partition key.
    pub pkey: u16,
    /// The queue key (UD).
    pub qkey: u32,
    /// What peers may do.
    pub access: RemoteAccess,
    /// Where to (RC, UC).
    pub path: Option<Path>,
    /// The path MTU in bytes: the most payload that a packet has.
    pub path_mtu: u32,
    /// The peer's queue pair (RC, UC).
    pub dest_qp: u32,
    /// The sequence number of the next packet that the peer sends.
    pub rq_psn: Psn,
    /// The sequence number of the next packet that is sent.
    pub sq_psn: Psn,
    /// Reads and atomics that the peer may have outstanding here.
    pub max_dest_rd_atomic: u8,
    /// Reads and atomics that may be outstanding at the peer.
    pub max_rd_atomic: u8,
    /// The encoded time that a peer is told to wait if there is no receive (5 bits).
    pub min_rnr_timer: u8,
    /// The encoded time to wait for an acknowledgement (5 bits): 4.096 us * 2^timeout, 0 for ever.
    pub timeout: u8,
    /// How often a request is sent again without an answer (3 bits).
    pub retry_count: u8,
    /// How often a request is sent again when there was no receive (3 bits; 7 for ever).
    pub rnr_retry: u8,
}
