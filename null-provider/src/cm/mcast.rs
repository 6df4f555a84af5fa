//! Multicast groups of identifiers.

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::sync::atomic::AtomicPtr;

use ibverbs_sys as ffi;

use super::address;
use super::call::{begun_on_id, finish, on_id, Access};
use super::kernel::Stage;
use super::values::{CmArgs, CmDatagrams, CmEvent};
use crate::controls::{lock, wait_until, State};
use crate::objects::Data;
use crate::record::Verb;

/// The number of the queue pair that stands for all members.
const ALL_MEMBERS: u32 = 0xff_ffff;

/// A group that an identifier has joined.
pub(super) struct Group {
    pub(super) number: u32,
    addr: SocketAddr,
    /// What the program has given to recognise it by.
    pub(super) context: AtomicPtr<c_void>,
    /// How many of its events were read and not acknowledged.
    pub(super) reported: usize,
}

pub(super) unsafe extern "C" fn join_multicast_ex(
    id: *mut ffi::rdma_cm_id,
    attr: *mut ffi::rdma_cm_join_mc_attr_ex,
    context: *mut c_void,
) -> c_int {
    let address = id as usize;
    // SAFETY: it points to attributes (rdma_join_multicast_ex(3)).
    let ffi::rdma_cm_join_mc_attr_ex { comp_mask, join_flags, addr } = unsafe { attr.read() };
    let has = |bit| comp_mask & bit != 0;
    // SAFETY: if the mask says so, it points to an address.
    let addr = has(ffi::RDMA_CM_JOIN_MC_ATTR_ADDRESS).then(|| unsafe { address::read(addr) });
    let addr = addr.flatten();
    let args = CmArgs::Join { addr, flags: join_flags, context: context as usize };
    on_id(Verb::JoinMulticast, id, Access::Read, args, |state| {
        if comp_mask >= ffi::RDMA_CM_JOIN_MC_ATTR_RESERVED {
            return Err(libc::ENOTSUP);
        }
        let flags = ffi::RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS;
        if !has(flags) || join_flags >= ffi::RDMA_MC_JOIN_FLAG_RESERVED {
            return Err(libc::EINVAL);
        }
        let addr = addr.ok_or(libc::EINVAL)?;
        let id = state.served(address)?;
        let is_on_device = matches!(id.stage, Stage::Bound | Stage::AddrResolved);
        if !id.is_ud() || !is_on_device || id.device.is_none() {
            return Err(libc::EINVAL);
        }
        let number = state.next_number();
        let group = Group { number, addr, context: AtomicPtr::new(context), reported: 0 };
        state.served(address)?.groups.push(group);
        if !state.config.cm.replies.join {
            return Ok(());
        }
        let ah_attr = state.way_to(Some(addr));
        let datagrams = CmDatagrams { ah_attr, qp_num: ALL_MEMBERS, qkey: ffi::RDMA_UDP_QKEY };
        let event = ffi::RDMA_CM_EVENT_MULTICAST_JOIN;
        let event = CmEvent { event, datagrams, ..CmEvent::default() };
        state.happen(address, event, Some(number));
        Ok(())
    })
}

pub(super) unsafe extern "C" fn leave_multicast(
    id: *mut ffi::rdma_cm_id,
    addr: *mut libc::sockaddr,
) -> c_int {
    let address = id as usize;
    // SAFETY: it points to an address (rdma_leave_multicast(3)).
    let addr = unsafe { address::read(addr) };
    let mut left = 0;
    let args = CmArgs::Leave(addr);
    let code = begun_on_id(Verb::LeaveMulticast, id, Access::Read, args, |state| {
        let addr = addr.ok_or(libc::EINVAL)?;
        let groups = &state.cm_id(address).ok_or(libc::EINVAL)?.groups;
        // The last that was joined is found first.
        let found = groups.iter().rfind(|group| group.addr == addr);
        left = found.ok_or(libc::EADDRNOTAVAIL)?.number;
        let failed = state.failure(Verb::LeaveMulticast);
        if let Err(code) = failed.and_then(|()| state.served(address).map(drop)) {
            // librdmacm frees the group all the same, whatever events of it are still to come.
            state.remove_group(address, left);
            return Err(code);
        }
        state.take_events(address, |queued| queued.group == Some(left));
        Ok(())
    });
    if code != 0 {
        return code;
    }
    let settled = |state: &State| match state.objects.get(&address).map(|object| &object.data) {
        Some(Data::CmId(id)) => {
            !id.groups.iter().any(|group| group.number == left && group.reported > 0)
        }
        _ => true,
    };
    let (mut state, settled) = wait_until(lock(), settled);
    if !settled {
        state.violation("LeaveMulticast: an event of the group is not acknowledged".to_owned());
        return finish(Err(libc::EBUSY));
    }
    state.remove_group(address, left);
    0
}

impl State {
    fn remove_group(&mut self, address: usize, number: u32) {
        if let Some(id) = self.cm_id(address) {
            id.groups.retain(|group| group.number != number);
        }
    }
}
