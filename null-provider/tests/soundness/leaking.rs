//! Rule 9: what the device may still use is leaked, never freed. These tests leak on purpose: a leak
//! detector must skip them.

use ibverbs::rdmacm::{CmId, EventChannel, Tcp};
use ibverbs::{AccessFlags, Error, MemoryRegion, Rc, RecvRequest, WindowType1, WindowType2};
use null_provider::{Kind, Verb};

use crate::cm_common::group;
use crate::cm_groups::{joining, removed};
use crate::common::{
    activated, bind, complete, connected, null, parts, some_handle, with_windows, Parts,
};
use crate::shared;

#[test]
fn a_queue_pair_that_cannot_be_destroyed_keeps_what_it_refers_to() {
    let null = null();
    for code in [libc::EIO, libc::EBUSY] {
        let Parts { ctx, pd, cq } = parts();
        let recv_cq = ctx.create_cq(1).build().unwrap();
        let qp = crate::common::connected_to(&pd, &cq, &recv_cq);
        null.fail(Verb::DestroyQp, code);
        drop(qp);
        null.succeed(Verb::DestroyQp);
        assert!(matches!(cq.close().unwrap_err().error, Error::InUse { .. }));
        assert!(matches!(pd.close().unwrap_err().error, Error::InUse { .. }));
        drop((recv_cq, ctx));
        null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Cq, Kind::Pd, Kind::Context]);
    }
}

#[test]
fn a_queue_pair_that_waited_for_a_poll_and_cannot_be_destroyed_does_so_too() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    null.fail(Verb::DestroyQp, libc::EIO);
    let completions = cq.poll().unwrap();
    drop(qp);
    drop(completions);
    assert_eq!(null.count(Verb::DestroyQp), 1);
    null.succeed(Verb::DestroyQp);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_queue_pair_that_cannot_be_destroyed_keeps_its_shared_queue() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let srq = pd.create_srq(1).build().unwrap();
    let qp = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_srq(&srq).build().unwrap();
    null.fail(Verb::DestroyQp, libc::EIO);
    drop(qp);
    null.succeed(Verb::DestroyQp);
    assert!(matches!(srq.close().unwrap_err().error, Error::InUse { .. }));
    assert_eq!(null.count(Verb::DestroySrq), 0);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Qp, Kind::Srq, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_shared_queue_that_cannot_be_destroyed_keeps_its_domain() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let srq = pd.create_srq(1).build().unwrap();
    null.fail(Verb::DestroySrq, libc::EIO);
    drop(srq);
    null.succeed(Verb::DestroySrq);
    assert!(matches!(pd.close().unwrap_err().error, Error::InUse { .. }));
    drop((ctx, cq));
    null.expect_leaked(&[Kind::Srq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_window_that_cannot_be_freed_keeps_its_domain() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let window = pd.alloc_window::<WindowType1>().unwrap();
    null.fail(Verb::DeallocMw, libc::EIO);
    let failed = window.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    assert_ne!(failed.resource.rkey(), 0);
    drop(failed.resource);
    null.succeed(Verb::DeallocMw);
    assert!(matches!(pd.close().unwrap_err().error, Error::InUse { .. }));
    drop((ctx, cq));
    null.expect_leaked(&[Kind::Mw, Kind::Pd, Kind::Context]);
}

#[test]
#[cfg_attr(miri, ignore = "it reads /proc")]
fn memory_to_which_a_window_is_bound_stays_mapped() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (region, address) = filled(&pd, AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND);
    let mut window = pd.alloc_window::<WindowType2>().unwrap();
    let mut qp = with_windows(&pd, &cq);
    bind(&mut qp, &mut window, &region);
    let failed = region.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "memory region" }));
    drop(failed.resource);
    assert!(is_mapped(address) && is_mapped(address + LEN - 1));
    drop((qp, window));
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Mr, Kind::Pd, Kind::Context]);
}

