//! Windows of type 2, which are bound in batches.

use std::time::{Duration, Instant};

use ibverbs::{
    AccessFlags, Error, MemoryRegion, MemoryWindow, Payload, QpState, QueuePair,
    QueuePairAttrMask as Mask, Rc, RecvRequest, RemoteMemorySlice, SendOps, Uc, WcFlags, WcOpcode,
    WcStatus, WindowType2,
};
use ibverbs_tests::{
    eventually, pair_with, pattern, post_recv, submit, wait_ok, wait_one, Bed, Mem, PORT,
};

use crate::{assert_unbound, bed, bind, Lab, ALL, ATOMIC, BINDABLE, LEN, OK, READ, REFUSED, WRITE};

#[test]
fn a_window_gives_a_peer_a_piece_of_memory() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let before = pattern(LEN, 1);
    lab.target.write(0, &before);
    let mut window = bed.pd().alloc_window().unwrap();
    let remote = lab.bind(&mut window, 100..1100, ALL);
    assert_eq!((remote.addr, remote.len), (lab.target.slice(100..).addr(), 1000));
    assert_eq!(remote.rkey, window.rkey());

    let data = pattern(1000, 2);
    assert_eq!(lab.write(&data, remote), OK);
    assert_eq!(lab.target.read(100..1100), data);
    assert_eq!(lab.target.read(..100), before[..100]);
    assert_eq!(lab.target.read(1100..), before[1100..]);
    assert_eq!(lab.read(1000, remote), Ok(data));
    let word = remote.slice(4..12);
    lab.target.write_u64(104, 40);
    assert_eq!(lab.add(word, 2), OK);
    assert_eq!((lab.target.read_u64(104), lab.from.read_u64(0)), (42, 40));
}

#[test]
fn a_window_ends_where_it_was_bound_to() {
    let Some(bed) = bed() else { return };
    let mut window = bed.pd().alloc_window().unwrap();
    // SoftRoCE looks for the bounds of the region only.
    let (region, inside) = (LEN as u64, if bed.is_softroce() { OK } else { REFUSED });
    for (start, len, expected) in [
        (99, 1, inside),
        (1100, 1, inside),
        (99, 1002, inside),
        (region - 1, 2, REFUSED),
        (region, 1, REFUSED),
        (1100, region, REFUSED),
    ] {
        let mut attempt = |what: &dyn Fn(&mut Lab, RemoteMemorySlice) -> WcStatus| {
            let mut lab = Lab::new(&bed);
            let remote = lab.bind(&mut window, 100..1100, ALL);
            let whole = RemoteMemorySlice { addr: remote.addr - 100, len: 2 * region, ..remote };
            let status = what(&mut lab, whole.slice(start..start + len));
            assert_eq!(status, expected, "{len} bytes at {start}");
            if status != OK {
                assert_eq!(lab.target.read(..), vec![0; LEN]);
            }
            lab.free(&mut window);
        };
        attempt(&|lab, remote| lab.write(&vec![7; len as usize], remote));
        attempt(&|lab, remote| lab.read(len as usize, remote).map_or_else(|error| error, |_| OK));
    }
}

#[test]
fn a_window_gives_no_more_rights_than_it_was_bound_with() {
    let Some(bed) = bed() else { return };
    let mut window = bed.pd().alloc_window().unwrap();
    for access in [READ, WRITE, ATOMIC, READ | WRITE, ALL] {
        let mut attempt = |what: &dyn Fn(&mut Lab, RemoteMemorySlice) -> WcStatus| {
            let mut lab = Lab::new(&bed);
            let remote = lab.bind(&mut window, 8..16, access);
            let status = what(&mut lab, remote);
            lab.free(&mut window);
            status
        };
        let status = |right| if access.contains(right) { OK } else { REFUSED };
        let wrote = attempt(&|lab, remote| lab.write(b"12345678", remote));
        assert_eq!(wrote, status(WRITE), "{access:?}");
        let read = attempt(&|lab, remote| lab.read(8, remote).map_or_else(|error| error, |_| OK));
        assert_eq!(read, status(READ), "{access:?}");
        let added = attempt(&|lab, remote| lab.add(remote, 1));
        assert_eq!(added, status(ATOMIC), "{access:?}");
    }
}

