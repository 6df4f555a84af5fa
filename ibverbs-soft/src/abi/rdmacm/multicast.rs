//! Multicast groups that an identifier joins and leaves.
//!
//! There is nobody to ask on Ethernet: an address of IPv4 is a group, and its GID that address. A full member has the device in the
//! group, as the kernel has the interface; one that only sends does not. The queue pair of the identifier is attached when the
//! program takes the event, and detached when it leaves.

use std::ffi::{c_int, c_void};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::address::{self, gid};
use super::attr::{HOP_LIMIT, QKEY};
use super::event::complete;
use super::id::{acknowledge_own, id, Id, IdState, Stage};
use crate::abi::mcast::{attach_mcast, detach_mcast};
use crate::abi::minus_one;
use crate::abi::object::Acknowledged;
use crate::abi::port::PORT;
use crate::device::{Device, Happened, Result};
use crate::driver::MULTICAST_QPN;

/// The kernel's own number for what it does not support, with which it refuses groups of IPv6 on RoCE version 2.
const ENOTSUPP: i32 = 524;

/// The memberships of an identifier, in the order in which it has joined.
#[derive(Default)]
pub(super) struct Memberships {
    all: Vec<Membership>,
    /// How many there have been.
    count: u64,
}

struct Membership {
    /// What its event calls it.
    number: u64,
    group: SocketAddr,
    /// What its event says: the way to the group.
    way: ffi::rdma_ud_param,
    /// What its event says, which the program has given for it.
    context: *mut c_void,
    progress: Progress,
    /// Only a full member has the device in the group, and its queue pair attached.
    full: Option<DeviceInGroup>,
    /// Its events that were acknowledged: there is one.
    events: Arc<Acknowledged>,
}

/// How far a membership has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The program has not taken the event.
    Joining,
    /// It has.
    Joined,
    /// It is over, but for an event that is not acknowledged.
    Left,
}

/// The device is in a group for as long as this is there.
struct DeviceInGroup {
    device: Arc<Device>,
    group: IpAddr,
}

impl DeviceInGroup {
    fn join(device: &Arc<Device>, group: IpAddr) -> Result<DeviceInGroup> {
        device.join(group)?;
        Ok(DeviceInGroup { device: Arc::clone(device), group })
    }
}

impl Drop for DeviceInGroup {
    fn drop(&mut self) {
        // In a child of the process there is no group to leave.
        let _ = self.device.leave(self.group);
    }
}

/// What an event tells of a membership.
pub(super) struct Joined {
    pub(super) way: ffi::rdma_ud_param,
    pub(super) context: *mut c_void,
    pub(super) events: Arc<Acknowledged>,
    /// Whether the queue pair is attached, if there is one that is to be.
    pub(super) attached: Result<()>,
}

pub(super) unsafe extern "C" fn join_multicast(
    raw: *mut ffi::rdma_cm_id,
    addr: *mut libc::sockaddr,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_join_multicast(3)).
    let id = unsafe { id(raw) };
    // SAFETY: it points to an address (rdma_join_multicast(3)).
    let group = unsafe { address::read(addr) };
    minus_one(group.and_then(|group| join(id, group, ffi::RDMA_MC_JOIN_FLAG_FULLMEMBER, context)))
}

pub(super) unsafe extern "C" fn join_multicast_ex(
    raw: *mut ffi::rdma_cm_id,
    attr: *mut ffi::rdma_cm_join_mc_attr_ex,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_join_multicast_ex(3)).
    let id = unsafe { id(raw) };
    // SAFETY: it points to attributes (rdma_join_multicast_ex(3)).
    let ffi::rdma_cm_join_mc_attr_ex { comp_mask, join_flags, addr } = unsafe { attr.read() };
    if comp_mask >= ffi::RDMA_CM_JOIN_MC_ATTR_RESERVED {
        return minus_one(Err(Errno::NOTSUP));
    }
    let all = ffi::RDMA_CM_JOIN_MC_ATTR_ADDRESS | ffi::RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS;
    if comp_mask != all || join_flags >= ffi::RDMA_MC_JOIN_FLAG_RESERVED {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: it points to an address (rdma_join_multicast_ex(3)).
    let group = unsafe { address::read(addr) };
    minus_one(group.and_then(|group| join(id, group, join_flags, context)))
}

