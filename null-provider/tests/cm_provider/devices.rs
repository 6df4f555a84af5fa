//! The contexts that librdmacm has opened for itself.

use std::ptr::null_mut;

use ibverbs_sys as ffi;
use null_provider::{Kind, Verb};

use crate::common::*;

/// The list of devices, and its length.
fn devices() -> (*mut *mut ffi::ibv_context, i32) {
    let mut len = -1;
    // SAFETY: there is room for the length.
    let list = unsafe { ffi::rdma_get_devices(&raw mut len) };
    (list, len)
}

fn free(list: *mut *mut ffi::ibv_context) {
    // SAFETY: the provider tells if the list is not alive.
    unsafe { ffi::rdma_free_devices(list) }
}

/// An entry of a list.
fn entry(list: *mut *mut ffi::ibv_context, place: usize) -> *mut ffi::ibv_context {
    // SAFETY: the list has so many entries, or this is its end.
    unsafe { list.wrapping_add(place).read() }
}

#[test]
fn everybody_shares_one_context_of_each_device() {
    let null = null();
    let (list, len) = devices();
    assert_eq!(len, 2);
    assert!(entry(list, 2).is_null());
    expect_live(&null, Kind::CmDevices, 1);
    let channel = channel();
    let (one, other) = (channel.tcp(), channel.tcp());
    ok(one.bind("10.0.0.1:0"));
    ok(other.bind("10.0.0.1:0"));
    assert_eq!(one.get().verbs, entry(list, 0));
    assert_eq!(other.get().verbs, entry(list, 0));
    assert_eq!((one.get().pd, one.get().pd.is_null()), (other.get().pd, false));
    free(list);
    // It stays open when nobody refers to it any more.
    let context = one.get().verbs;
    drop((one, other));
    let (again, _) = devices();
    assert_eq!(entry(again, 0), context);
    free(again);
    free(again);
    null.expect_violation("FreeCmDevices: no CmDevices is alive");
    assert_eq!(null.count(Verb::OpenDevice), 0);
}

#[test]
fn the_program_does_not_close_them() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    ok(id.bind("10.0.0.1:0"));
    // SAFETY: the provider does not close it.
    assert_eq!(unsafe { ffi::ibv_close_device(id.get().verbs) }, libc::EPERM);
    null.expect_violation("CloseDevice: the Context belongs to librdmacm");
    // SAFETY: the provider does not free it.
    assert_eq!(unsafe { ffi::ibv_dealloc_pd(id.get().pd) }, libc::EPERM);
    null.expect_violation("DeallocPd: the Pd belongs to librdmacm");
}

#[test]
fn a_device_that_was_pulled_out_is_closed_with_the_last_reference() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    ok(id.bind("10.0.0.1:0"));
    let (list, _) = devices();
    let context = id.get().verbs;
    // SAFETY: the context is open.
    let pd = unsafe { ffi::ibv_alloc_pd(context) };
    null.remove_cm_device(0);
    let late = channel.tcp();
    fails(late.bind("10.0.0.1:0"), libc::ENODEV);
    assert_eq!(devices_len(), 1);
    drop(id);
    free(list);
    null.expect_violation("FreeCmDevices: the Context is still used by [Pd]");
    // SAFETY: the domain is alive.
    ok(unsafe { ffi::ibv_dealloc_pd(pd) });
}

fn devices_len() -> i32 {
    let (list, len) = devices();
    free(list);
    len
}

#[test]
fn devices_may_be_missing() {
    let null = null();
    null.fail_once(Verb::OpenDevice, libc::EACCES);
    assert_eq!(devices_len(), 1);
    null.fail_once(Verb::GetCmDevices, libc::ENOMEM);
    assert_eq!(devices(), (null_mut(), 0));
    null.configure(|config| config.cm.device = Some(1));
    let channel = channel();
    let id = channel.tcp();
    ok(id.bind("10.0.0.1:0"));
    let (list, _) = devices();
    assert_eq!(id.get().verbs, entry(list, 1));
    free(list);
}