#[test]
fn a_key_that_was_withdrawn_is_dead_and_the_next_bind_has_another_one() {
    let Some(bed) = bed() else { return };
    for rebound in [false, true] {
        let mut lab = Lab::new(&bed);
        let mut window = bed.pd().alloc_window().unwrap();
        let mut keys = vec![window.rkey()];
        for _ in 0..5 {
            let remote = lab.bind(&mut window, 0..64, ALL);
            assert!(!keys.contains(&remote.rkey), "{remote:?} {keys:?}");
            keys.push(remote.rkey);
            assert_eq!(lab.write(b"before", remote), OK);
            lab.invalidate(remote.rkey);
        }
        let old = RemoteMemorySlice { rkey: window.rkey(), ..lab.target_as_remote() };
        if rebound {
            let new = lab.bind(&mut window, 64..128, ALL);
            assert_eq!(lab.write(b"new", new), OK);
            assert_eq!(lab.target.read(64..67), b"new");
        }
        assert_eq!(lab.write(b"after!", old), REFUSED);
        assert_eq!(lab.target.read(..6), b"before");
    }
}

#[test]
fn one_batch_binds_a_window_and_tells_the_peer() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window().unwrap();
    let inbox = bed.mem(RemoteMemorySlice::BYTES);
    post_recv(&mut lab.a.qp, [RecvRequest::new(1, &[inbox.slice(..)])]).unwrap();
    let Lab { b, target, .. } = &mut lab;
    submit(&mut b.qp, |batch| {
        let remote = bind(batch, 2, &mut window, target, 32..64, WRITE);
        batch.op().signaled().send(3, &remote.to_bytes());
    })
    .unwrap();
    assert_eq!(wait_one(&lab.a.recv_cq, 1).ok, Ok(()));
    let done = wait_ok(&lab.b.send_cq, 2);
    assert_eq!(done.iter().map(|wc| wc.wr_id).collect::<Vec<_>>(), [2, 3]);
    let remote = RemoteMemorySlice::from_bytes(&inbox.read(..)).unwrap();
    assert_eq!(lab.write(b"told", remote), OK);
    assert_eq!(lab.target.read(32..36), b"told");
}

#[test]
fn a_peer_hands_a_key_back_with_a_send() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window().unwrap();
    let inbox = bed.mem(64);
    for round in 0..3 {
        let remote = lab.bind(&mut window, 0..64, ALL);
        lab.from.write(0, b"done it");
        let (slice, inbox_slice) = (lab.from.slice(..7), [inbox.slice(..)]);
        post_recv(&mut lab.b.qp, [RecvRequest::new(round, &inbox_slice)]).unwrap();
        submit(&mut lab.a.qp, |batch| {
            batch.op().write(1, &[slice], remote);
            // Inline, from memory, or nothing at all.
            let op = batch.op().signaled();
            match round {
                0 => op.send_with_inv(2, b"inline!", remote.rkey),
                1 => op.send_with_inv(2, &[slice], remote.rkey),
                _ => op.solicited().send_with_inv(2, Payload::EMPTY, remote.rkey),
            }
        })
        .unwrap();
        let sent = wait_one(&lab.a.send_cq, 2);
        assert_eq!((sent.ok, sent.opcode), (Ok(()), WcOpcode::SEND));
        let received = wait_one(&lab.b.recv_cq, round);
        assert_eq!((received.ok, received.opcode), (Ok(()), WcOpcode::RECV));
        // SoftRoCE does not tell programs.
        let told = received.flags.contains(WcFlags::WITH_INV);
        assert_eq!(told, !bed.is_softroce(), "{received:?}");
        assert_eq!((received.imm, received.len), (None, if round < 2 { 7 } else { 0 }));
        assert_eq!(lab.target.read(..7), b"done it");
    }
    assert_eq!(inbox.read(..7), b"done it");
    let remote = lab.bind(&mut window, 0..64, ALL);
    let inbox_slice = [inbox.slice(..)];
    post_recv(&mut lab.b.qp, [RecvRequest::new(9, &inbox_slice)]).unwrap();
    submit(&mut lab.a.qp, |batch| {
        batch.op().send_with_inv(3, b"withdrawn", remote.rkey);
    })
    .unwrap();
    assert_eq!(wait_one(&lab.b.recv_cq, 9).ok, Ok(()));
    assert_eq!(lab.write(b"too late", remote), REFUSED);
    assert_eq!(lab.target.read(..7), b"done it");
}