#[test]
fn a_queue_pair_is_not_destroyed_while_a_window_may_refer_to_it() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND).unwrap();
    let [mut one, mut two] = [(); 2].map(|()| pd.alloc_window::<WindowType2>().unwrap());
    let mut qp = with_windows(&pd, &cq);
    bind(&mut qp, &mut one, &region);
    bind(&mut qp, &mut two, &region);
    null.fail(Verb::DeallocMw, libc::EIO);
    let failed = qp.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    // It is as it was, with its windows, of which one goes and is tried again.
    qp = failed.resource;
    bind(&mut qp, &mut one, &region);
    drop(one);
    assert_eq!((null.count(Verb::DestroyQp), null.live(Kind::Mw)), (0, 2));
    null.succeed(Verb::DeallocMw);
    qp.close().unwrap();
    assert_eq!((null.live(Kind::Qp), null.live(Kind::Mw)), (0, 0));

    let mut qp = with_windows(&pd, &cq);
    let mut window = pd.alloc_window::<WindowType2>().unwrap();
    bind(&mut qp, &mut window, &region);
    null.fail(Verb::DeallocMw, libc::EIO);
    null.take_calls();
    drop((window, qp, region));
    assert_eq!(null.count(Verb::DestroyQp), 0);
    null.succeed(Verb::DeallocMw);
    drop((two, cq, pd, ctx));
    null.expect_leaked(&[Kind::Mw, Kind::Qp, Kind::Mr, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn an_address_handle_that_cannot_be_destroyed_keeps_its_domain_and_is_not_tried_again() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (dropped, closed) = (some_handle(&pd), some_handle(&pd));
    null.fail(Verb::DestroyAh, libc::EIO);
    null.take_calls();
    drop(dropped);
    // ocrdma has freed it by the time that it fails, so that nobody may get it back.
    assert_eq!(closed.close().unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(null.verbs(), [Verb::DestroyAh; 2]);
    null.succeed(Verb::DestroyAh);
    assert!(matches!(pd.close().unwrap_err().error, Error::InUse { .. }));
    drop((ctx, cq));
    null.expect_leaked(&[Kind::Ah, Kind::Ah, Kind::Pd, Kind::Context]);
}

#[test]
fn a_queue_pair_that_cannot_leave_its_group_keeps_what_it_refers_to() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let mut qp = activated(&pd, &cq);
    qp.attach_mcast("ff0e::1".parse().unwrap(), 0).unwrap();
    null.fail(Verb::DetachMcast, libc::EIO);
    drop(qp);
    null.succeed(Verb::DetachMcast);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_queue_pair_that_could_not_be_built_nor_destroyed_does_so_too() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    null.fail(Verb::DestroyQp, libc::EIO);
    null.configure(|config| config.edit_qp = Some(Box::new(|qp| qp.wr_start = None)));
    assert!(pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().is_err());
    null.succeed(Verb::DestroyQp);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_trial_queue_pair_that_cannot_be_destroyed_does_so_too() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    null.fail(Verb::DestroyQp, libc::EIO);
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_inline_data(1000);
    assert!(builder.build().is_err());
    null.succeed(Verb::DestroyQp);
    let trials = null.live(Kind::Qp);
    drop((ctx, pd, cq));
    let mut expected = vec![Kind::Qp; trials];
    expected.extend([Kind::Cq, Kind::Pd, Kind::Context]);
    null.expect_leaked(&expected);
}

/// Whether the page at this address is mapped.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    })
}

/// An amount of memory that nobody else maps, so that its address is not used again at once.
const LEN: usize = 5 << 20;

fn filled(pd: &ibverbs::ProtectionDomain, access: AccessFlags) -> (MemoryRegion, usize) {
    let mut region = pd.allocate(LEN, access).unwrap();
    region.bytes_mut().fill(0x5a);
    let address = region.bytes().as_ptr() as usize;
    (region, address)
}

