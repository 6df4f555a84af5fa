//! Multicast groups.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use null_provider::{CmArgs, CmEvent, CmReplies, Verb};

use crate::common::*;

const GROUP: &str = "239.0.0.1:0";

fn join(id: &Id, text: &str, comp_mask: u32, join_flags: u32) -> c_int {
    let mut addr = addr(text);
    let mut attr = ffi::rdma_cm_join_mc_attr_ex { comp_mask, join_flags, addr: addr.raw() };
    // SAFETY: the identifier, the attributes and the address are alive.
    unsafe {
        ffi::rdma_join_multicast_ex(id.raw(), &raw mut attr, std::ptr::without_provenance_mut(77))
    }
}

fn leave(id: &Id, text: &str) -> c_int {
    // SAFETY: the identifier and the address are alive.
    unsafe { ffi::rdma_leave_multicast(id.raw(), addr(text).raw()) }
}

fn member(channel: &Channel) -> Id {
    let id = channel.create(ffi::RDMA_PS_UDP);
    ok(id.bind("10.0.0.1:0"));
    id
}

#[test]
fn a_group_is_joined_and_left() {
    let null = null();
    let channel = channel();
    let id = member(&channel);
    ok(join(&id, GROUP, 3, 1));
    let args = CmArgs::Join { addr: Some(socket(GROUP)), flags: 1, context: 77 };
    assert_eq!(null.args(Verb::JoinMulticast), args);
    let joined = channel.expect(ffi::RDMA_CM_EVENT_MULTICAST_JOIN);
    // SAFETY: the event is one of datagrams.
    let ud = unsafe { joined.get().param.ud };
    assert_eq!((ud.qp_num, ud.qkey), (0xff_ffff, ffi::RDMA_UDP_QKEY));
    // What looks like private data is the context.
    assert_eq!((ud.private_data as usize, ud.private_data_len), (77, 0));
    // SAFETY: all bytes are initialized.
    assert_eq!(unsafe { ud.ah_attr.grh.dgid.raw }[12..], [239, 0, 0, 1]);
    drop(joined);

    let event = ffi::RDMA_CM_EVENT_MULTICAST_ERROR;
    null.cm_event(id.raw(), CmEvent { event, status: -5, ..CmEvent::default() });
    let lost = channel.expect(event).get();
    // SAFETY: the event is one of datagrams.
    assert_eq!((lost.status, unsafe { lost.param.ud }.private_data as usize), (-5, 77));

    ok(leave(&id, GROUP));
    assert_eq!(null.args(Verb::LeaveMulticast), CmArgs::Leave(Some(socket(GROUP))));
    fails(leave(&id, GROUP), libc::EADDRNOTAVAIL);
}

#[test]
fn joining_has_its_conditions() {
    let null = null();
    let channel = channel();
    let id = member(&channel);
    fails(join(&id, GROUP, 7, 0), libc::ENOTSUP);
    fails(join(&id, GROUP, 1, 0), libc::EINVAL);
    fails(join(&id, GROUP, 2, 0), libc::EINVAL);
    fails(join(&id, GROUP, 3, 2), libc::EINVAL);
    null.fail_once(Verb::JoinMulticast, libc::ENOMEM);
    fails(join(&id, GROUP, 3, 0), libc::ENOMEM);
    let idle = channel.create(ffi::RDMA_PS_UDP);
    fails(join(&idle, GROUP, 3, 0), libc::EINVAL);
    let connected = channel.tcp();
    ok(connected.bind("10.0.0.1:0"));
    fails(join(&connected, GROUP, 3, 0), libc::EINVAL);
    null.configure(|config| config.cm.replies = CmReplies::none());
    ok(join(&id, GROUP, 3, 0));
    channel.expect_empty();
}

#[test]
fn leaving_drops_events_and_waits_for_acknowledgements() {
    let null = null();
    null.be_impatient();
    let channel = channel();
    let id = member(&channel);
    ok(join(&id, GROUP, 3, 0));
    ok(leave(&id, GROUP));
    channel.expect_empty();
    ok(join(&id, GROUP, 3, 0));
    let joined = channel.event();
    fails(leave(&id, GROUP), libc::EBUSY);
    null.expect_violation("LeaveMulticast: an event of the group is not acknowledged");
    drop(joined);
    ok(leave(&id, GROUP));
}

#[test]
fn a_group_is_gone_even_if_leaving_fails() {
    let null = null();
    let channel = channel();
    let id = member(&channel);
    ok(join(&id, GROUP, 3, 0));
    let joined = channel.event();
    ok(join(&id, "239.0.0.2:0", 3, 0));
    null.fail(Verb::LeaveMulticast, libc::EIO);
    fails(leave(&id, GROUP), libc::EIO);
    fails(leave(&id, GROUP), libc::EADDRNOTAVAIL);
    drop(joined);
    null.expect_violation("AckCmEvent: the group of the event is gone");
    fails(leave(&id, "239.0.0.2:0"), libc::EIO);
    channel.expect_empty();
    null.expect_violation("GetCmEvent: the event is of a group that is gone");
}
