//! What a completion says: status, opcode, flags.

use std::fmt;

use bitflags::bitflags;

use crate::c_enum::c_enum;
use crate::ffi;

c_enum! {
    /// How a work request ended (`enum ibv_wc_status`).
    #[doc(alias = "ibv_wc_status")]
    #[doc(alias = "ibv_wc_status_str")]
    pub struct WcStatus: u32 {
        /// It succeeded.
        SUCCESS = ffi::IBV_WC_SUCCESS, "success";
        /// The buffer was too small for the message, or the message too long for the port.
        LOC_LEN_ERR = ffi::IBV_WC_LOC_LEN_ERR, "local length error";
        /// The queue pair is in no state to do this, or the request is malformed.
        LOC_QP_OP_ERR = ffi::IBV_WC_LOC_QP_OP_ERR, "local queue pair operation error";
        /// An end-to-end context error.
        LOC_EEC_OP_ERR = ffi::IBV_WC_LOC_EEC_OP_ERR, "local EE context operation error";
        /// A local key is wrong, or does not allow this access to this range.
        LOC_PROT_ERR = ffi::IBV_WC_LOC_PROT_ERR, "local protection error";
        /// The queue pair went to the error state before this request was done.
        WR_FLUSH_ERR = ffi::IBV_WC_WR_FLUSH_ERR, "work request flushed";
        /// A memory window could not be bound.
        MW_BIND_ERR = ffi::IBV_WC_MW_BIND_ERR, "memory window bind error";
        /// The peer answered with something unexpected.
        BAD_RESP_ERR = ffi::IBV_WC_BAD_RESP_ERR, "bad response";
        /// A local access failed while a remote operation was executed.
        LOC_ACCESS_ERR = ffi::IBV_WC_LOC_ACCESS_ERR, "local access error";
        /// The peer refused the request: it is malformed, not enabled there, or its buffer is too small.
        REM_INV_REQ_ERR = ffi::IBV_WC_REM_INV_REQ_ERR, "remote invalid request";
        /// The remote key is wrong, or does not allow this access to this range.
        REM_ACCESS_ERR = ffi::IBV_WC_REM_ACCESS_ERR, "remote access error";
        /// The peer could not complete the operation.
        REM_OP_ERR = ffi::IBV_WC_REM_OP_ERR, "remote operation error";
        /// The peer did not acknowledge within the timeout, for all retries: it is gone, or unreachable.
        RETRY_EXC_ERR = ffi::IBV_WC_RETRY_EXC_ERR, "transport retry count exceeded";
        /// The peer had no receive posted, for all retries.
        RNR_RETRY_EXC_ERR = ffi::IBV_WC_RNR_RETRY_EXC_ERR, "receiver not ready, retry count exceeded";
        /// A reliable-datagram domain violation.
        LOC_RDD_VIOL_ERR = ffi::IBV_WC_LOC_RDD_VIOL_ERR, "local RDD violation";
        /// The peer refused a reliable-datagram request.
        REM_INV_RD_REQ_ERR = ffi::IBV_WC_REM_INV_RD_REQ_ERR, "remote invalid RD request";
        /// The peer aborted the operation.
        REM_ABORT_ERR = ffi::IBV_WC_REM_ABORT_ERR, "operation aborted by the peer";
        /// The number of an end-to-end context is wrong.
        INV_EECN_ERR = ffi::IBV_WC_INV_EECN_ERR, "invalid EE context number";
        /// The state of an end-to-end context is wrong.
        INV_EEC_STATE_ERR = ffi::IBV_WC_INV_EEC_STATE_ERR, "invalid EE context state";
        /// The device failed.
        FATAL_ERR = ffi::IBV_WC_FATAL_ERR, "fatal device error";
        /// The peer did not respond in time.
        RESP_TIMEOUT_ERR = ffi::IBV_WC_RESP_TIMEOUT_ERR, "response timeout";
        /// Another error.
        GENERAL_ERR = ffi::IBV_WC_GENERAL_ERR, "general error";
        /// A tag-matching error.
        TM_ERR = ffi::IBV_WC_TM_ERR, "tag matching error";
        /// Tag matching: the message came to a rendezvous but the software must finish it.
        TM_RNDV_INCOMPLETE = ffi::IBV_WC_TM_RNDV_INCOMPLETE, "tag matching rendezvous incomplete";
    }
}

