//! What is left of a device in a child of the process.

use rustix::io::Errno;

use super::*;

/// Runs something in a child of this process, and returns whether it ended without a panic, in time.
fn in_child(test: impl FnOnce()) -> bool {
    // SAFETY: other threads may hold locks: of those of the C library it takes care, and the child takes no others than its own.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: ends the child if it hangs.
            unsafe { libc::alarm(20) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            // SAFETY: ends the child, without what would run at the end of the tests.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        child => {
            assert!(child > 0);
            let mut status = -1;
            // SAFETY: waits for the child, and has a place for its status.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status == 0
        }
    }
}

#[test]
fn old_devices_are_dead_in_a_child_and_alive_in_the_parent() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Rc, devices.each_ref());
    // As if another thread had been in the middle of something.
    let lock = one.device.lock().unwrap();
    let addr = one.device.addr();
    assert!(in_child(|| {
        assert!(one.device.is_dead());
        assert_eq!(one.device.alloc_pd(), Err(Errno::IO));
        assert_eq!(one.device.poll_cq(one.cq).err(), Some(Errno::IO));
        assert_eq!(one.device.destroy_qp(one.qp_num), Err(Errno::IO));
        assert_eq!(one.channel.take(), Err(Errno::IO));
        assert_eq!(one.channel.take_back(CQ_TOKEN), 0);
        assert!(format!("{:?}", one.device).contains("Device"));
        drop((one.device.clone(), one.async_queue.take()));
        // A new one is another one.
        let new = new_device(Loopback::Memory);
        assert_ne!(new.addr(), addr);
        let [this, that] = connected(Service::Rc, [&new, &new]);
        that.post_recv(1, vec![that.sge(0, 1)]);
        this.post_send(2, SendOperation::Send { imm: None }, vec![this.sge(0, 1)]);
        assert_eq!([this.wait().completion.wr_id, that.wait().completion.wr_id], [2, 1]);
    }));
    drop(lock);
    other.post_recv(1, vec![other.sge(0, 1)]);
    one.post_send(2, SendOperation::Send { imm: None }, vec![one.sge(0, 1)]);
    assert_eq!([one.wait().completion.wr_id, other.wait().completion.wr_id], [2, 1]);
}

#[test]
fn a_child_that_ends_does_not_wait_for_threads_of_its_parent() {
    let device = new_device(Loopback::Memory);
    assert!(in_child(move || drop(device)));
    let opened = Device::open(0).unwrap();
    assert!(in_child(|| {
        let new = Device::open(0).unwrap();
        assert!(!Arc::ptr_eq(&opened, &new) && !new.is_dead());
        assert_ne!(opened.addr(), new.addr());
        drop(new);
        assert!(Device::open(0).is_ok());
    }));
    assert!(!opened.is_dead());
}

#[test]
fn a_child_does_not_keep_the_address() {
    // An address that no device takes by itself, and a place that none of the tests' devices has.
    let addr = IpAddr::from([127, 0, 77, 1]);
    let device = Device::of_its_own(15, Some(addr), Loopback::Memory);
    let pipe = std::io::pipe();
    let (mut reader, writer) = pipe.unwrap();
    // SAFETY: as in `in_child`; the child only waits until the parent has closed its end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(writer);
        let _ = std::io::Read::read(&mut reader, &mut [0]);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    drop(device);
    // The child may not have run yet.
    let end = Instant::now() + LONG;
    let bind = || std::net::UdpSocket::bind((addr, 4791));
    let socket = loop {
        match bind() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            result => break result,
        }
    };
    drop(writer);
    // SAFETY: waits for the child, without a place for its status.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert!(socket.is_ok(), "{socket:?}");
}