#[test]
fn a_send_that_withdraws_a_key_that_there_is_not_fails_the_receiver() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let inbox = bed.mem(64);
    let receive = [inbox.slice(..)];
    post_recv(&mut lab.b.qp, [RecvRequest::new(1, &receive)]).unwrap();
    submit(&mut lab.a.qp, |batch| batch.op().send_with_inv(2, b"x", 0x7fff_ff01)).unwrap();
    assert_ne!(wait_one(&lab.b.recv_cq, 1).status(), OK);
    eventually("the queue pair has failed", || {
        lab.b.qp.query(Mask::STATE).unwrap().state() == Some(QpState::ERR)
    });
}

#[test]
fn the_key_of_a_window_of_type_2_is_for_one_peer() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window().unwrap();
    let remote = lab.bind(&mut window, 0..64, ALL);
    let mut other = Lab::new(&bed);
    assert_eq!(other.write(b"stranger", remote), REFUSED);
    assert_eq!(lab.target.read(..8), [0; 8]);
    assert_eq!(lab.write(b"peer", remote), OK);
}

#[test]
fn one_region_takes_many_windows_and_one_window_many_regions() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut windows: Vec<MemoryWindow> =
        (0..20).map(|_| bed.pd().alloc_window().unwrap()).collect();
    let remotes: Vec<_> = windows
        .iter_mut()
        .enumerate()
        .map(|(n, window)| lab.bind(window, n * 100..n * 100 + 200, WRITE))
        .collect();
    for (n, remote) in remotes.iter().enumerate() {
        assert_eq!(lab.write(&[n as u8 + 1; 200], *remote), OK);
    }
    for n in 0..20 {
        assert_eq!(lab.target.read(n * 100..n * 100 + 100), [n as u8 + 1; 100]);
    }
    for window in &windows {
        lab.invalidate(window.rkey());
    }
    lab.target = bed.mem_with(LEN, BINDABLE);
    let remote = lab.bind(&mut windows[7], 0..LEN, READ | WRITE);
    assert_eq!(lab.write(b"elsewhere", remote), OK);
    assert_eq!(lab.target.read(..9), b"elsewhere");
}

#[test]
fn a_bind_that_cannot_be_refuses_its_batch() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let other_pd = bed.ctx().alloc_pd().unwrap();
    let mut window = bed.pd().alloc_window::<WindowType2>().unwrap();
    let mut foreign = other_pd.alloc_window::<WindowType2>().unwrap();
    let foreign_mem = bed.mem_of(&other_pd, LEN, BINDABLE);
    let (own, fixed) = (lab.target.clone(), bed.mem_with(LEN, AccessFlags::MW_BIND));
    let unbindable = bed.mem_with(LEN, AccessFlags::PERMISSIVE);
    let key = window.rkey();
    let mut refusal = |window: &mut MemoryWindow, mem: &Mem, len, access| {
        let from = lab.from.slice(..4);
        let error = submit(&mut lab.b.qp, |batch| {
            batch.op().signaled().send(1, &[from]);
            let remote = bind(batch, 2, window, mem, 0..len, access);
            assert_eq!(remote.len, 0, "nothing is shown");
        });
        error.expect_err("the batch should have been refused")
    };
    let domain = |error: Error, expected: &str| {
        let ok = matches!(error, Error::ProtectionDomainMismatch { what } if what == expected);
        assert!(ok, "{error}");
    };
    domain(refusal(&mut foreign, &own, 8, READ), "memory region of the window");
    domain(refusal(&mut window, &foreign_mem, 8, READ), "memory region of the window");
    domain(refusal(&mut foreign, &foreign_mem, 8, READ), "memory window");
    let access = |error: Error, expected: AccessFlags, text: &str| {
        assert!(
            matches!(error, Error::InvalidAccess { access, .. } if access == expected),
            "{error}"
        );
        assert!(error.to_string().contains(text), "{error}");
    };
    for wrong in [AccessFlags::LOCAL_WRITE, AccessFlags::MW_BIND, AccessFlags::FLUSH_GLOBAL] {
        let error = refusal(&mut window, &own, 8, READ | wrong);
        access(error, READ | wrong, "remote read, write and atomic rights only");
    }
    let error = refusal(&mut window, &unbindable, 8, READ);
    access(error, AccessFlags::PERMISSIVE, "MW_BIND");
    for right in [WRITE, ATOMIC, ALL] {
        let error = refusal(&mut window, &fixed, 8, right);
        access(error, AccessFlags::MW_BIND, "LOCAL_WRITE");
    }
    let error = refusal(&mut window, &own, 0, READ);
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
    assert_eq!(window.rkey(), key, "it keeps its key");

    // Reading needs no LOCAL_WRITE; and nothing of all that was posted.
    lab.target = fixed;
    let remote = lab.bind(&mut window, 0..8, READ);
    assert_eq!(lab.read(8, remote), Ok(vec![0; 8]));
}

