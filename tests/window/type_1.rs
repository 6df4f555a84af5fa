//! Windows of type 1, which are bound by a call of their own.

use ibverbs::{
    AccessFlags, CanSend, Error, MemoryWindow, QpState, QueuePair, QueuePairAttr, Rc,
    RemoteMemorySlice, SendOps, WcOpcode, WindowType1, WindowType2,
};
use ibverbs_tests::{pair_with, pattern, prepare, submit, wait_one, Mem, PORT};

use crate::{bed, bind, Lab, ALL, BINDABLE, LEN, OK, READ, REFUSED, WRITE};

/// Binds a window of type 1 and waits until that is done.
#[track_caller]
fn bind_1(
    lab: &mut Lab,
    window: &mut MemoryWindow<WindowType1>,
    range: std::ops::Range<usize>,
    access: AccessFlags,
) -> RemoteMemorySlice {
    // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`, and fills a send queue.
    let remote = unsafe { lab.b.qp.bind_window(81, window, lab.target.region(), range, access) };
    let wc = wait_one(&lab.b.send_cq, 81);
    assert_eq!((wc.ok, wc.opcode), (Ok(()), WcOpcode::BIND_MW));
    remote.unwrap()
}

/// Unbinds a window of type 1.
fn unbind(
    qp: &mut QueuePair<Rc, impl CanSend>,
    window: &mut MemoryWindow<WindowType1>,
    mem: &Mem,
) -> Result<(), Error> {
    // SAFETY: the send queue is not full after this.
    unsafe { qp.unbind_window(82, window, mem.region()) }
}

#[test]
fn a_window_of_type_1_is_for_every_peer_until_it_is_bound_anew() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window::<WindowType1>().unwrap();
    let unbound = window.rkey();
    let old = bind_1(&mut lab, &mut window, 100..1100, ALL);
    assert_eq!(
        (old.addr, old.len, old.rkey),
        (lab.target.slice(100..).addr(), 1000, window.rkey())
    );
    let data = pattern(1000, 5);
    let mut other = Lab::new(&bed);
    for lab in [&mut lab, &mut other] {
        assert_eq!(lab.write(&data, old), OK);
        assert_eq!(lab.read(1000, old), Ok(data.clone()));
        assert_eq!(lab.add(old.slice(4..12), 0), OK);
    }
    assert_eq!(lab.target.read(100..1100), data);

    // It is bound to something else at once.
    let new = bind_1(&mut lab, &mut window, 2000..3000, READ);
    assert!(new.rkey != old.rkey && old.rkey != unbound);
    assert_eq!(lab.read(8, new.slice(..8)), Ok(vec![0; 8]));
    assert_eq!(other.write(b"late", old), REFUSED);
    let mut other = Lab::new(&bed);
    assert_eq!(other.write(b"not allowed", new), REFUSED);
    assert_eq!(lab.target.read(2000..3000), [0; 1000]);

    unbind(&mut lab.b.qp, &mut window, &lab.target).unwrap();
    assert_eq!(wait_one(&lab.b.send_cq, 82).ok, Ok(()));
    assert_eq!(lab.read(8, new.slice(..8)), Err(REFUSED));
}

#[test]
fn a_window_of_type_1_outlives_the_queue_pair_that_has_bound_it() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window::<WindowType1>().unwrap();
    let remote = bind_1(&mut lab, &mut window, 0..8, READ | WRITE);
    lab.b.qp.close().unwrap();
    let mut other = Lab::new(&bed);
    assert_eq!(other.write(b"survivor", remote), OK);
    assert_eq!(lab.target.read(..8), b"survivor");
    window.close().unwrap();
    assert_eq!(other.write(b"too late", remote), REFUSED);
    assert_eq!(lab.target.read(..8), b"survivor");
}

