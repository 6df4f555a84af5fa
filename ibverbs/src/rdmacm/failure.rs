//! Why a connection was not set up.

use std::net::SocketAddr;
use std::{fmt, io};

#[cfg(doc)]
use super::event::CmEvent;
use super::event::{CmEventType, Report};
use crate::c_enum::c_enum;

c_enum! {
    /// Why a peer rejected a connection (InfiniBand Architecture Specification, volume 1, 12.6.7.2).
    pub struct RejectReason: i32 {
        /// It has no queue pairs left.
        NO_QP = 1, "no queue pair available";
        /// It has no end-to-end contexts left.
        NO_EEC = 2, "no end-to-end context available";
        /// It has no resources left.
        NO_RESOURCES = 3, "no resources available";
        /// It waited too long for this side.
        TIMEOUT = 4, "timed out";
        /// It does not know this kind of request.
        UNSUPPORTED = 5, "unsupported request";
        /// The communication identifier of a message is not valid.
        INVALID_COMM_ID = 6, "invalid communication identifier";
        /// The communication instance of a message is not valid.
        INVALID_COMM_INSTANCE = 7, "invalid communication instance";
        /// Nobody listens on that port.
        INVALID_SERVICE_ID = 8, "nobody listens on that port";
        /// It does not have this transport.
        INVALID_TRANSPORT_TYPE = 9, "invalid transport type";
        /// A queue pair of that number is connected already, by an earlier request of a process that is gone.
        STALE_CONN = 10, "stale connection";
        /// There is no resource domain.
        RDC_NOT_EXIST = 11, "there is no resource domain";
        /// The primary path's remote GID is not one of the peer.
        INVALID_GID = 12, "invalid primary remote GID";
        /// The primary path's remote LID is not one of the peer.
        INVALID_LID = 13, "invalid primary remote LID";
        /// The primary path's service level is not valid.
        INVALID_SL = 14, "invalid primary service level";
        /// The primary path's traffic class is not valid.
        INVALID_TRAFFIC_CLASS = 15, "invalid primary traffic class";
        /// The primary path's hop limit is not valid.
        INVALID_HOP_LIMIT = 16, "invalid primary hop limit";
        /// The primary path's packet rate is not valid.
        INVALID_PACKET_RATE = 17, "invalid primary packet rate";
        /// The alternate path's remote GID is not one of the peer.
        INVALID_ALT_GID = 18, "invalid alternate remote GID";
        /// The alternate path's remote LID is not one of the peer.
        INVALID_ALT_LID = 19, "invalid alternate remote LID";
        /// The alternate path's service level is not valid.
        INVALID_ALT_SL = 20, "invalid alternate service level";
        /// The alternate path's traffic class is not valid.
        INVALID_ALT_TRAFFIC_CLASS = 21, "invalid alternate traffic class";
        /// The alternate path's hop limit is not valid.
        INVALID_ALT_HOP_LIMIT = 22, "invalid alternate hop limit";
        /// The alternate path's packet rate is not valid.
        INVALID_ALT_PACKET_RATE = 23, "invalid alternate packet rate";
        /// It is to be asked at another port, and through another connection manager.
        PORT_CM_REDIRECT = 24, "redirected to another connection manager";
        /// It is to be asked at another port.
        PORT_REDIRECT = 25, "redirected to another port";
        /// It does not have such a path MTU.
        INVALID_MTU = 26, "invalid path MTU";
        /// It does not have that many resources for reads and atomics.
        INSUFFICIENT_RESP_RESOURCES = 27, "insufficient responder resources";
        /// The program there rejected it, or ended before it answered. Also that somebody listens on that port, but not at
        /// that address.
        CONSUMER_DEFINED = 28, "rejected by the peer's program";
        /// The number of retries when no receive is posted is not valid.
        INVALID_RNR_RETRY = 29, "invalid RNR retry count";
        /// Another request with the same communication identifier is under way.
        DUPLICATE_LOCAL_COMM_ID = 30, "duplicate local communication identifier";
        /// It does not have this version of the protocol.
        INVALID_CLASS_VERSION = 31, "invalid class version";
        /// The flow label is not valid.
        INVALID_FLOW_LABEL = 32, "invalid primary flow label";
        /// The alternate path's flow label is not valid.
        INVALID_ALT_FLOW_LABEL = 33, "invalid alternate flow label";
        /// It does not have what the vendors' options ask for (`rdma_reject_ece`).
        VENDOR_OPTION_NOT_SUPPORTED = 35, "vendor option not supported";
    }
}