#[test]
#[should_panic = "out of range"]
fn a_window_beyond_its_region_panics() {
    let Some(bed) = bed() else { panic!("out of range") };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window().unwrap();
    lab.bind(&mut window, 1..LEN + 1, READ);
}

#[test]
fn a_queue_pair_that_was_not_built_for_windows_binds_and_invalidates_none() {
    let Some(bed) = bed() else { return };
    let mut window = bed.pd().alloc_window().unwrap();
    let target = bed.mem_with(LEN, BINDABLE);
    let operations = [SendOps::BIND_MW, SendOps::LOCAL_INV, SendOps::SEND_WITH_INV];
    for missing in operations {
        let others = SendOps::WINDOWS - missing;
        let (mut a, _b) =
            pair_with::<Rc>(&bed, |builder| builder.add_send_ops(others).set_max_inline_data(64));
        assert!(a.qp.send_ops().contains(others) && !a.qp.send_ops().contains(missing));
        for operation in operations {
            let key = window.rkey();
            let mut batch = a.qp.start_send();
            match operation {
                SendOps::BIND_MW => drop(bind(&mut batch, 1, &mut window, &target, 0..8, READ)),
                SendOps::LOCAL_INV => batch.op().local_inv(1, 1),
                _ => batch.op().send_with_inv(1, b"x", 1),
            }
            if operation != missing {
                drop(batch);
                window.set_rkey(key).unwrap();
                continue;
            }
            // SAFETY: nothing of it is posted.
            let error = unsafe { batch.submit() }.unwrap_err();
            let ok = matches!(error, Error::OperationNotGranted { operation, .. } if operation == missing);
            assert!(ok, "{error}");
        }
    }
}

#[test]
fn a_bind_that_was_not_posted_is_made_good_with_the_old_key() {
    let Some(bed) = bed() else { return };
    let mut window = bed.pd().alloc_window().unwrap();
    let mut lab = Lab::new(&bed);
    let (key, target) = (window.rkey(), lab.target.clone());
    let mut batch = lab.b.qp.start_send();
    let remote = bind(&mut batch, 1, &mut window, &target, 0..8, READ);
    drop(batch);
    assert_ne!(remote.rkey, key);
    assert_eq!(window.rkey(), remote.rkey);
    window.set_rkey(key).unwrap();
    let remote = lab.bind(&mut window, 0..8, READ);
    assert_eq!(lab.read(8, remote), Ok(vec![0; 8]));
    lab.free(&mut window);

    // Without that, the device is told of a key that it does not know.
    let mut lab = Lab::new(&bed);
    let mut batch = lab.b.qp.start_send();
    let right = window.rkey();
    bind(&mut batch, 1, &mut window, &target, 0..8, READ);
    drop(batch);
    let posted = submit(&mut lab.b.qp, |batch| {
        bind(batch, 2, &mut window, &target, 0..8, READ);
    });
    posted.unwrap();
    assert_unbound(&lab, 2);
    window.set_rkey(right).unwrap();
    let mut lab = Lab::new(&bed);
    lab.bind(&mut window, 0..8, READ);
    lab.free(&mut window);
}