#[test]
#[cfg_attr(miri, ignore = "it reads /proc")]
fn memory_that_cannot_be_deregistered_stays_mapped() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (region, address) = filled(&pd, AccessFlags::LOCAL_WRITE);
    null.fail(Verb::DeregMr, libc::EIO);
    drop(region);
    assert!(is_mapped(address) && is_mapped(address + LEN - 1));
    null.succeed(Verb::DeregMr);
    let (region, address) = filled(&pd, AccessFlags::LOCAL_WRITE);
    assert!(is_mapped(address));
    drop(region);
    assert!(!is_mapped(address), "the check must be able to fail");
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Mr, Kind::Pd, Kind::Context]);
}

#[test]
#[cfg_attr(miri, ignore = "it reads /proc")]
fn memory_whose_remote_registration_cannot_be_undone_stays_mapped() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (region, address) = filled(&pd, AccessFlags::PERMISSIVE);
    // SAFETY: there is no peer.
    unsafe { region.remote() }.unwrap();
    null.fail(Verb::DeregMr, libc::EIO);
    drop(region);
    // One failed, and the other was not tried: it could be the one that the device uses.
    assert_eq!(null.count(Verb::DeregMr), 1);
    assert!(is_mapped(address));
    null.succeed(Verb::DeregMr);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Mr, Kind::Mr, Kind::Pd, Kind::Context]);
}

#[test]
fn a_shared_region_stays_when_its_queue_pair_is_forgotten() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), shared::region(&pd));
    shared::send(&mut qp, &memory).unwrap();
    std::mem::forget(qp);
    drop((memory, ctx, pd, cq));
    assert_eq!(null.count(Verb::DeregMr), 0);
    null.expect_leaked(&[Kind::Mr, Kind::Qp, Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn a_shared_region_stays_when_its_queue_pair_or_shared_queue_cannot_be_destroyed() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), shared::region(&pd));
    shared::send(&mut qp, &memory).unwrap();
    null.fail(Verb::DestroyQp, libc::EIO);
    drop(memory);
    // Tried again, by the drop of what failed.
    assert_eq!(qp.close().unwrap_err().error.os_error(), Some(libc::EIO));
    drop((ctx, pd, cq));
    assert_eq!((null.count(Verb::DestroyQp), null.count(Verb::DeregMr)), (2, 0));
    null.succeed(Verb::DestroyQp);
    null.expect_leaked(&[Kind::Mr, Kind::Qp, Kind::Cq, Kind::Pd, Kind::Context]);

    let Parts { ctx, pd, .. } = parts();
    let (srq, memory) = (pd.create_srq(4).build().unwrap(), shared::region(&pd));
    srq.post_recv_shared([RecvRequest::shared(1, &[memory.slice(..)])]).unwrap();
    null.fail(Verb::DestroySrq, libc::EIO);
    drop((memory, srq, ctx, pd));
    assert_eq!(null.count(Verb::DeregMr), 0);
    null.succeed(Verb::DestroySrq);
    null.expect_leaked(&[Kind::Mr, Kind::Srq, Kind::Pd, Kind::Context]);
}

#[test]
fn shared_memory_that_cannot_be_deregistered_stays_mapped() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), shared::region(&pd));
    shared::send(&mut qp, &memory).unwrap();
    memory.write_at(0, b"here");
    // SAFETY: the region is alive.
    let address = unsafe { (*memory.as_raw()).addr };
    null.fail(Verb::DeregMr, libc::EIO);
    drop((memory, qp));
    null.succeed(Verb::DeregMr);
    // SAFETY: what cannot be deregistered is leaked, so that it is mapped; nobody writes to it.
    assert_eq!(unsafe { address.cast::<[u8; 4]>().read() }, *b"here");
    drop((cq, ctx, pd));
    null.expect_leaked(&[Kind::Mr, Kind::Pd, Kind::Context]);
}

#[test]
fn device_memory_that_cannot_be_freed_keeps_the_context() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let memory = ctx.alloc_dm(64, 0).unwrap();
    null.fail(Verb::FreeDm, libc::EIO);
    drop((memory, ctx, pd, cq));
    null.expect_leaked(&[Kind::Dm, Kind::Context]);
}

