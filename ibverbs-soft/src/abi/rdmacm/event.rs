//! Events: taking them, with what belongs to each, and acknowledging them.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::attr::{address_vector, path_record};
use super::channel;
use super::connect::{bring_up, fail};
use super::id::{self, acknowledge_own, destroy_id, id, migrate, turn_away, Id, New, Stage};
use super::multicast::{self, Joined};
use super::registry::CmDevice;
use crate::abi::minus_one;
use crate::abi::object::{reclaim, Acknowledged, Object, Place};
use crate::cm::{sidr_status, Event, Peer, Requested};
use crate::device::{CmEvent, CmOwner, Happened, Result};

/// Room for the longest private data of any message.
const PRIVATE_DATA: usize = u8::MAX as usize;

/// An event that was taken.
#[repr(C)]
struct Taken {
    raw: UnsafeCell<ffi::rdma_cm_event>,
    private_data: UnsafeCell<[u8; PRIVATE_DATA]>,
    /// Whose events are acknowledged with it: of a request, the listener's.
    of: *mut ffi::rdma_cm_id,
    /// Whose besides, if it tells of a multicast group.
    membership: Option<Arc<Acknowledged>>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The data is written before C gets it.
unsafe impl Object for Taken {
    type Raw = ffi::rdma_cm_event;
}

/// What C gets to see of an event.
struct Shown {
    raw: ffi::rdma_cm_event,
    param: Param,
    private_data: Vec<u8>,
    /// What the program said when it joined a multicast group, and whose event it is then.
    membership: Option<(*mut c_void, Arc<Acknowledged>)>,
}

/// What else an event says.
enum Param {
    Connection(ffi::rdma_conn_param),
    Datagrams(ffi::rdma_ud_param),
    Number(u64),
}

/// A negative error number, as statuses of events are.
fn negative(errno: Errno) -> c_int {
    -errno.raw_os_error()
}

impl Shown {
    fn new(id: &Id, event: ffi::rdma_cm_event_type, status: c_int) -> Shown {
        let raw = ffi::rdma_cm_event { id: id.raw(), event, status, ..Default::default() };
        let param = match id.is_datagram() {
            true => Param::Datagrams(ffi::rdma_ud_param::default()),
            false => Param::Connection(ffi::rdma_conn_param::default()),
        };
        Shown { raw, param, private_data: Vec::new(), membership: None }
    }

    fn with_peer(self, peer: &Peer) -> Shown {
        let param = Param::Connection(ffi::rdma_conn_param {
            responder_resources: peer.responder_resources,
            initiator_depth: peer.initiator_depth,
            flow_control: peer.flow_control.into(),
            retry_count: peer.retry_count,
            rnr_retry_count: peer.rnr_retry_count,
            srq: peer.srq.into(),
            qp_num: peer.qpn,
            ..Default::default()
        });
        Shown { param, ..self }
    }

    fn with_data(self, data: &[u8]) -> Shown {
        Shown { private_data: data.to_vec(), ..self }
    }