#[test]
fn a_window_of_type_1_is_refused_what_cannot_be() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let other_pd = bed.ctx().alloc_pd().unwrap();
    let mut window = bed.pd().alloc_window::<WindowType1>().unwrap();
    let mut foreign = other_pd.alloc_window::<WindowType1>().unwrap();
    let foreign_mem = bed.mem_of(&other_pd, LEN, BINDABLE);
    let (own, fixed) = (lab.target.clone(), bed.mem_with(LEN, AccessFlags::MW_BIND));
    let unbindable = bed.mem_with(LEN, AccessFlags::PERMISSIVE);
    let key = window.rkey();
    let mut refusal = |window: &mut MemoryWindow<WindowType1>, mem: &Mem, len, access| {
        // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
        let result = unsafe { lab.b.qp.bind_window(1, window, mem.region(), 0..len, access) };
        result.expect_err("it should have been refused")
    };
    for (window, mem) in [(&mut foreign, &own), (&mut window, &foreign_mem)] {
        let error = refusal(window, mem, 8, READ);
        assert!(matches!(error, Error::ProtectionDomainMismatch { .. }), "{error}");
    }
    let error = refusal(&mut foreign, &foreign_mem, 8, READ);
    let expected = matches!(error, Error::ProtectionDomainMismatch { what: "memory window" });
    assert!(expected, "{error}");
    for (mem, access) in
        [(&own, READ | AccessFlags::LOCAL_WRITE), (&unbindable, READ), (&fixed, WRITE)]
    {
        let error = refusal(&mut window, mem, 8, access);
        assert!(matches!(error, Error::InvalidAccess { .. }), "{error}");
    }
    let error = refusal(&mut window, &own, 0, READ);
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
    for (window, mem) in [(&mut foreign, &own), (&mut window, &foreign_mem)] {
        let error = unbind(&mut lab.b.qp, window, mem).unwrap_err();
        assert!(matches!(error, Error::ProtectionDomainMismatch { .. }), "{error}");
    }
    let error = unbind(&mut lab.b.qp, &mut foreign, &foreign_mem).unwrap_err();
    assert!(matches!(error, Error::ProtectionDomainMismatch { .. }), "{error}");
    let error = unbind(&mut lab.b.qp, &mut window, &unbindable).unwrap_err();
    assert!(matches!(error, Error::InvalidAccess { .. }), "{error}");
    assert_eq!(window.rkey(), key);
    bind_1(&mut lab, &mut window, 0..8, ALL);
}

#[test]
fn windows_cannot_be_bound_before_the_queue_pair_is_ready_to_send() {
    let Some(bed) = bed() else { return };
    let prepared = prepare::<Rc>(&bed, |builder| builder.add_send_ops(SendOps::WINDOWS));
    let mut qp = prepared.qp.into_manual();
    let target = bed.mem_with(LEN, BINDABLE);
    let mut type_1 = bed.pd().alloc_window::<WindowType1>().unwrap();
    let mut type_2 = bed.pd().alloc_window::<WindowType2>().unwrap();
    let keys = (type_1.rkey(), type_2.rkey());
    for state in [QpState::RESET, QpState::INIT] {
        if state == QpState::INIT {
            let attr = QueuePairAttr::new().set_state(QpState::INIT).set_pkey_index(0);
            qp.modify(&attr.set_port(PORT).set_access(ALL)).unwrap();
        }
        // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
        let result = unsafe { qp.bind_window(1, &mut type_1, target.region(), 0..8, READ) };
        assert!(matches!(result, Err(Error::NotReadyToSend)), "{result:?}");
        let result = unbind(&mut qp, &mut type_1, &target);
        assert!(matches!(result, Err(Error::NotReadyToSend)), "{result:?}");
        let result = submit(&mut qp, |batch| {
            bind(batch, 1, &mut type_2, &target, 0..8, READ);
            batch.op().local_inv(2, 1);
        });
        assert!(matches!(result, Err(Error::NotReadyToSend)), "{result:?}");
    }
    assert_eq!((type_1.rkey(), type_2.rkey()), keys);
}

#[test]
fn a_queue_pair_that_was_not_built_for_windows_binds_none_of_type_1() {
    let Some(bed) = bed() else { return };
    let (_a, mut b) = pair_with::<Rc>(&bed, |builder| builder);
    let target = bed.mem_with(LEN, BINDABLE);
    let mut window = bed.pd().alloc_window::<WindowType1>().unwrap();
    let result = unbind(&mut b.qp, &mut window, &target);
    let expected = SendOps::BIND_MW;
    assert!(
        matches!(result, Err(Error::OperationNotGranted { operation, .. }) if operation == expected),
        "{result:?}"
    );
}
