//! Identifiers: what is known of them, creating, moving, and destroying.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::address::{gid, storage};
use super::channel::{self, destroy_event_channel};
use super::event::ack_cm_event;
use super::multicast::Memberships;
use super::ports::Lease;
use super::registry::CmDevice;
use crate::abi::minus_one;
use crate::abi::object::{locked, object, reclaim, Acknowledged, Object, Place};
use crate::abi::port::{PKEY, PORT};
use crate::cm::ListenerId;
use crate::device::{CmEvent, CmOwner, Device, Happened, Result};
use crate::random::Random;

/// An identifier.
#[repr(C)]
pub(super) struct Id {
    raw: UnsafeCell<ffi::rdma_cm_id>,
    pub(super) owner: Arc<CmOwner>,
    pub(super) events: Acknowledged,
    /// How many events were taken from channels that it has left.
    taken: Mutex<u32>,
    state: Mutex<IdState>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync`, but for pointers in the state
// that are only handed back, or belong to whoever holds its lock.
unsafe impl Object for Id {
    type Raw = ffi::rdma_cm_id;
}

/// How far an identifier has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Idle,
    Bound,
    Listening,
    AddrResolved,
    RouteResolved,
    /// It has, or had, a connection, or is about to.
    Connecting,
}

/// What C does not see of an identifier.
pub(super) struct IdState {
    pub(super) stage: Stage,
    pub(super) src: Option<SocketAddr>,
    pub(super) dst: Option<SocketAddr>,
    pub(super) lease: Option<Lease>,
    pub(super) device: Option<CmDevice>,
    /// The connection, at the connection manager of the device.
    pub(super) connection: Option<u32>,
    /// Where it listens.
    pub(super) listeners: Vec<(Arc<Device>, ListenerId)>,
    pub(super) options: Options,
    /// The type of service when the route was resolved.
    pub(super) traffic_class: u8,
    /// The sequence number that the peer begins with.
    pub(super) psn: u32,
    /// Whether its calls wait for their events: then it has a channel of its own.
    pub(super) sync: bool,
    /// How many reads and atomics of the peer's and of this side's there may be at a time.
    pub(super) responder_resources: u8,
    pub(super) initiator_depth: u8,
    /// The vendor, and its options.
    pub(super) local_ece: (u32, u32),
    pub(super) remote_ece: (u32, u32),
    /// The queue pair could not be connected: what the peer says then is of no concern.
    pub(super) connect_error: bool,
    pub(super) memberships: Memberships,
    /// Data that comes before the program's own.
    pub(super) connect_data: Vec<u8>,
    /// How the queue pairs of requests are to be.
    pub(super) qp_init: Option<ffi::ibv_qp_init_attr>,
    pub(super) path: Option<Box<ffi::ibv_sa_path_rec>>,
    pub(super) names: Names,
}

/// Names that are being resolved, or were.
pub(super) enum Names {
    None,
    Asked,
    Found(*mut ffi::rdma_addrinfo),
}

// SAFETY: the lists and the attributes are plain memory that no thread has for itself; what else programs have given is handed back.
unsafe impl Send for IdState {}

/// What a program has set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) type_of_service: u8,
    pub(super) reuse: bool,
    pub(super) family_only: Option<bool>,
    pub(super) ack_timeout: Option<u8>,
}

/// Fields of the structure of C: those that are read here, and those that are written.
macro_rules! fields {
    (
        read { $($field:ident: $type:ty;)* }
        written { $($set:ident($written:ident): $written_type:ty;)* }
    ) => {
        impl Id {
            $(
                pub(super) fn $field(&self) -> $type {
                    // SAFETY: the identifier is alive; that nobody writes the field meanwhile is up to the program, as with
                    // librdmacm.
                    unsafe { (*self.raw.get()).$field }
                }
            )*

            $(
                pub(super) fn $set(&self, value: $written_type) {
                    // SAFETY: as above.
                    unsafe { (*self.raw.get()).$written = value };
                }
            )*
        }
    };
}

fields! {
    read {
        verbs: *mut ffi::ibv_context;
        channel: *mut ffi::rdma_event_channel;
        context: *mut c_void;
        qp: *mut ffi::ibv_qp;
        ps: ffi::rdma_port_space;
        event: *mut ffi::rdma_cm_event;
        send_cq_channel: *mut ffi::ibv_comp_channel;
        send_cq: *mut ffi::ibv_cq;
        recv_cq_channel: *mut ffi::ibv_comp_channel;
        recv_cq: *mut ffi::ibv_cq;
        srq: *mut ffi::ibv_srq;
        pd: *mut ffi::ibv_pd;
        qp_type: ffi::ibv_qp_type;
    }
    written {
        set_verbs(verbs): *mut ffi::ibv_context;
        set_channel(channel): *mut ffi::rdma_event_channel;
        set_qp(qp): *mut ffi::ibv_qp;
        set_port_num(port_num): u8;
        set_event(event): *mut ffi::rdma_cm_event;
        set_send_cq_channel(send_cq_channel): *mut ffi::ibv_comp_channel;
        set_send_cq(send_cq): *mut ffi::ibv_cq;
        set_recv_cq_channel(recv_cq_channel): *mut ffi::ibv_comp_channel;
        set_recv_cq(recv_cq): *mut ffi::ibv_cq;
        set_srq(srq): *mut ffi::ibv_srq;
        set_pd(pd): *mut ffi::ibv_pd;
    }
}

impl Id {
    pub(super) fn state(&self) -> MutexGuard<'_, IdState> {
        locked(&self.state)
    }

    pub(super) fn raw(&self) -> *mut ffi::rdma_cm_id {
        self.raw.get()
    }

    pub(super) fn is_datagram(&self) -> bool {
        self.qp_type() == ffi::IBV_QPT_UD
    }

    /// Lets C see the addresses and the device.
    pub(super) fn show_addresses(&self, state: &IdState) {
        // SAFETY: the identifier is alive.
        let local = unsafe { ffi::rdma_get_local_addr(self.raw()) };
        // SAFETY: as above.
        let peer = unsafe { ffi::rdma_get_peer_addr(self.raw()) };
        for (field, addr) in [(local, state.src), (peer, state.dst)] {
            if let Some(addr) = addr {
                // SAFETY: the field has room for any address; that nobody reads it meanwhile is up to the program, as with
                // librdmacm.
                unsafe { field.cast::<libc::sockaddr_storage>().write(storage(addr)) };
            }
        }
        let Some(device) = &state.device else { return };
        if self.verbs().is_null() {
            self.set_verbs(device.context);
            self.set_pd(device.pd);
            self.set_port_num(PORT);
        }
        let gid = |addr: Option<SocketAddr>| addr.map_or_else(Default::default, |it| gid(it.ip()));
        let addr =
            ffi::rdma_ib_addr { sgid: gid(state.src), dgid: gid(state.dst), pkey: PKEY.to_be() };
        // SAFETY: a place within the structure, of which nothing is read.
        let field = unsafe { &raw mut (*self.route()).addr.addr };
        // SAFETY: the field has room for it; otherwise as above.
        unsafe { field.cast::<ffi::rdma_ib_addr>().write(addr) };
    }

    /// Lets C see the path, which is kept in the state.
    pub(super) fn show_path(&self, state: &mut IdState, path: ffi::ibv_sa_path_rec) {
        let path = state.path.insert(Box::new(path));
        let route = self.route();
        // SAFETY: as in `show_addresses`.
        unsafe { (*route).path_rec = &raw mut **path };
        // SAFETY: as in `show_addresses`.
        unsafe { (*route).num_paths = 1 };
    }

    fn route(&self) -> *mut ffi::rdma_route {
        // SAFETY: a place within the structure, of which nothing is read.
        unsafe { &raw mut (*self.raw.get()).route }
    }

    /// Puts an event into the queue of its channel.
    pub(super) fn tell(&self, what: Happened) {
        self.owner.push(CmEvent { about: Arc::clone(&self.owner), what });
    }
}

/// The identifier behind a pointer of C.
///
/// # Safety
///
/// It is alive, and stays so for as long as the reference is used.
pub(super) unsafe fn id<'a>(raw: *mut ffi::rdma_cm_id) -> &'a Id {
    // SAFETY: by the caller's promise.
    unsafe { object::<Id>(raw) }
}

/// What an identifier is made from.
pub(super) struct New {
    pub(super) channel: *mut ffi::rdma_event_channel,
    pub(super) sync: bool,
    pub(super) context: *mut c_void,
    pub(super) ps: ffi::rdma_port_space,
    pub(super) qp_type: ffi::ibv_qp_type,
    pub(super) owner: Arc<CmOwner>,
}

pub(super) fn make(new: New) -> *mut ffi::rdma_cm_id {
    let New { channel, sync, context, ps, qp_type, owner } = new;
    let raw = ffi::rdma_cm_id { channel, context, ps, qp_type, ..Default::default() };
    let state = IdState {
        stage: Stage::Idle,
        src: None,
        dst: None,
        lease: None,
        device: None,
        connection: None,
        listeners: Vec::new(),
        options: Options::default(),
        traffic_class: 0,
        psn: Random::new().next() as u32 & 0xff_ffff,
        sync,
        responder_resources: 0,
        initiator_depth: 0,
        local_ece: (0, 0),
        remote_ece: (0, 0),
        connect_error: false,
        memberships: Memberships::default(),
        connect_data: Vec::new(),
        qp_init: None,
        path: None,
        names: Names::None,
    };
    let place = Place::<Id>::new();
    owner.set_id(place.token());
    place.fill(Id {
        raw: UnsafeCell::new(raw),
        owner,
        events: Acknowledged::default(),
        taken: Mutex::new(0),
        state: Mutex::new(state),
    })
}

/// Creates an identifier, with a channel of its own if it is given none.
///
/// # Safety
///
/// The channel is null or alive.
pub(super) unsafe fn create(
    channel: *mut ffi::rdma_event_channel,
    context: *mut c_void,
    ps: ffi::rdma_port_space,
    qp_type: ffi::ibv_qp_type,
) -> Result<*mut ffi::rdma_cm_id> {
    let known =
        [ffi::RDMA_PS_IPOIB, ffi::RDMA_PS_TCP, ffi::RDMA_PS_UDP, ffi::RDMA_PS_IB].contains(&ps);
    if !known || ![ffi::IBV_QPT_RC, ffi::IBV_QPT_UD].contains(&qp_type) {
        return Err(Errno::INVAL);
    }
    let sync = channel.is_null();
    let channel = if sync { channel::create()? } else { channel };
    // SAFETY: by the caller's promise, or made just now.
    let owner = CmOwner::new(unsafe { channel::queue(channel) }?);
    Ok(make(New { channel, sync, context, ps, qp_type, owner }))
}

pub(super) unsafe extern "C" fn create_id(
    channel: *mut ffi::rdma_event_channel,
    to: *mut *mut ffi::rdma_cm_id,
    context: *mut c_void,
    ps: ffi::rdma_port_space,
) -> c_int {
    let qp_type = match ps {
        ffi::RDMA_PS_IPOIB | ffi::RDMA_PS_UDP => ffi::IBV_QPT_UD,
        _ => ffi::IBV_QPT_RC,
    };
    // SAFETY: the channel is null or alive (rdma_create_id(3)).
    let created = unsafe { create(channel, context, ps, qp_type) };
    // SAFETY: it points to a pointer (rdma_create_id(3)).
    minus_one(created.map(|id| unsafe { to.write(id) }))
}

pub(super) unsafe extern "C" fn migrate_id(
    raw: *mut ffi::rdma_cm_id,
    channel: *mut ffi::rdma_event_channel,
) -> c_int {
    // SAFETY: both are alive, or the channel is null (rdma_migrate_id(3)).
    minus_one(unsafe { migrate(raw, channel) })
}

/// Moves an identifier to another channel; to one of its own if that is null.
///
/// # Safety
///
/// The identifier is alive, and the channel null or alive.
pub(super) unsafe fn migrate(
    raw: *mut ffi::rdma_cm_id,
    to: *mut ffi::rdma_event_channel,
) -> Result<()> {
    // SAFETY: by the caller's promise.
    let id = unsafe { id(raw) };
    let (was_sync, sync) = (id.state().sync, to.is_null());
    if was_sync && sync {
        return Err(Errno::INVAL);
    }
    let to = if sync { channel::create()? } else { to };
    // Requests are taken from the new channel as soon as they are there.
    id.state().sync &= sync;
    // SAFETY: by the caller's promise, or made just now.
    let taken = id.owner.migrate(unsafe { channel::queue(to) }?);
    let all = {
        let mut all = locked(&id.taken);
        *all = all.wrapping_add(taken);
        *all
    };
    if was_sync {
        // SAFETY: the event, if there is one, is its own, and so is the channel, which nobody else uses.
        unsafe { give_up_channel(id) };
    }
    id.state().sync = sync;
    id.set_channel(to);
    // What was taken from the old channel is over then.
    id.events.wait(all);
    Ok(())
}

/// # Safety
///
/// The identifier has a channel of its own, which is not used any more.
unsafe fn give_up_channel(id: &Id) {
    acknowledge_own(id);
    // SAFETY: by the caller's promise.
    unsafe { destroy_event_channel(id.channel()) };
}

/// Acknowledges the event that the identifier has itself.
pub(super) fn acknowledge_own(id: &Id) {
    let event = id.event();
    if !event.is_null() {
        id.set_event(ptr::null_mut());
        // SAFETY: an event that was taken and not acknowledged.
        unsafe { ack_cm_event(event) };
    }
}

pub(super) unsafe extern "C" fn destroy_id(raw: *mut ffi::rdma_cm_id) -> c_int {
    // SAFETY: the identifier is alive (rdma_destroy_id(3)).
    let it = unsafe { id(raw) };
    let (device, connection, listeners, sync) = {
        let mut state = it.state();
        let listeners = std::mem::take(&mut state.listeners);
        (state.device.take(), state.connection.take(), listeners, state.sync)
    };
    for (device, listener) in listeners {
        let _ = device.with_cm_anyhow(|cm, _| cm.stop_listening(listener));
    }
    if let (Some(device), Some(connection)) = (&device, connection) {
        let _ = device.device().with_cm_anyhow(|cm, now| cm.destroy(now, connection));
    }
    // From here on, nothing happens to it any more.
    let channel = it.owner.channel();
    let (taken, back) = channel.take_back(&it.owner);
    for event in back {
        discard(event);
    }
    acknowledge_own(it);
    if !channel.is_dead() {
        it.events.wait(locked(&it.taken).wrapping_add(taken));
    }
    if sync {
        // SAFETY: its own channel, which is not used any more.
        unsafe { destroy_event_channel(it.channel()) };
    }
    // SAFETY: the identifier is not used any more (rdma_destroy_id(3)).
    let it = unsafe { reclaim::<Id>(raw) };
    let names = std::mem::replace(&mut it.state().names, Names::None);
    if let Names::Found(list) = names {
        // SAFETY: a list that nobody has asked for.
        unsafe { super::addrinfo::freeaddrinfo(list) };
    }
    // The device comes last: its domain is given back with it.
    drop(it);
    drop(device);
    0
}

/// Throws an event away that nobody will read: a request is rejected.
fn discard(event: CmEvent) {
    if let Happened::Requested { device, connection, owner, .. } = event.what {
        turn_away(device, connection, &owner);
    }
}

/// Rejects a request that there will be no identifier of.
pub(super) fn turn_away(device: usize, connection: u32, owner: &Arc<CmOwner>) {
    if let Ok(device) = Device::opened(device) {
        let _ = device.with_cm_anyhow(|cm, now| cm.destroy(now, connection));
    }
    owner.channel().take_back(owner);
}