#[test]
fn a_region_that_cannot_be_deregistered_keeps_its_device_memory() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let memory = ctx.alloc_dm(64, 0).unwrap();
    let region = pd.register_dm(&memory, .., AccessFlags::PERMISSIVE).unwrap();
    null.fail(Verb::DeregMr, libc::EIO);
    drop((region, memory));
    assert_eq!(null.count(Verb::FreeDm), 0);
    null.succeed(Verb::DeregMr);
    drop((ctx, pd, cq));
    null.expect_leaked(&[Kind::Mr, Kind::Dm, Kind::Pd, Kind::Context]);
}

#[test]
fn a_completion_queue_or_domain_that_cannot_be_destroyed_keeps_the_context() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    null.fail(Verb::DestroyCq, libc::EIO);
    null.fail(Verb::DeallocPd, libc::EIO);
    drop((ctx, pd, cq));
    assert_eq!(null.count(Verb::CloseDevice), 0);
    null.expect_leaked(&[Kind::Cq, Kind::Pd, Kind::Context]);
}

#[test]
fn identifiers_that_cannot_be_destroyed_are_leaked_with_their_channel() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let id = CmId::create_on(&channel, Tcp).unwrap();
    null.fail(Verb::DestroyCmId, libc::EIO);
    let failed = id.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    // It is as it was, and may be tried again.
    assert!(failed.resource.port().is_none());
    drop(failed.resource);
    drop(channel);
    assert_eq!(null.count(Verb::DestroyCmId), 2);
    assert_eq!(null.count(Verb::DestroyEventChannel), 0);
    null.expect_leaked(&[Kind::EventChannel, Kind::CmId]);
}

#[test]
fn a_channel_of_which_such_an_event_may_come_is_not_read_any_more() {
    let null = null();
    for drops in [false, true] {
        let channel = EventChannel::create().unwrap();
        let (mut id, other) = (joining(&channel), joining(&channel));
        removed(&null, &id);
        null.take_calls();
        null.fail_once(Verb::DestroyCmId, libc::EIO);
        if drops {
            drop(id);
        } else {
            assert!(id.leave_multicast(group(1)).is_err());
            drop(id);
        }
        assert_eq!(channel.poll_cm_event().unwrap_err().os_error(), Some(libc::EIO));
        assert_eq!(null.count(Verb::GetCmEvent), 0);
        drop((other, channel));
        // The identifier is lost, and with it its channel, which it points to.
        assert_eq!(null.count(Verb::DestroyEventChannel), 0);
        null.expect_leaked(&[Kind::EventChannel, Kind::CmId]);
    }
}

#[test]
fn a_queue_pair_that_cannot_be_destroyed_keeps_the_buffers_that_it_has() {
    let null = null();
    let crate::owned::Parts { ctx, pd, cq, pool } = crate::owned::parts();
    let mut qp = crate::owned::connected(&pd, &cq);
    qp.post_recv(1, pool.take().unwrap()).unwrap();
    qp.send(2, pool.take().unwrap(), 1).unwrap();
    null.fail(Verb::DestroyQp, libc::EIO);
    drop(qp);
    null.succeed(Verb::DestroyQp);
    assert_eq!(crate::owned::poll(&cq), []);
    assert_eq!(pool.available(), 38);
    assert_eq!(null.count(Verb::DeregMr), 0);
    drop((ctx, pd, cq, pool));
    null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Mr, Kind::Pd, Kind::Context]);
}

#[test]
fn a_forgotten_queue_pair_keeps_the_buffers_that_it_has() {
    let null = null();
    let crate::owned::Parts { ctx, pd, cq, pool } = crate::owned::parts();
    let mut qp = crate::owned::connected(&pd, &cq);
    qp.post_recv(1, pool.take().unwrap()).unwrap();
    std::mem::forget(qp);
    assert_eq!(crate::owned::poll(&cq), []);
    drop((ctx, pd, cq, pool));
    null.expect_leaked(&[Kind::Qp, Kind::Cq, Kind::Mr, Kind::Pd, Kind::Context]);
}
