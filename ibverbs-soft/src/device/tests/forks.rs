//! What is left of a device in a child of the process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;

use super::*;
use crate::driver::Tape;
use crate::transport::Status;

/// Begins a child of this process, which does something and then ends in this way: with 0 if there was no panic.
fn start_child(test: impl FnOnce(), end: unsafe extern "C" fn(libc::c_int) -> !) -> libc::pid_t {
    // SAFETY: other threads may hold locks: of those of the C library it takes care, and the child takes no others than its own.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: ends the child if it hangs.
        unsafe { libc::alarm(20) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        // SAFETY: ends the child; what is done before that is what the test is about.
        unsafe { end(i32::from(result.is_err())) }
    }
    child
}

/// Waits until a child has ended, and returns whether it did so with 0.
fn has_succeeded(child: libc::pid_t) -> bool {
    let mut status = -1;
    // SAFETY: waits for the child, and has a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status == 0
}

/// Runs something in a child of this process, without what would run at the end of it.
fn in_child(test: impl FnOnce()) -> bool {
    has_succeeded(start_child(test, libc::_exit))
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
fn a_child_does_not_wait_for_a_capture_of_its_parent() {
    let path = std::env::temp_dir().join(format!("ibverbs-soft-{}.pcap", std::process::id()));
    let tape = Tape::begin(&path).unwrap();
    assert!(in_child(|| {
        let error = tape.close().unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    }));
    assert_eq!(tape.close().unwrap(), 0);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_child_does_not_keep_the_address() {
    // An address that no device takes by itself, and a place that none of the tests' devices has.
    let addr = IpAddr::from([127, 0, 77, 1]);
    let device = Device::of_its_own(15, Some(addr), Loopback::Memory);
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let wait = || {
        let _ = reader.read(&mut [0]);
    };
    let child = start_child(wait, libc::_exit);
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
    // Whoever else has a copy.
    writer.shutdown(Shutdown::Both).unwrap();
    assert!(has_succeeded(child));
    assert!(socket.is_ok(), "{socket:?}");
}

/// Connects a queue pair with one of another process, whose address and number come through a socket.
fn connect(side: &Side, mut stream: &UnixStream) {
    let IpAddr::V4(addr) = side.device.addr() else { unreachable!("devices choose IPv4") };
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&[addr.octets(), side.qp_num.to_be_bytes()].concat()).unwrap();
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).unwrap();
    let dest = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    let dest_qp = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    side.bring_to_rts(Some(Path { dest: dest.into(), ..side.path_to(side) }), dest_qp);
    side.post_recv(1, vec![side.sge(0, 1)]);
    // Both are ready.
    stream.write_all(&[0]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn who_exits_acknowledges_what_it_has_received() {
    let (here, there) = UnixStream::pair().unwrap();
    let receive = || {
        let side = Side::new(&Device::open(0).unwrap(), Service::Rc, 8);
        connect(&side, &there);
        assert_eq!(side.wait().completion.status, Status::Success);
        // The program leaves everything as it is.
        std::mem::forget(side);
    };
    let child = start_child(receive, libc::exit);
    let side = Side::new(&new_device(Loopback::Memory), Service::Rc, 8);
    connect(&side, &here);
    // Until it is the child's polling thread that receives, and not its engine, which would acknowledge at once.
    std::thread::sleep(Duration::from_millis(20));
    side.post_send(2, SendOperation::Send { imm: None }, vec![side.sge(0, 1)]);
    assert_eq!(side.wait().completion.status, Status::Success);
    assert!(has_succeeded(child));
}
