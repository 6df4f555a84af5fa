//! Identifiers.

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;

use ibverbs_sys as ffi;

use super::address::{self, DST, GIDS, SRC};
use super::call::{finish, on_id, Access, InUse};
use super::kernel::{Connection, Peer, Stage};
use super::mcast::Group;
use super::values::{bytes_of, CmArgs, CmConn};
use crate::controls::{lock, wait_until, State};
use crate::objects::{Block, Data, Object};
use crate::query::PORT;
use crate::record::{Kind, Verb};

/// What is known of an identifier.
#[derive(Default)]
pub(crate) struct IdData {
    /// The address of the channel that it reports to.
    pub(super) channel: usize,
    pub(super) ps: ffi::rdma_port_space,
    pub(super) qp_type: ffi::ibv_qp_type,
    pub(super) stage: Stage,
    pub(super) connection: Connection,
    pub(super) peer: Peer,
    /// Whether it came with a connect request.
    pub(super) is_of_request: bool,
    /// Whether the kernel reports on it: not before a request was accepted.
    pub(super) reports: bool,
    /// The device, as the kernel knows it, and as librdmacm does.
    pub(super) device: Option<usize>,
    pub(super) known_device: Option<usize>,
    pub(super) src: Option<SocketAddr>,
    pub(super) dst: Option<SocketAddr>,
    /// What was asked for, with the depths that became of it.
    pub(super) conn: CmConn,
    /// The number of the peer's queue pair, once it has told.
    pub(super) remote_qp_num: u32,
    /// The timeout that was set as an option.
    pub(super) ack_timeout: Option<u8>,
    /// The vendor and the options of enhanced connection establishment.
    pub(super) local_ece: (u32, u32),
    pub(super) remote_ece: (u32, u32),
    /// The paths. librdmacm never frees old ones.
    pub(super) paths: Vec<Block>,
    pub(super) groups: Vec<Group>,
    /// How many of its events were read and not acknowledged.
    pub(super) reported: usize,
    pub(super) in_use: InUse,
    /// Whether a thread waits to free it.
    pub(super) dying: bool,
}

impl IdData {
    pub(super) fn is_ud(&self) -> bool {
        self.qp_type == ffi::IBV_QPT_UD
    }
}

impl State {
    pub(super) fn cm_id(&mut self, address: usize) -> Option<&mut IdData> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::CmId(id), .. }) => Some(id),
            _ => None,
        }
    }

    /// All identifiers.
    pub(super) fn cm_ids(&self) -> impl Iterator<Item = (usize, &IdData)> {
        self.objects.iter().filter_map(|(&address, object)| match &object.data {
            Data::CmId(id) => Some((address, &**id)),
            _ => None,
        })
    }

    /// A new identifier; its channel is in `raw`.
    pub(super) fn insert_id(&mut self, raw: ffi::rdma_cm_id, id: IdData) -> usize {
        let channel = raw.channel as usize;
        let block = Block::new(size_of_val(&raw));
        block.write_prefix(0, &raw);
        let address = block.ptr() as usize;
        let id = IdData { channel, ps: raw.ps, qp_type: raw.qp_type, ..id };
        self.insert(block, 0, vec![channel], Data::CmId(Box::new(id)));
        address
    }

    /// Copies what the kernel knows into the memory that the program sees.
    pub(super) fn query_id(&mut self, address: usize) -> Result<(), c_int> {
        self.failure(Verb::QueryCmId)?;
        let id = self.served(address)?;
        let (src, dst, device, known) = (id.src, id.dst, id.device, id.known_device);
        let raw = self.pointer::<ffi::rdma_cm_id>(address);
        let gids = raw.wrapping_byte_add(GIDS).cast::<ffi::rdma_ib_addr>();
        if let Some(src) = src {
            let to = raw.wrapping_byte_add(SRC).cast::<libc::sockaddr_storage>();
            // SAFETY: the identifier is alive, and has room for an address there.
            unsafe { to.write(address::storage(src).0) };
            // SAFETY: the identifier is alive, and has these GIDs.
            unsafe { (*gids).sgid = address::gid(src.ip()) };
        }
        if let Some(dst) = dst {
            let to = raw.wrapping_byte_add(DST).cast::<libc::sockaddr_storage>();
            // SAFETY: the identifier is alive, and has room for an address there.
            unsafe { to.write(address::storage(dst).0) };
            // SAFETY: the identifier is alive, and has these GIDs.
            unsafe { (*gids).dgid = address::gid(dst.ip()) };
        }
        if let (None, Some(device)) = (known, device) {
            let (context, pd) = self.get_cm_device(device)?;
            // SAFETY: the identifier is alive.
            unsafe { (*raw).verbs = context };
            // SAFETY: as above.
            unsafe { (*raw).pd = pd };
            // SAFETY: as above.
            unsafe { (*raw).port_num = PORT };
            // SAFETY: as above.
            unsafe { (*gids).pkey = u16::MAX };
            self.served(address)?.known_device = Some(device);
        }
        Ok(())
    }

    /// Asks for the path, and puts it where the program sees it.
    pub(super) fn query_path(&mut self, address: usize) -> Result<(), c_int> {
        self.failure(Verb::QueryCmId)?;
        let id = self.served(address)?;
        let gid = |addr: Option<SocketAddr>| addr.map(|addr| address::gid(addr.ip()));
        let path = ffi::ibv_sa_path_rec {
            sgid: gid(id.src).unwrap_or_default(),
            dgid: gid(id.dst).unwrap_or_default(),
            hop_limit: 64,
            reversible: 1,
            numb_path: 1,
            pkey: u16::MAX,
            mtu_selector: 2,
            mtu: ffi::IBV_MTU_1024 as u8,
            rate_selector: 2,
            rate: ffi::IBV_RATE_25_GBPS as u8,
            packet_life_time_selector: 2,
            ..Default::default()
        };
        let block = Block::new(size_of_val(&path));
        block.write_prefix(0, &path);
        let to = block.ptr().cast();
        id.paths.push(block);
        let raw = self.pointer::<ffi::rdma_cm_id>(address);
        // SAFETY: the identifier is alive.
        unsafe { (*raw).route.path_rec = to };
        // SAFETY: as above.
        unsafe { (*raw).route.num_paths = 1 };
        Ok(())
    }

    /// Frees an identifier.
    pub(super) fn remove_id(&mut self, address: usize) {
        let device = self.cm_id(address).and_then(|id| id.known_device);
        self.remove(address);
        if let Some(device) = device {
            self.put_cm_device(device);
        }
    }

    /// What the kernel does when an identifier goes.
    pub(super) fn end_id(&mut self, address: usize) {
        self.hang_up(address);
        let unread = self.take_events(address, |_| true);
        self.refuse_unread(unread);
    }
}