#[test]
fn a_window_that_is_bound_cannot_be_bound_again() {
    let Some(bed) = bed() else { return };
    let mut window = bed.pd().alloc_window().unwrap();
    let mut lab = Lab::new(&bed);
    let first = lab.bind(&mut window, 0..8, ALL);
    let target = lab.target.clone();
    submit(&mut lab.b.qp, |batch| {
        bind(batch, 1, &mut window, &target, 8..16, READ);
    })
    .unwrap();
    assert_unbound(&lab, 1);
    window.set_rkey(first.rkey).unwrap();
    lab.free(&mut window);
}

/// The leak detector knows this function by its name (leaks.txt).
#[inline(never)]
fn region_that_is_leaked_on_purpose(bed: &Bed) -> MemoryRegion {
    bed.pd().allocate(LEN, BINDABLE).unwrap()
}

#[test]
fn a_region_to_which_a_window_is_bound_stays() {
    let Some(bed) = bed() else { return };
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window::<WindowType2>().unwrap();
    let mut region = region_that_is_leaked_on_purpose(&bed);
    region.bytes_mut()[..6].copy_from_slice(b"steady");
    let mut remote = None;
    submit(&mut lab.b.qp, |batch| {
        let op = batch.op().signaled();
        // SAFETY: there is no reference to the bytes until the key is withdrawn.
        remote = Some(unsafe { op.bind_window(1, &mut window, &region, .., READ) });
    })
    .unwrap();
    assert_eq!(wait_one(&lab.b.send_cq, 1).ok, Ok(()));
    let failed = region.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "memory region" }), "{failed}");
    let region = failed.resource;
    assert_eq!(lab.read(6, remote.unwrap().slice(..6)), Ok(b"steady".to_vec()));

    // Dropped, it stays as well: the peer can still read it.
    let address = region.bytes().as_ptr() as usize;
    drop(region);
    assert!(is_mapped(address));
    assert_eq!(lab.read(6, remote.unwrap().slice(..6)), Ok(b"steady".to_vec()));
    lab.invalidate(window.rkey());
}

/// Whether there is memory at this address.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    })
}

#[test]
fn a_region_can_be_closed_when_its_windows_are_unbound_or_gone() {
    let Some(bed) = bed() else { return };
    // What withdraws the key.
    type End = fn(&mut Lab, MemoryWindow);
    let endings: [End; 3] = [
        |lab, window| lab.invalidate(window.rkey()),
        |_, window| drop(window),
        |_, window| window.close().unwrap(),
    ];
    for end in endings {
        let mut lab = Lab::new(&bed);
        let mut window = bed.pd().alloc_window::<WindowType2>().unwrap();
        let region = bed.pd().allocate(LEN, BINDABLE).unwrap();
        submit(&mut lab.b.qp, |batch| {
            let op = batch.op().signaled();
            // SAFETY: there is no reference to the bytes.
            unsafe { op.bind_window(1, &mut window, &region, .., ALL) };
        })
        .unwrap();
        assert_eq!(wait_one(&lab.b.send_cq, 1).ok, Ok(()));
        end(&mut lab, window);
        region.close().unwrap();
    }
}