    /// Gives the event to C.
    fn give(self, of: *mut ffi::rdma_cm_id) -> *mut ffi::rdma_cm_event {
        let Shown { mut raw, param, private_data: data, membership } = self;
        let place = Place::<Taken>::new();
        let mut private_data = [0; PRIVATE_DATA];
        private_data[..data.len()].copy_from_slice(&data);
        let len = data.len() as u8;
        let at = match &membership {
            Some((context, _)) => context.cast_const(),
            None if data.is_empty() => ptr::null(),
            None => (place.token() + offset_of!(Taken, private_data)) as *const c_void,
        };
        match param {
            Param::Connection(conn) => {
                raw.param.conn =
                    ffi::rdma_conn_param { private_data: at, private_data_len: len, ..conn };
            }
            Param::Datagrams(ud) => {
                raw.param.ud = ffi::rdma_ud_param { private_data: at, private_data_len: len, ..ud };
            }
            Param::Number(arg) => raw.param.arg = arg,
        }
        let private_data = UnsafeCell::new(private_data);
        let membership = membership.map(|(_, events)| events);
        place.fill(Taken { raw: UnsafeCell::new(raw), private_data, of, membership })
    }
}

pub(super) unsafe extern "C" fn get_cm_event(
    channel: *mut ffi::rdma_event_channel,
    to: *mut *mut ffi::rdma_cm_event,
) -> c_int {
    if to.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: a channel (rdma_get_cm_event(3)).
    let taken = unsafe { take(channel) };
    // SAFETY: it points to a pointer (rdma_get_cm_event(3)).
    minus_one(taken.map(|event| unsafe { to.write(event) }))
}

/// Takes the next event of a channel.
///
/// # Safety
///
/// It is, or was, a channel.
pub(super) unsafe fn take(
    channel: *mut ffi::rdma_event_channel,
) -> Result<*mut ffi::rdma_cm_event> {
    // SAFETY: by the caller's promise.
    let queue = unsafe { channel::queue(channel) }?;
    loop {
        let (CmEvent { about, what }, _guard) = queue.take()?;
        let Some(id) = id_of(&about) else { continue };
        match show(channel, id, what) {
            Some(shown) => return Ok(shown.give(id.raw())),
            None => id.events.add(1),
        }
    }
}

/// The identifier of an owner, of whom an event was taken.
fn id_of<'a>(owner: &Arc<CmOwner>) -> Option<&'a Id> {
    let raw = owner.id() as *mut ffi::rdma_cm_id;
    // SAFETY: the identifier is alive: destroying it waits until the event is acknowledged. If there is none yet, its request has
    // not been taken, which comes before.
    (!raw.is_null()).then(|| unsafe { id(raw) })
}

/// Does what belongs to an event that was taken from this channel, and says what C gets to see of it; nothing if it gets to see
/// nothing.
fn show(channel: *mut ffi::rdma_event_channel, id: &Id, what: Happened) -> Option<Shown> {
    Some(match what {
        Happened::AddrResolved => {
            id.show_addresses(&id.state());
            Shown::new(id, ffi::RDMA_CM_EVENT_ADDR_RESOLVED, 0)
        }
        Happened::AddrError(status) => Shown::new(id, ffi::RDMA_CM_EVENT_ADDR_ERROR, status),
        Happened::RouteResolved => {
            let mut state = id.state();
            if let Some(path) = path_record(&state) {
                id.show_path(&mut state, path);
            }
            Shown::new(id, ffi::RDMA_CM_EVENT_ROUTE_RESOLVED, 0)
        }
        Happened::Requested { device, connection, owner, requested } => {
            show_request(channel, id, device, connection, owner, *requested)?
        }
        Happened::Joined(membership) => show_join(id, membership)?,
        Happened::Cm(event) => show_progress(id, event)?,
        Happened::User(status, arg) => {
            let mut shown = Shown::new(id, ffi::RDMA_CM_EVENT_USER, status);
            shown.param = Param::Number(arg);
            shown
        }
        Happened::NamesResolved => Shown::new(id, ffi::RDMA_CM_EVENT_ADDRINFO_RESOLVED, 0),
    })
}

fn show_progress(id: &Id, event: Event) -> Option<Shown> {
    if id.state().connect_error
        && matches!(event, Event::Rejected { .. } | Event::Disconnected { .. })
    {
        return None;
    }
    Some(match event {
        // `show_request` is for these.
        Event::Requested(_) => return None,
        Event::Responded(responded) => {
            let peer = &responded.peer;
            id.state().remote_ece = (peer.vendor_id, peer.options);
            let mut shown = Shown::new(id, ffi::RDMA_CM_EVENT_CONNECT_RESPONSE, 0);
            if !id.qp().is_null() {
                (shown.raw.event, shown.raw.status) = match confirm(id) {
                    Ok(()) => (ffi::RDMA_CM_EVENT_ESTABLISHED, 0),
                    Err(error) => {
                        id.state().connect_error = true;
                        (ffi::RDMA_CM_EVENT_CONNECT_ERROR, negative(error))
                    }
                };
            }
            shown.with_peer(peer).with_data(&responded.private_data)
        }
        Event::Established => Shown::new(id, ffi::RDMA_CM_EVENT_ESTABLISHED, 0),
        Event::Rejected { reason, private_data } => {
            fail(id);
            Shown::new(id, ffi::RDMA_CM_EVENT_REJECTED, reason.into()).with_data(&*private_data)
        }
        Event::Unreachable => {
            Shown::new(id, ffi::RDMA_CM_EVENT_UNREACHABLE, negative(Errno::TIMEDOUT))
        }
        Event::Disconnected { is_known } => {
            let status = if is_known { 0 } else { negative(Errno::TIMEDOUT) };
            Shown::new(id, ffi::RDMA_CM_EVENT_DISCONNECTED, status)
        }
        Event::TimeWaitOver => Shown::new(id, ffi::RDMA_CM_EVENT_TIMEWAIT_EXIT, 0),
        Event::Answered { status, qpn, qkey, private_data } => {
            let mut shown = match status {
                sidr_status::SUCCESS => Shown::new(id, ffi::RDMA_CM_EVENT_ESTABLISHED, 0),
                status => Shown::new(id, ffi::RDMA_CM_EVENT_UNREACHABLE, status.into()),
            };
            if status == sidr_status::SUCCESS {
                let ah_attr = address_vector(&id.state()).unwrap_or_default();
                let ud = ffi::rdma_ud_param { ah_attr, qp_num: qpn, qkey, ..Default::default() };
                shown.param = Param::Datagrams(ud);
            }
            shown.with_data(&*private_data)
        }
    })
}

/// A multicast group was joined, which the queue pair is attached to now; nothing if it was left meanwhile.
fn show_join(id: &Id, membership: u64) -> Option<Shown> {
    let Joined { way, context, events, attached } = multicast::joined(id, membership)?;
    let mut shown = match attached {
        Ok(()) => Shown::new(id, ffi::RDMA_CM_EVENT_MULTICAST_JOIN, 0),
        Err(error) => Shown::new(id, ffi::RDMA_CM_EVENT_MULTICAST_ERROR, negative(error)),
    };
    shown.param = Param::Datagrams(way);
    shown.membership = Some((context, events));
    Some(shown)
}

/// The peer has accepted: connects the queue pair, and tells the peer.
fn confirm(id: &Id) -> Result<()> {
    let confirmed = bring_up(id, None, None).and_then(|()| super::connect::confirm(id));
    confirmed.inspect_err(|_| fail(id))
}

/// Makes the identifier of a request, and what C gets to see of that at the listener; nothing if it cannot be made. The channel is
/// that of the event: the field of the listener, who may be moving, belongs to whoever moves it.
fn show_request(
    channel: *mut ffi::rdma_event_channel,
    listener: &Id,
    device: usize,
    connection: u32,
    owner: Arc<CmOwner>,
    requested: Requested,
) -> Option<Shown> {
    let Ok(device) = CmDevice::open(device) else {
        turn_away(device, connection, &owner);
        return None;
    };
    let _ = device.device().with_cm(|cm, _| cm.mark_read(connection));
    let sync = listener.state().sync;
    let raw = id::make(New {
        channel,
        sync: false,
        context: listener.context(),
        ps: listener.ps(),
        qp_type: listener.qp_type(),
        owner,
    });
    // SAFETY: it was made just now, and nobody else has it.
    let id = unsafe { id(raw) };
    let Requested { addressing, port, peer, private_data } = requested;
    {
        let mut state = id.state();
        state.stage = Stage::Connecting;
        state.src = Some(SocketAddr::new(addressing.dest, port));
        state.dst = Some(SocketAddr::new(addressing.source, addressing.port));
        state.device = Some(device);
        state.connection = Some(connection);
        if let Some(peer) = &peer {
            state.initiator_depth = peer.initiator_depth;
            state.responder_resources = peer.responder_resources;
            state.remote_ece = (peer.vendor_id, peer.options);
        }
        id.show_addresses(&state);
        if let Some(path) = path_record(&state) {
            id.show_path(&mut state, path);
        }
    }
    if sync {
        // SAFETY: it is alive.
        if unsafe { migrate(raw, ptr::null_mut()) }.is_err() {
            // SAFETY: nobody else has it.
            unsafe { destroy_id(raw) };
            return None;
        }
    }
    let mut shown = Shown::new(id, ffi::RDMA_CM_EVENT_CONNECT_REQUEST, 0);
    shown.raw.listen_id = listener.raw();
    Some(match peer {
        Some(peer) => shown.with_peer(&peer).with_data(&private_data),
        None => shown.with_data(&private_data),
    })
}

pub(super) unsafe extern "C" fn ack_cm_event(event: *mut ffi::rdma_cm_event) -> c_int {
    if event.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: an event that was taken, and is not used any more (rdma_ack_cm_event(3)).
    let event = unsafe { reclaim::<Taken>(event) };
    if let Some(membership) = &event.membership {
        membership.add(1);
    }
    // SAFETY: destroying it waits until its events are acknowledged.
    unsafe { id(event.of) }.events.add(1);
    0
}

/// Waits for the event that a call ends with, on an identifier whose calls do so, which has it then.
pub(super) fn complete(id: &Id) -> Result<()> {
    if !id.state().sync {
        return Ok(());
    }
    acknowledge_own(id);
    // SAFETY: the identifier's own channel.
    let event = unsafe { take(id.channel()) }?;
    id.set_event(event);
    // SAFETY: it was taken just now.
    let ffi::rdma_cm_event { event, status, .. } = unsafe { event.read() };
    match status {
        0 => Ok(()),
        _ if event == ffi::RDMA_CM_EVENT_REJECTED => Err(Errno::CONNREFUSED),
        status => Err(error_of(status)),
    }
}

/// The error number that a status stands for, whatever its sign. What a program writes need not be one.
pub(super) fn error_of(status: c_int) -> Errno {
    match status.unsigned_abs() {
        number @ 1..=4095 => Errno::from_raw_os_error(number as c_int),
        _ => Errno::INVAL,
    }
}

pub(super) unsafe extern "C" fn write_cm_event(
    raw: *mut ffi::rdma_cm_id,
    event: ffi::rdma_cm_event_type,
    status: c_int,
    arg: u64,
) -> c_int {
    if event != ffi::RDMA_CM_EVENT_USER {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: the identifier is alive (rdma_write_cm_event(3)).
    unsafe { id(raw) }.tell(Happened::User(status, arg));
    0
}