fn join(id: &Id, group: Option<SocketAddr>, flags: u32, context: *mut c_void) -> Result<()> {
    let group = group.ok_or(Errno::INVAL)?;
    {
        let mut state = id.state();
        let (device, sgid_index) = device_for(id, &state, group)?;
        let full = match flags {
            ffi::RDMA_MC_JOIN_FLAG_FULLMEMBER => Some(DeviceInGroup::join(&device, group.ip())?),
            _ => None,
        };
        let memberships = &mut state.memberships;
        let number = memberships.count;
        memberships.count += 1;
        memberships.all.push(Membership {
            number,
            group,
            way: way(group, sgid_index),
            context,
            progress: Progress::Joining,
            full,
            events: Arc::default(),
        });
        id.tell(Happened::Joined(number));
    }
    complete(id)
}

/// The device of an identifier that can join this group, and the place of the GID that packets come from.
fn device_for(id: &Id, state: &IdState, group: SocketAddr) -> Result<(Arc<Device>, u8)> {
    let (Stage::Bound | Stage::AddrResolved, Some(device), Some(src)) =
        (state.stage, &state.device, state.src)
    else {
        return Err(Errno::INVAL);
    };
    if !id.is_datagram() || !group.ip().is_multicast() {
        return Err(Errno::INVAL);
    }
    if group.is_ipv6() {
        return Err(Errno::from_raw_os_error(ENOTSUPP));
    }
    // What comes from a GID of IPv6 does not get to a group of IPv4.
    if src.is_ipv6() {
        return Err(Errno::INVAL);
    }
    let sgid_index = device.gid_index(src.ip()).ok_or(Errno::INVAL)?;
    Ok((Arc::clone(device.device()), sgid_index))
}

fn way(group: SocketAddr, sgid_index: u8) -> ffi::rdma_ud_param {
    let grh = ffi::ibv_global_route {
        dgid: gid(group.ip()),
        sgid_index,
        hop_limit: HOP_LIMIT,
        ..Default::default()
    };
    let ah_attr = ffi::ibv_ah_attr { grh, is_global: 1, port_num: PORT, ..Default::default() };
    ffi::rdma_ud_param { ah_attr, qp_num: MULTICAST_QPN, qkey: QKEY, ..Default::default() }
}

/// The program takes the event of a membership: attaches the queue pair. Nothing if the membership is over.
pub(super) fn joined(id: &Id, number: u64) -> Option<Joined> {
    let mut state = id.state();
    let it = state.memberships.all.iter_mut().find(|it| it.number == number)?;
    if it.progress == Progress::Left {
        // Who leaves waits for the event.
        it.events.add(1);
        return None;
    }
    it.progress = Progress::Joined;
    let attached = match it.full {
        Some(_) if !id.qp().is_null() => {
            // SAFETY: the queue pair of an identifier is alive, and so is the GID.
            match unsafe { attach_mcast(id.qp(), &it.way.ah_attr.grh.dgid, 0) } {
                0 => Ok(()),
                error => Err(Errno::from_raw_os_error(error)),
            }
        }
        _ => Ok(()),
    };
    let (way, context, events) = (it.way, it.context, Arc::clone(&it.events));
    Some(Joined { way, context, events, attached })
}

pub(super) unsafe extern "C" fn leave_multicast(
    raw: *mut ffi::rdma_cm_id,
    addr: *mut libc::sockaddr,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_leave_multicast(3)).
    let id = unsafe { id(raw) };
    // SAFETY: it points to an address (rdma_leave_multicast(3)).
    let group = unsafe { address::read(addr) };
    minus_one(group.and_then(|group| leave(id, group.ok_or(Errno::INVAL)?)))
}

fn leave(id: &Id, group: SocketAddr) -> Result<()> {
    let (number, events) = {
        let mut state = id.state();
        let is_it = |it: &&mut Membership| it.group == group && it.progress != Progress::Left;
        let it = state.memberships.all.iter_mut().rfind(is_it).ok_or(Errno::ADDRNOTAVAIL)?;
        let before = std::mem::replace(&mut it.progress, Progress::Left);
        if it.full.is_some() && before == Progress::Joined && !id.qp().is_null() {
            // The program may have detached it itself.
            // SAFETY: the queue pair of an identifier is alive, and so is the GID.
            unsafe { detach_mcast(id.qp(), &it.way.ah_attr.grh.dgid, 0) };
        }
        (it.number, Arc::clone(&it.events))
    };
    let is_told = !id.owner.take_back_join(number);
    if is_told && !id.owner.channel().is_dead() {
        if id.state().sync {
            acknowledge_own(id);
        }
        events.wait(1);
    }
    id.state().memberships.all.retain(|it| it.number != number);
    Ok(())
}