c_enum! {
    /// Why a peer did not tell a queue pair for datagrams (InfiniBand Architecture Specification, volume 1,
    /// 12.11.1.2).
    pub struct DatagramRefusal: i32 {
        /// It does not know this kind of request.
        UNSUPPORTED = 1, "unsupported request, or nobody listens on that port";
        /// The program there refused, or was closed before it answered.
        REJECTED = 2, "rejected by the peer's program";
        /// There is no queue pair for this.
        NO_QP = 3, "no queue pair available";
        /// It is to be asked elsewhere.
        REDIRECT = 4, "redirected";
        /// It does not have this version of the protocol.
        UNSUPPORTED_VERSION = 5, "unsupported version";
    }
}

/// That the connection manager reported a failure: what was tried, with whom, and what it said.
#[derive(Debug)]
pub struct ConnectionFailure {
    step: &'static str,
    peer_addr: Option<SocketAddr>,
    report: Report,
    source: Option<io::Error>,
}

impl ConnectionFailure {
    pub(super) fn new(
        step: &'static str,
        peer_addr: Option<SocketAddr>,
        report: Report,
    ) -> ConnectionFailure {
        let status = report.status;
        let source = (status < 0).then(|| io::Error::from_raw_os_error(status.saturating_neg()));
        ConnectionFailure { step, peer_addr, report, source }
    }

    /// What was tried, in words.
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// The peer's address, if it was known.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// Which event told so.
    pub fn event_type(&self) -> CmEventType {
        self.report.event_type
    }

    /// The event's status: see [`CmEvent::status`].
    pub fn status(&self) -> i32 {
        self.report.status
    }

    /// Why the peer rejected the connection, if it did.
    pub fn reject_reason(&self) -> Option<RejectReason> {
        self.report.reject_reason()
    }

    /// Why the peer did not tell a queue pair for datagrams, if it answered so.
    pub fn datagram_refusal(&self) -> Option<DatagramRefusal> {
        self.report.datagram_refusal()
    }

    /// What the peer sent along, filled up with zeros: see [`CmEvent::private_data`].
    pub fn private_data(&self) -> &[u8] {
        &self.report.private_data
    }
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)?;
        if let Some(peer) = self.peer_addr {
            write!(f, " (peer {peer})")?;
        }
        write!(f, ": {}", self.report)?;
        f.write_str(match (self.report.event_type, self.reject_reason()) {
            (_, Some(RejectReason::INVALID_SERVICE_ID)) => {
                " (is the server running, and in the same port space?)"
            }
            (CmEventType::ADDR_ERROR, _) => {
                " (is the address right, and on a network that an RDMA device is on?)"
            }
            (CmEventType::UNREACHABLE, _) if self.status() < 0 => {
                " (the peer's host, or its program, does not answer)"
            }
            _ => "",
        })
    }
}

impl std::error::Error for ConnectionFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(event_type: CmEventType, status: i32) -> ConnectionFailure {
        let report = Report { event_type, status, private_data: vec![1, 2] };
        ConnectionFailure::new("connect", "10.7.0.1:7471".parse().ok(), report)
    }

    #[test]
    fn an_error_can_be_sent_and_shared() {
        fn is_send_and_sync<T: Send + Sync + 'static>() {}
        is_send_and_sync::<crate::Error>();
    }

    #[test]
    fn a_failure_says_why() {
        let nobody = failure(CmEventType::REJECTED, 8);
        assert_eq!(nobody.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));
        assert_eq!(
            nobody.to_string(),
            "cannot connect (peer 10.7.0.1:7471): REJECTED: nobody listens on that port (is the server running, and \
             in the same port space?)"
        );
        let silent = failure(CmEventType::UNREACHABLE, -libc::ETIMEDOUT);
        assert!(silent.to_string().contains("does not answer"), "{silent}");
        assert_eq!(crate::Error::Connection(Box::new(silent)).os_error(), Some(libc::ETIMEDOUT));
        let refused = failure(CmEventType::UNREACHABLE, 2);
        assert_eq!(refused.datagram_refusal(), Some(DatagramRefusal::REJECTED));
        assert_eq!(refused.reject_reason(), None);
        let unknown = failure(CmEventType(77), i32::MIN);
        assert!(unknown.to_string().contains("unknown (77)"), "{unknown}");
        assert!(failure(CmEventType::REJECTED, 99).to_string().contains("unknown (99)"));
    }
}
