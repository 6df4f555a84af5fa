//! What tests tell librdmacm to do, and what it remembers of how it was used.

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::sync::Arc;

use ibverbs_sys as ffi;

use crate::controls::Edit;
use crate::record::Verb;

/// A change of attributes and of their mask before the caller gets to see them.
pub type EditQpAttr = Option<Box<dyn Fn(&mut ffi::ibv_qp_attr, &mut c_int) + Send>>;

/// Something that happens during a call.
pub type During = Option<Arc<dyn Fn(Verb) + Send + Sync>>;

/// How librdmacm departs from the ordinary.
#[derive(Default)]
pub struct CmConfig {
    /// The number of the device that every address is one of. If `None`, each is one of `null0`, except
    /// for those of `null1`.
    pub device: Option<usize>,
    /// Which answers come by themselves.
    pub replies: CmReplies,
    /// Runs in the middle of every call on an identifier, and of reading an event. Other than the changes of
    /// structures, it may use the controls, and wait for other threads.
    pub during: During,
    /// The entries that `rdma_getaddrinfo` returns. If there are none, it understands numeric addresses.
    pub addrinfo: Vec<CmAddrInfo>,
    /// Changes an identifier at the end of every call that has written into it, and when an event of it
    /// was read.
    pub edit_id: Edit<ffi::rdma_cm_id>,
    /// Changes an event that was read.
    pub edit_event: Edit<ffi::rdma_cm_event>,
    /// Changes what `rdma_init_qp_attr` answers.
    pub edit_qp_attr: EditQpAttr,
}

/// The answers that come by themselves, as from a peer and a network that work: all of them, unless they
/// are switched off for a test to give others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmReplies {
    /// Resolving an address queues `ADDR_RESOLVED`.
    pub resolve_addr: bool,
    /// Resolving a route queues `ROUTE_RESOLVED`.
    pub resolve_route: bool,
    /// Connecting queues a request at the listener in this process, or a refusal if there is none.
    pub connect: bool,
    /// Accepting tells the peer.
    pub accept: bool,
    /// Rejecting, or destroying an identifier before it was connected, tells the peer.
    pub reject: bool,
    /// Establishing tells the peer.
    pub establish: bool,
    /// Disconnecting, or destroying a connected identifier, tells both sides.
    pub disconnect: bool,
    /// Joining a group queues `MULTICAST_JOIN`.
    pub join: bool,
}

impl Default for CmReplies {
    fn default() -> CmReplies {
        CmReplies {
            resolve_addr: true,
            resolve_route: true,
            connect: true,
            accept: true,
            reject: true,
            establish: true,
            disconnect: true,
            join: true,
        }
    }
}

impl CmReplies {
    /// No answer comes by itself.
    pub fn none() -> CmReplies {
        CmReplies {
            resolve_addr: false,
            resolve_route: false,
            connect: false,
            accept: false,
            reject: false,
            establish: false,
            disconnect: false,
            join: false,
        }
    }
}

/// One entry of a list of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmAddrInfo {
    /// The local address.
    pub src: Option<SocketAddr>,
    /// The remote address.
    pub dst: Option<SocketAddr>,
}

/// The parameters of a connection (`rdma_conn_param`), without the private data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmConn {
    /// How many reads and atomics the peer may have in flight.
    pub responder_resources: u8,
    /// How many this side wants to have in flight.
    pub initiator_depth: u8,
    /// Whether there is flow control.
    pub flow_control: u8,
    /// How often requests are repeated.
    pub retry_count: u8,
    /// How often they are repeated when the receiver is not ready.
    pub rnr_retry_count: u8,
    /// Whether the queue pair has a shared receive queue.
    pub srq: u8,
    /// The number of the queue pair.
    pub qp_num: u32,
}

/// Where datagrams go (`rdma_ud_param`), without the private data.
#[derive(Clone, Copy, Default)]
pub struct CmDatagrams {
    /// The way there.
    pub ah_attr: ffi::ibv_ah_attr,
    /// The number of the queue pair.
    pub qp_num: u32,
    /// The queue key.
    pub qkey: u32,
}

/// An event that is to be queued. librdmacm takes that of the three parameters which the type of the event
/// and of the identifier demand.
#[derive(Clone, Default)]
pub struct CmEvent {
    /// The type (`RDMA_CM_EVENT_*`); any number will do.
    pub event: ffi::rdma_cm_event_type,
    /// The status.
    pub status: c_int,
    /// The parameters of a connection.
    pub conn: CmConn,
    /// Where datagrams go.
    pub datagrams: CmDatagrams,
    /// The argument of `RDMA_CM_EVENT_USER`.
    pub arg: u64,
    /// The private data: at most 255 bytes.
    pub private_data: Vec<u8>,
    /// The vendor and the options of enhanced connection establishment.
    pub ece: (u32, u32),
    /// Which of the groups that the identifier has joined, for events of multicast groups.
    pub group: usize,
}

