//! Flushes and atomic writes: reliable connections have them on few devices.

use ibverbs::{
    AccessFlags, DeviceCaps, Error, FlushLevel, FlushPlacement, Payload, Rc, RemoteMemorySlice,
    SendOps, WcOpcode, WcStatus,
};
use ibverbs_tests::{
    eventually, pair_with, pattern, submit, wait, wait_one, Ability, Bed, Side, PORT,
};

const OK: WcStatus = WcStatus::SUCCESS;

fn caps(bed: &Bed) -> DeviceCaps {
    bed.ctx().query_device_ex().unwrap().capabilities()
}

#[test]
fn what_the_device_lacks_is_unsupported_if_it_is_asked_for() {
    let bed = Bed::new();
    let flush = DeviceCaps::FLUSH_GLOBAL | DeviceCaps::FLUSH_PERSISTENT;
    for (op, needed) in [(SendOps::FLUSH, flush), (SendOps::ATOMIC_WRITE, DeviceCaps::ATOMIC_WRITE)]
    {
        let cq = bed.ctx().create_cq(1).build().unwrap();
        let build = |ops| {
            let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
            builder.set_gid_index(bed.gid_index()).add_send_ops(ops).build()
        };
        let has = caps(&bed).intersects(needed);
        match build(op) {
            Ok(qp) => assert!(has && qp.send_ops().contains(op)),
            Err(Error::Unsupported { operation }) => {
                assert!(!has, "{operation}");
                assert!(operation.contains("SendOps::"), "{operation}");
            }
            Err(error) => panic!("{error}"),
        }
        assert!(!build(SendOps::empty()).unwrap().send_ops().intersects(op));
    }
}