pub(super) unsafe extern "C" fn create_id(
    channel: *mut ffi::rdma_event_channel,
    to: *mut *mut ffi::rdma_cm_id,
    context: *mut c_void,
    ps: ffi::rdma_port_space,
) -> c_int {
    let mut state = lock();
    let args = CmArgs::Create { ps, context: context as usize };
    state.cm_call(Verb::CreateCmId, channel as usize, args);
    if channel.is_null() {
        // An identifier with a channel of its own, and calls that block: not what this is for.
        return finish(Err(libc::ENOTSUP));
    }
    if !state.expect_live(Verb::CreateCmId, channel as usize, Kind::EventChannel) {
        return finish(Err(libc::EINVAL));
    }
    if let Err(code) = state.failure(Verb::CreateCmId) {
        return finish(Err(code));
    }
    let qp_type = match ps {
        ffi::RDMA_PS_TCP | ffi::RDMA_PS_IB => ffi::IBV_QPT_RC,
        ffi::RDMA_PS_UDP | ffi::RDMA_PS_IPOIB => ffi::IBV_QPT_UD,
        _ => return finish(Err(libc::EINVAL)),
    };
    let raw = ffi::rdma_cm_id { channel, context, ps, qp_type, ..Default::default() };
    let address = state.insert_id(raw, IdData { reports: true, ..IdData::default() });
    // SAFETY: it points to a pointer (rdma_create_id(3)).
    unsafe { to.write(state.pointer(address)) };
    0
}

/// Waits until all events of an identifier that were read are acknowledged. That they never are is a
/// violation.
fn settle(verb: Verb, address: usize) -> Result<(), c_int> {
    let settled = |state: &State| match state.objects.get(&address).map(|object| &object.data) {
        Some(Data::CmId(id)) => id.reported == 0,
        _ => true,
    };
    let (mut state, settled) = wait_until(lock(), settled);
    if settled {
        return Ok(());
    }
    state.violation(format!("{verb:?}: an event of the identifier is not acknowledged"));
    Err(libc::EBUSY)
}

pub(super) unsafe extern "C" fn destroy_id(id: *mut ffi::rdma_cm_id) -> c_int {
    let address = id as usize;
    let ended = on_id(Verb::DestroyCmId, id, Access::Wait, CmArgs::None, |state| {
        state.end_id(address);
        if let Some(id) = state.cm_id(address) {
            id.dying = true;
        }
        Ok(())
    });
    if ended != 0 {
        return ended;
    }
    if let Err(code) = settle(Verb::DestroyCmId, address) {
        return finish(Err(code));
    }
    let mut state = lock();
    if state.cm_id(address).is_some_and(|id| !id.in_use.is_idle()) {
        state.violation("DestroyCmId: a call on the identifier has not returned".to_owned());
        return finish(Err(libc::EBUSY));
    }
    state.remove_id(address);
    0
}