#[test]
fn a_queue_pair_takes_its_windows_with_it() {
    let Some(bed) = bed() else { return };
    // SoftRoCE waits 50 seconds for a window to let go of its queue pair.
    let end = Instant::now() + Duration::from_secs(45);
    let endings: [fn(QueuePair<Rc>); 3] =
        [|qp| qp.close().unwrap(), drop, |qp| qp.reset().unwrap().close().unwrap()];
    for end in endings {
        let mut lab = Lab::new(&bed);
        let [mut first, mut second, mut other, mut free] =
            [(); 4].map(|()| bed.pd().alloc_window::<WindowType2>().unwrap());
        let region = bed.pd().allocate(LEN, BINDABLE).unwrap();
        lab.bind(&mut first, 0..8, READ);
        lab.bind(&mut second, 8..16, READ);
        lab.bind(&mut other, 16..24, READ);
        lab.invalidate(other.rkey());
        let mut survivor = Lab::new(&bed);
        let remote = survivor.bind(&mut other, 0..8, READ);
        end(lab.b.qp);
        region.close().unwrap();
        lab.target.region();

        for window in [&mut first, &mut second] {
            assert!(window.as_raw().is_null());
            let key = window.rkey();
            window.set_rkey(key ^ 1).unwrap();
            assert_eq!(window.rkey(), key ^ 1);
            let refused = window.set_rkey(key ^ 0x100);
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
            let target = survivor.target.clone();
            let error = submit(&mut survivor.b.qp, |batch| {
                bind(batch, 1, window, &target, 0..8, READ);
            });
            let error = error.unwrap_err();
            assert!(matches!(error, Error::WindowFreed), "{error}");
        }
        first.close().unwrap();
        drop(second);
        // The other ones are not affected.
        assert_eq!(survivor.read(8, remote), Ok(vec![0; 8]));
        survivor.bind(&mut free, 8..16, READ);
    }
    assert!(Instant::now() < end, "destroying a queue pair has waited for a window");
}

#[test]
fn a_queue_pair_that_was_dropped_within_a_poll_takes_its_windows_with_it_later() {
    let Some(bed) = bed() else { return };
    let start = Instant::now();
    let mut lab = Lab::new(&bed);
    let mut window = bed.pd().alloc_window::<WindowType2>().unwrap();
    lab.bind(&mut window, 0..8, READ);
    let key = window.rkey();
    let Lab { b, .. } = lab;
    let mut qp = b.qp;
    submit(&mut qp, |batch| batch.op().signaled().local_inv(1, key)).unwrap();
    let mut completions = None;
    eventually("the request has completed", || {
        completions = b.send_cq.poll().unwrap();
        completions.is_some()
    });
    drop(qp);
    assert_eq!(window.rkey(), key);
    drop(completions);
    assert!(window.as_raw().is_null());
    assert!(start.elapsed() < Duration::from_secs(45), "it has waited for the window");
}

#[test]
fn an_unreliable_connection_has_windows_for_writes() {
    let Some(bed) = bed() else { return };
    if bed.is_softroce() {
        // There it has no local invalidation.
        let cq = bed.ctx().create_cq(1).build().unwrap();
        for ops in [SendOps::LOCAL_INV, SendOps::WINDOWS] {
            let builder = bed.pd().create_qp::<Uc>(&cq, &cq, PORT).unwrap();
            let result = builder.add_send_ops(ops).build();
            assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
        }
    }
    let ops = SendOps::BIND_MW;
    let (mut a, mut b) = pair_with::<Uc>(&bed, |builder| builder.add_send_ops(ops));
    let (from, target) = (bed.mem(LEN), bed.mem_with(LEN, BINDABLE));
    let data = pattern(LEN, 9);
    from.write(0, &data);
    let [mut writable, mut readable] =
        [(); 2].map(|()| bed.pd().alloc_window::<WindowType2>().unwrap());
    let mut remotes = Vec::new();
    submit(&mut b.qp, |batch| {
        for (window, start, access) in [(&mut writable, 0, WRITE), (&mut readable, 1024, READ)] {
            let (op, range) = (batch.op().signaled(), start..start + 1024);
            // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
            let remote = unsafe { op.bind_window(1, window, target.region(), range, access) };
            remotes.push(remote);
        }
    })
    .unwrap();
    wait_ok(&b.send_cq, 2);
    submit(&mut a.qp, |batch| {
        batch.op().write(2, &[from.slice(1024..2048)], remotes[1]);
        batch.op().signaled().write(3, &[from.slice(..1024)], remotes[0]);
    })
    .unwrap();
    // Nobody tells that the first one was dropped, unless the sender's completion does.
    assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
    eventually("the write has arrived", || target.read(..1024) == data[..1024]);
    assert_eq!(target.read(1024..), vec![0; LEN - 1024]);
}