#[test]
fn memory_that_peers_may_flush_is_registered_where_the_device_can() {
    let bed = Bed::new();
    for (access, needed) in [
        (AccessFlags::FLUSH_GLOBAL, DeviceCaps::FLUSH_GLOBAL),
        (AccessFlags::FLUSH_PERSISTENT, DeviceCaps::FLUSH_PERSISTENT),
    ] {
        let access = access | AccessFlags::PERMISSIVE;
        let region = bed.pd().allocate(4096, access).unwrap();
        // SAFETY: no peer learns of it.
        let result = unsafe { region.remote() };
        let possible = caps(&bed).contains(needed);
        match result {
            Ok(_) => assert!(possible),
            Err(Error::Unsupported { .. }) => assert!(!possible),
            // This memory survives no loss of power, on no device.
            Err(Error::Register { access: told, .. }) => {
                assert!(possible && told.contains(AccessFlags::FLUSH_PERSISTENT));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(needed != DeviceCaps::FLUSH_PERSISTENT || result.is_err());
    }
}

/// A bed whose device has this operation, for peers with these rights, and a connection that has it.
fn with(op: SendOps, access: AccessFlags) -> Option<(Bed, Side, Side)> {
    let ability = if op == SendOps::FLUSH { Ability::Flushes } else { Ability::AtomicWrites };
    let bed = Bed::with([ability])?;
    let (a, b) = pair(&bed, op, access);
    Some((bed, a, b))
}

/// A connection with this operation, and with peers that may flush.
fn pair(bed: &Bed, op: SendOps, access: AccessFlags) -> (Side, Side) {
    pair_with::<Rc>(bed, |builder| builder.add_send_ops(op).set_access(access))
}

const FLUSHABLE: AccessFlags = AccessFlags::PERMISSIVE.union(AccessFlags::FLUSH_GLOBAL);

#[test]
fn a_flush_completes_after_the_writes_that_it_waits_for() {
    let Some((bed, mut a, _b)) = with(SendOps::FLUSH, FLUSHABLE) else { return };
    let (from, to) = (bed.mem(8192), bed.mem_with(8192, FLUSHABLE));
    let remote = to.remote();
    for (round, level) in [FlushLevel::Range, FlushLevel::Region].into_iter().enumerate() {
        let data = pattern(8192, round as u64);
        from.write(0, &data);
        submit(&mut a.qp, |batch| {
            batch.op().write(1, &[from.slice(..5000)], remote);
            batch.op().write(2, &[from.slice(5000..)], remote.slice(5000..));
            let part = remote.slice(4000..6000);
            batch.op().signaled().flush(3, part, FlushPlacement::GLOBAL, level);
        })
        .unwrap();
        let wc = wait_one(&a.send_cq, 3);
        assert_eq!((wc.ok, wc.opcode), (Ok(()), WcOpcode::FLUSH), "{level:?}");
        assert!(to.read(..) == data, "{level:?}");
    }
}

#[test]
fn a_flush_that_is_not_allowed_fails() {
    let Some(bed) = Bed::with([Ability::Flushes]) else { return };
    let may = bed.mem_with(4096, FLUSHABLE).remote();
    let may_not = bed.mem(4096).remote();
    let wrong = RemoteMemorySlice { rkey: may.rkey ^ 0x5a5a_5a00, ..may };
    let beyond = RemoteMemorySlice { len: may.len + 1, ..may };
    for (remote, access, placement) in [
        (may_not, FLUSHABLE, FlushPlacement::GLOBAL),
        (may, AccessFlags::PERMISSIVE, FlushPlacement::GLOBAL),
        (may, FLUSHABLE, FlushPlacement::PERSISTENT),
        (may, FLUSHABLE, FlushPlacement::all()),
        (wrong, FLUSHABLE, FlushPlacement::GLOBAL),
        (beyond, FLUSHABLE, FlushPlacement::GLOBAL),
    ] {
        let (mut a, _b) = pair(&bed, SendOps::FLUSH, access);
        submit(&mut a.qp, |batch| {
            batch.op().signaled().flush(1, remote, placement, FlushLevel::Range);
            batch.op().signaled().write(2, Payload::EMPTY, may);
        })
        .unwrap();
        let found = wait(&a.send_cq, 2);
        let refused = [WcStatus::REM_ACCESS_ERR, WcStatus::REM_INV_REQ_ERR];
        assert!(refused.contains(&found[0].status()), "{placement:?} {remote:?}: {found:?}");
        assert_eq!(found[1].status(), WcStatus::WR_FLUSH_ERR);
    }
}

#[test]
fn a_flush_to_nowhere_refuses_its_batch() {
    let Some((bed, mut a, _b)) = with(SendOps::FLUSH, FLUSHABLE) else { return };
    let to = bed.mem_with(4096, FLUSHABLE);
    for placement in [FlushPlacement::empty(), FlushPlacement::from_bits_retain(4)] {
        let error = submit(&mut a.qp, |batch| {
            batch.op().flush(1, to.remote(), placement, FlushLevel::Range);
        });
        let error = error.unwrap_err();
        let expected = matches!(error, Error::InvalidArgument { value, .. } if value == placement.bits().into());
        assert!(expected, "{error}");
    }
}

#[test]
fn an_atomic_write_stores_eight_bytes() {
    let access = AccessFlags::PERMISSIVE;
    let Some((bed, mut a, _b)) = with(SendOps::ATOMIC_WRITE, access) else { return };
    let (from, to) = (bed.mem(4096), bed.mem(4096));
    let remote = to.remote();
    let data = pattern(4096, 7);
    from.write(0, &data);
    for value in [0x0123_4567_89ab_cdef, u64::MAX, 0] {
        submit(&mut a.qp, |batch| {
            batch.op().write(1, &[from.slice(..)], remote);
            batch.op().signaled().atomic_write(2, remote.slice(2048..), value);
        })
        .unwrap();
        let wc = wait_one(&a.send_cq, 2);
        assert_eq!((wc.ok, wc.opcode), (Ok(()), WcOpcode::ATOMIC_WRITE));
        assert_eq!(to.read_u64(2048), value);
        assert!(to.read(..2048) == data[..2048] && to.read(2056..) == data[2056..]);
    }
}

#[test]
fn whoever_sees_an_atomic_write_sees_what_was_written_before() {
    let access = AccessFlags::PERMISSIVE;
    let Some((bed, mut a, _b)) = with(SendOps::ATOMIC_WRITE, access) else { return };
    let (from, to) = (bed.mem(8192), bed.mem(8200));
    let remote = to.remote();
    for round in 1..20 {
        let data = pattern(8192, round);
        from.write(0, &data);
        submit(&mut a.qp, |batch| {
            batch.op().write(1, &[from.slice(..)], remote);
            batch.op().signaled().atomic_write(2, remote.slice(8192..), round);
        })
        .unwrap();
        eventually("the number has arrived", || to.read_u64(8192) == round);
        assert!(to.read(..8192) == data, "round {round}");
        assert_eq!(wait_one(&a.send_cq, 2).status(), OK);
    }
}

#[test]
fn an_atomic_write_that_cannot_be_is_refused_here_or_by_the_peer() {
    let access = AccessFlags::PERMISSIVE;
    let Some((bed, mut a, _b)) = with(SendOps::ATOMIC_WRITE, access) else { return };
    let to = bed.mem(64);
    let remote = to.remote();
    let mut refusal = |remote| {
        let result = submit(&mut a.qp, |batch| batch.op().atomic_write(1, remote, u64::MAX));
        result.expect_err("the batch should have been refused")
    };
    let error = refusal(remote.slice(..7));
    assert!(matches!(error, Error::BeyondRemote { bytes: 8, len: 7 }), "{error}");
    for odd in [1, 2, 4, 7] {
        let error = refusal(remote.slice(odd..));
        let address = remote.addr + odd;
        let expected = matches!(error, Error::InvalidArgument { value, .. } if value == address);
        assert!(expected, "{error}");
    }

    let readable = bed.mem_with(64, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ).remote();
    let wrong = RemoteMemorySlice { rkey: remote.rkey ^ 0x5a5a_5a00, ..remote };
    let beyond = RemoteMemorySlice { addr: remote.addr + 64, ..remote };
    for remote in [readable, wrong, beyond] {
        let (mut a, _b) = pair(&bed, SendOps::ATOMIC_WRITE, access);
        submit(&mut a.qp, |batch| batch.op().signaled().atomic_write(1, remote, u64::MAX)).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).status(), WcStatus::REM_ACCESS_ERR, "{remote:?}");
    }
    assert_eq!(to.read(..), [0; 64]);
}

#[test]
fn a_queue_pair_that_was_not_built_for_them_refuses_them() {
    let bed = Bed::new();
    let (mut a, _b) = pair_with::<Rc>(&bed, |builder| builder);
    let remote = bed.mem(64).remote();
    for op in [SendOps::FLUSH, SendOps::ATOMIC_WRITE] {
        let error = submit(&mut a.qp, |batch| match op {
            SendOps::FLUSH => {
                batch.op().flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
            }
            _ => batch.op().atomic_write(1, remote, 1),
        });
        let error = error.unwrap_err();
        let expected =
            matches!(error, Error::OperationNotGranted { operation, .. } if operation == op);
        assert!(expected, "{error}");
    }
}