/// A connect request that is to be queued at a listener.
#[derive(Clone)]
pub struct CmRequest {
    /// The event; the type is always that of a connect request.
    pub event: CmEvent,
    /// The address that was connected to.
    pub src: SocketAddr,
    /// The address of the peer.
    pub dst: SocketAddr,
}

/// A call that reached librdmacm, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CmCall {
    /// Which entry point.
    pub verb: Verb,
    /// The address of the object that it was called on; zero if there was none.
    pub object: usize,
    /// The arguments.
    pub args: CmArgs,
}

/// The arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CmArgs {
    /// There are no others.
    None,
    /// Those of `rdma_create_id`.
    Create {
        /// The port space.
        ps: ffi::rdma_port_space,
        /// The context, as a number.
        context: usize,
    },
    /// The address to bind to; `None` if it is null or of an unknown family.
    Bind(Option<SocketAddr>),
    /// The backlog.
    Listen(c_int),
    /// Those of `rdma_resolve_addr`.
    ResolveAddr {
        /// The local address.
        src: Option<SocketAddr>,
        /// The remote address.
        dst: Option<SocketAddr>,
        /// The time limit in milliseconds.
        timeout_ms: c_int,
    },
    /// The time limit in milliseconds.
    ResolveRoute(c_int),
    /// The parameters and the private data of `rdma_connect` and `rdma_accept`; `None` if the pointer is
    /// null.
    Conn(Option<(CmConn, Vec<u8>)>),
    /// Those of `rdma_reject`.
    Reject {
        /// The reason: zero, unless it is one of enhanced connection establishment.
        reason: u8,
        /// The private data.
        private_data: Vec<u8>,
    },
    /// The state of the queue pair that attributes are wanted for.
    QpState(ffi::ibv_qp_state),
    /// Those of `rdma_set_option`.
    Option {
        /// The level.
        level: c_int,
        /// The option.
        name: c_int,
        /// The bytes of the value.
        value: Vec<u8>,
    },
    /// The address of the channel that the identifier moves to.
    Migrate(usize),
    /// The vendor and the options of enhanced connection establishment.
    Ece(u32, u32),
    /// Those of `rdma_join_multicast_ex`.
    Join {
        /// The address of the group.
        addr: Option<SocketAddr>,
        /// The flags.
        flags: u32,
        /// The context, as a number.
        context: usize,
    },
    /// The address of the group to leave.
    Leave(Option<SocketAddr>),
    /// Those of `rdma_getaddrinfo`.
    AddrInfo {
        /// The node.
        node: Option<String>,
        /// The service.
        service: Option<String>,
    },
}

/// Takes apart what a program passes as parameters; `None` if it is null.
///
/// # Safety
///
/// If it is not null, it points to parameters, and their private data to as many bytes as they say.
pub(super) unsafe fn conn_of(param: *const ffi::rdma_conn_param) -> Option<(CmConn, Vec<u8>)> {
    if param.is_null() {
        return None;
    }
    // SAFETY: it points to parameters, by the caller's promise.
    let param = unsafe { param.read() };
    let conn = CmConn {
        responder_resources: param.responder_resources,
        initiator_depth: param.initiator_depth,
        flow_control: param.flow_control,
        retry_count: param.retry_count,
        rnr_retry_count: param.rnr_retry_count,
        srq: param.srq,
        qp_num: param.qp_num,
    };
    // SAFETY: the caller's promise.
    let data = unsafe { bytes_of(param.private_data, param.private_data_len.into()) };
    Some((conn, data))
}

/// The bytes at an address; none if it is null.
///
/// # Safety
///
/// If it is not null, it points to so many bytes.
pub(super) unsafe fn bytes_of(data: *const c_void, len: usize) -> Vec<u8> {
    if data.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: `data` is not null, and points to so many bytes by the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
}

impl CmConn {
    /// As librdmacm writes it into an event.
    pub(super) fn raw(self, private_data: *const u8, len: usize) -> ffi::rdma_conn_param {
        ffi::rdma_conn_param {
            private_data: private_data.cast(),
            private_data_len: len as u8,
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: self.flow_control,
            retry_count: self.retry_count,
            rnr_retry_count: self.rnr_retry_count,
            srq: self.srq,
            qp_num: self.qp_num,
        }
    }
}
