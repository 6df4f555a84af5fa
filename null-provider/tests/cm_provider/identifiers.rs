//! Identifiers: what they demand, and what becomes of their memory.

use std::ptr::null_mut;

use ibverbs_sys as ffi;
use null_provider::{CmArgs, CmEvent, Kind, Verb};

use crate::common::*;

#[test]
fn identifiers_are_used_while_they_are_alive() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    expect_live(&null, Kind::CmId, 1);
    let raw = id.raw();
    drop(id);
    expect_live(&null, Kind::CmId, 0);
    let gone = Id(raw);
    fails(gone.bind("10.0.0.1:7"), libc::EINVAL);
    null.expect_violation("BindAddr: no CmId is alive");
    fails(gone.destroy(), libc::EINVAL);
    null.expect_violation("DestroyCmId: no CmId is alive");
    gone.forget();
}

#[test]
fn identifiers_need_a_channel_and_a_port_space() {
    let null = null();
    let channel = channel();
    let mut raw = null_mut();
    let mut create = |channel, ps| {
        // SAFETY: there is room for a pointer; the provider tells if the channel is not alive.
        unsafe { ffi::rdma_create_id(channel, &raw mut raw, null_mut(), ps) }
    };
    fails(create(channel.raw(), 5), libc::EINVAL);
    fails(create(null_mut(), ffi::RDMA_PS_TCP), libc::ENOTSUP);
    null.fail_once(Verb::CreateCmId, libc::ENOMEM);
    fails(create(channel.raw(), ffi::RDMA_PS_TCP), libc::ENOMEM);
    assert!(raw.is_null());

    let id = channel.create(ffi::RDMA_PS_UDP);
    assert_eq!(null.args(Verb::CreateCmId), CmArgs::Create { ps: ffi::RDMA_PS_UDP, context: 7 });
    let seen = id.get();
    assert_eq!((seen.channel, seen.context as usize), (channel.raw(), 7));
    assert_eq!((seen.ps, seen.qp_type), (ffi::RDMA_PS_UDP, ffi::IBV_QPT_UD));
    assert!(seen.verbs.is_null() && seen.qp.is_null() && seen.route.path_rec.is_null());
}

#[test]
fn an_identifier_that_is_not_destroyed_stays() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    null.fail_once(Verb::DestroyCmId, libc::EIO);
    fails(id.destroy(), libc::EIO);
    expect_live(&null, Kind::CmId, 1);
}

#[test]
fn an_event_is_acknowledged_before_the_identifier_goes() {
    let null = null();
    null.be_impatient();
    let channel = channel();
    let id = channel.tcp();
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    let event = channel.event();
    fails(id.destroy(), libc::EBUSY);
    null.expect_violation("DestroyCmId: an event of the identifier is not acknowledged");
    drop(event);
    null.reset();
    std::mem::forget((id, channel));
}

#[test]
fn destroying_waits_for_an_acknowledgement_of_another_thread() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    let event = channel.event();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(id));
        while null.count(Verb::DestroyCmId) == 0 {
            std::thread::yield_now();
        }
        drop(event);
    });
}

#[test]
fn queue_pairs_are_not_left_to_librdmacm() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    // SAFETY: the identifier is alive.
    unsafe { (*id.raw()).qp = std::ptr::dangling_mut() };
    ok(id.bind("10.0.0.1:7"));
    null.expect_violation("BindAddr: the identifier has a queue pair");
    // SAFETY: the identifier is alive.
    unsafe { (*id.raw()).qp = null_mut() };
}

#[test]
fn an_identifier_moves_with_its_events() {
    let null = null();
    null.be_impatient();
    let (one, other) = (channel(), channel());
    let id = one.tcp();
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    ok(id.migrate(&other));
    assert_eq!(null.args(Verb::MigrateCmId), CmArgs::Migrate(other.raw() as usize));
    assert_eq!(id.get().channel, other.raw());
    one.expect_empty();
    drop(one);
    let event = other.expect(77);
    let third = channel();
    fails(id.migrate(&third), libc::EBUSY);
    null.expect_violation("MigrateCmId: an event of the identifier is not acknowledged");
    drop(event);
    drop(id);
}

#[test]
fn options_are_recorded() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    let set = |level, name, mut value: Vec<u8>| {
        let at = value.as_mut_ptr().cast();
        // SAFETY: the identifier is alive, and the value is so long.
        unsafe { ffi::rdma_set_option(id.raw(), level, name, at, value.len()) }
    };
    ok(set(0, ffi::RDMA_OPTION_ID_TOS as i32, vec![0x20]));
    let option = CmArgs::Option { level: 0, name: 0, value: vec![0x20] };
    assert_eq!(null.args(Verb::SetCmOption), option);
    ok(set(0, ffi::RDMA_OPTION_ID_ACK_TIMEOUT as i32, vec![9]));
    ok(set(0, ffi::RDMA_OPTION_ID_REUSEADDR as i32, vec![1, 0, 0, 0]));
    fails(set(0, ffi::RDMA_OPTION_ID_AFONLY as i32, vec![1]), libc::EINVAL);
    fails(set(0, 99, vec![1]), libc::ENOSYS);
    fails(set(1, 1, vec![1]), libc::ENOSYS);
}

#[test]
fn enhanced_connection_establishment_has_a_vendor() {
    let null = null();
    let channel = channel();
    let ends = requested(&channel);
    let set = |vendor_id, comp_mask| {
        let mut ece = ffi::ibv_ece { vendor_id, options: 3, comp_mask };
        // SAFETY: the identifier is alive, and the structure is.
        unsafe { ffi::rdma_set_local_ece(ends.server.raw(), &raw mut ece) }
    };
    fails(set(0, 0), libc::EINVAL);
    fails(set(1, 1), libc::EINVAL);
    ok(set(0x2c9, 0));
    assert_eq!(null.args(Verb::SetLocalEce), CmArgs::Ece(0x2c9, 3));
    // SAFETY: the library refuses null.
    fails(unsafe { ffi::rdma_set_local_ece(null_mut(), null_mut()) }, libc::EINVAL);
    // SAFETY: as above.
    fails(unsafe { ffi::rdma_get_remote_ece(null_mut(), null_mut()) }, libc::EINVAL);
    ok(ends.server.accept(param(22)));
    drop(channel.expect(ffi::RDMA_CM_EVENT_CONNECT_RESPONSE));
    let mut ece = ffi::ibv_ece::default();
    // SAFETY: the identifier is alive, and there is room for the answer.
    ok(unsafe { ffi::rdma_get_remote_ece(ends.client.raw(), &raw mut ece) });
    // The vendor is that of the request, which had none.
    assert_eq!((ece.vendor_id, ece.options), (0, 3));
}

#[test]
fn what_the_program_sees_can_be_changed() {
    let null = null();
    null.configure(|config| {
        config.cm.edit_id = Some(Box::new(|id| id.port_num = 9));
        config.cm.edit_event = Some(Box::new(|event| event.status = 5));
    });
    let channel = channel();
    let id = channel.tcp();
    ok(id.bind("10.0.0.1:7"));
    assert_eq!(id.get().port_num, 9);
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    assert_eq!(channel.event().get().status, 5);
}