pub(super) unsafe extern "C" fn migrate_id(
    id: *mut ffi::rdma_cm_id,
    channel: *mut ffi::rdma_event_channel,
) -> c_int {
    let address = id as usize;
    let to = channel as usize;
    let moved = on_id(Verb::MigrateCmId, id, Access::Write, CmArgs::Migrate(to), |state| {
        if channel.is_null() {
            return Err(libc::ENOTSUP);
        }
        if !state.expect_live(Verb::MigrateCmId, to, Kind::EventChannel) {
            return Err(libc::EINVAL);
        }
        state.served(address)?;
        let unread = state.take_events(address, |_| true);
        state.served(address)?.channel = to;
        if let Some(object) = state.objects.get_mut(&address) {
            object.refers_to = vec![to];
        }
        // SAFETY: the identifier is alive.
        unsafe { (*id).channel = channel };
        unread.into_iter().for_each(|queued| state.push_event(queued));
        Ok(())
    });
    if moved != 0 {
        return moved;
    }
    finish(settle(Verb::MigrateCmId, address))
}

pub(super) unsafe extern "C" fn set_option(
    id: *mut ffi::rdma_cm_id,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: it points to a value that is so long (rdma_set_option(3)).
    let value = unsafe { bytes_of(value, len) };
    let args = CmArgs::Option { level, name, value: value.clone() };
    on_id(Verb::SetCmOption, id, Access::Read, args, |state| {
        let id = state.served(id as usize)?;
        if level as u32 != ffi::RDMA_OPTION_ID {
            return Err(libc::ENOSYS);
        }
        match (name as u32, &value[..]) {
            (ffi::RDMA_OPTION_ID_TOS, [_]) => {}
            (ffi::RDMA_OPTION_ID_ACK_TIMEOUT, &[timeout]) => id.ack_timeout = Some(timeout),
            // An int.
            (ffi::RDMA_OPTION_ID_REUSEADDR | ffi::RDMA_OPTION_ID_AFONLY, [_, _, _, _]) => {}
            (0..=ffi::RDMA_OPTION_ID_ACK_TIMEOUT, _) => return Err(libc::EINVAL),
            _ => return Err(libc::ENOSYS),
        }
        Ok(())
    })
}

pub(super) unsafe extern "C" fn set_local_ece(
    id: *mut ffi::rdma_cm_id,
    ece: *mut ffi::ibv_ece,
) -> c_int {
    if id.is_null() || ece.is_null() {
        return finish(Err(libc::EINVAL));
    }
    // SAFETY: it is not null, and points to a structure (rdma_set_local_ece(3)).
    let ffi::ibv_ece { vendor_id, options, comp_mask } = unsafe { ece.read() };
    let args = CmArgs::Ece(vendor_id, options);
    on_id(Verb::SetLocalEce, id, Access::Write, args, |state| {
        if vendor_id == 0 || comp_mask != 0 {
            return Err(libc::EINVAL);
        }
        if let Some(id) = state.cm_id(id as usize) {
            id.local_ece = (vendor_id, options);
        }
        Ok(())
    })
}

pub(super) unsafe extern "C" fn get_remote_ece(
    id: *mut ffi::rdma_cm_id,
    ece: *mut ffi::ibv_ece,
) -> c_int {
    if id.is_null() || ece.is_null() {
        return finish(Err(libc::EINVAL));
    }
    on_id(Verb::GetRemoteEce, id, Access::Read, CmArgs::None, |state| {
        let remote = state.cm_id(id as usize).map(|id| id.remote_ece);
        let (vendor_id, options) = remote.unwrap_or_default();
        // SAFETY: it is not null, and points to a structure (rdma_get_remote_ece(3)).
        unsafe { ece.write(ffi::ibv_ece { vendor_id, options, comp_mask: 0 }) };
        Ok(())
    })
}

/// The port of one of the addresses, in network order; zero if there is no such address.
///
/// # Safety
///
/// If `id` is alive, `addr` points into it, to an address.
unsafe fn port_at(id: *mut ffi::rdma_cm_id, addr: *const libc::sockaddr_storage) -> ffi::__be16 {
    let mut port = 0;
    on_id(Verb::GetCmPort, id, Access::Read, CmArgs::None, |_| {
        // SAFETY: the identifier is alive, and the rest is the caller's promise.
        let addr = unsafe { address::read(addr.cast()) };
        port = addr.map_or(0, |addr| addr.port()).to_be();
        Ok(())
    });
    port
}

pub(super) unsafe extern "C" fn get_src_port(id: *mut ffi::rdma_cm_id) -> ffi::__be16 {
    // SAFETY: the local address is there.
    unsafe { port_at(id, id.wrapping_byte_add(SRC).cast()) }
}

pub(super) unsafe extern "C" fn get_dst_port(id: *mut ffi::rdma_cm_id) -> ffi::__be16 {
    // SAFETY: the remote address is there.
    unsafe { port_at(id, id.wrapping_byte_add(DST).cast()) }
}