c_enum! {
    /// What a completed work request did (`enum ibv_wc_opcode`).
    #[doc(alias = "ibv_wc_opcode")]
    pub struct WcOpcode: u32 {
        /// A send.
        SEND = ffi::IBV_WC_SEND, "send";
        /// An RDMA write.
        RDMA_WRITE = ffi::IBV_WC_RDMA_WRITE, "RDMA write";
        /// An RDMA read.
        RDMA_READ = ffi::IBV_WC_RDMA_READ, "RDMA read";
        /// An atomic compare and swap.
        COMP_SWAP = ffi::IBV_WC_COMP_SWAP, "compare and swap";
        /// An atomic fetch and add.
        FETCH_ADD = ffi::IBV_WC_FETCH_ADD, "fetch and add";
        /// The binding of a memory window.
        BIND_MW = ffi::IBV_WC_BIND_MW, "bind memory window";
        /// The invalidation of a local key.
        LOCAL_INV = ffi::IBV_WC_LOCAL_INV, "local invalidate";
        /// A segmented TCP send.
        TSO = ffi::IBV_WC_TSO, "TSO";
        /// A flush.
        FLUSH = ffi::IBV_WC_FLUSH, "flush";
        /// An atomic write.
        ATOMIC_WRITE = ffi::IBV_WC_ATOMIC_WRITE, "atomic write";
        /// A receive that a send filled.
        RECV = ffi::IBV_WC_RECV, "receive";
        /// A receive that an RDMA write with immediate data consumed.
        RECV_RDMA_WITH_IMM = ffi::IBV_WC_RECV_RDMA_WITH_IMM, "receive of RDMA write with immediate";
        /// Tag matching: a buffer was added to the list.
        TM_ADD = ffi::IBV_WC_TM_ADD, "tag matching: add";
        /// Tag matching: a buffer was removed from the list.
        TM_DEL = ffi::IBV_WC_TM_DEL, "tag matching: remove";
        /// Tag matching: the list is in step with the software.
        TM_SYNC = ffi::IBV_WC_TM_SYNC, "tag matching: synchronize";
        /// Tag matching: a receive that a message with a tag filled.
        TM_RECV = ffi::IBV_WC_TM_RECV, "tag matching: receive";
        /// Tag matching: a receive that a message without a tag filled.
        TM_NO_TAG = ffi::IBV_WC_TM_NO_TAG, "tag matching: receive without tag";
    }
}

impl WcOpcode {
    /// Whether it completes a receive, of whatever kind.
    #[inline]
    pub const fn is_recv(self) -> bool {
        self.0 & ffi::IBV_WC_RECV != 0
    }
}

bitflags! {
    /// What else is known of a completion (`enum ibv_wc_flags`).
    #[doc(alias = "ibv_wc_flags")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct WcFlags: u32 {
        /// The buffer begins with a global route header.
        const GRH = ffi::IBV_WC_GRH;
        /// There is immediate data.
        const WITH_IMM = ffi::IBV_WC_WITH_IMM;
        /// The IP checksum is right.
        const IP_CSUM_OK = ffi::IBV_WC_IP_CSUM_OK;
        /// A remote key was invalidated.
        const WITH_INV = ffi::IBV_WC_WITH_INV;
        /// Tag matching: the software must process the message.
        const TM_SYNC_REQ = ffi::IBV_WC_TM_SYNC_REQ;
        /// Tag matching: the message was matched.
        const TM_MATCH = ffi::IBV_WC_TM_MATCH;
        /// Tag matching: the data is in the buffer.
        const TM_DATA_VALID = ffi::IBV_WC_TM_DATA_VALID;
    }
}

/// Why a work request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WcError {
    /// The status, as the specification names it.
    pub status: WcStatus,
    /// The provider's own code; its documentation or source tells what it means. Zero if there is none.
    #[doc(alias = "ibv_wc_read_vendor_err")]
    pub vendor_err: u32,
}

impl fmt::Display for WcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vendor_err {
            0 => write!(f, "{}", self.status),
            vendor_err => write!(f, "{} (vendor error {vendor_err:#x})", self.status),
        }
    }
}

impl std::error::Error for WcError {}
