//! Completion events and asynchronous events.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ibverbs_sys as ffi;

use crate::c::{created, errno, init_attr, send_wr, verb, Bed, Qp, DEADLINE};

fn set_nonblocking(fd: c_int) {
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
}

fn is_readable(fd: c_int, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: there is one descriptor.
    let count = unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as c_int) };
    count == 1 && poll.revents == libc::POLLIN
}

/// Something that another thread may use.
struct Foreign<T>(T);
// SAFETY: verbs may be called by any thread.
unsafe impl<T> Sync for Foreign<T> {}

impl<T: Copy> Foreign<T> {
    fn get(&self) -> T {
        self.0
    }
}

#[test]
fn an_armed_queue_raises_one_event_and_waits_for_its_acknowledgement() {
    let bed = Bed::new();
    let channel = created(verb!(ibv_create_comp_channel(bed.context)));
    // SAFETY: the channel is alive.
    let fd = unsafe { (*channel).fd };
    let context = 77 as *mut c_void;
    let raw = created(verb!(ibv_create_cq(bed.context, 16, context, channel, 1)));
    let cq = bed.cq(16);
    let mut attr = init_attr(&cq, ffi::IBV_QPT_RC);
    attr.send_cq = raw;
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let (from, to) = (bed.mem(8), bed.mem(8));
    let complete = || {
        let mut sges = [from.sge(0, 8)];
        let mut wr = send_wr(1, ffi::IBV_WR_RDMA_WRITE, &mut sges);
        wr.wr.rdma.remote_addr = to.addr();
        wr.wr.rdma.rkey = to.rkey();
        qp.post_send(&mut [wr]).unwrap();
    };
    let take = || {
        let (mut cq, mut told) = (null_mut(), null_mut());
        match verb!(ibv_get_cq_event(channel, &mut cq, &mut told)) {
            0 => Ok((cq, told)),
            _ => Err(errno()),
        }
    };
    let poll = || {
        let mut wc = ffi::ibv_wc::default();
        verb!(ibv_poll_cq(raw, 1, &mut wc))
    };
    assert_eq!(verb!(ibv_req_notify_cq(raw, 0)), 0);
    complete();
    // It blocks, as the descriptor does.
    assert_eq!(take(), Ok((raw, context)));
    crate::c::eventually("the completion", || poll() == 1);
    complete();
    crate::c::eventually("the completion", || poll() == 1);
    assert!(!is_readable(fd, Duration::from_millis(20)), "it is not armed");
    set_nonblocking(fd);
    assert_eq!(take(), Err(libc::EAGAIN));
    assert_eq!(verb!(ibv_req_notify_cq(raw, 0)), 0);
    complete();
    assert!(is_readable(fd, DEADLINE));
    drop(qp);

    // One event is taken, and not acknowledged; the other was not taken, and goes with the queue.
    let acknowledged = AtomicBool::new(false);
    let foreign = Foreign(raw);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            acknowledged.store(true, Ordering::SeqCst);
            verb!(ibv_ack_cq_events(foreign.get(), 1));
        });
        assert_eq!(verb!(ibv_destroy_cq(raw)), 0);
        assert!(acknowledged.load(Ordering::SeqCst), "it did not wait");
    });
    assert!(!is_readable(fd, Duration::ZERO));
    assert_eq!(verb!(ibv_destroy_comp_channel(channel)), 0);
}

#[test]
fn an_asynchronous_event_tells_its_object_and_is_acknowledged() {
    let bed = Bed::new();
    // SAFETY: the device is open.
    let fd = unsafe { (*bed.context).async_fd };
    set_nonblocking(fd);
    let cq = bed.cq(4);
    let mut event = ffi::ibv_async_event::default();
    assert_eq!(verb!(ibv_get_async_event(bed.context, &mut event)), -1);
    assert_eq!(errno(), libc::EAGAIN);
    let qps = [(); 2].map(|()| Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself());
    for qp in &qps {
        qp.go(ffi::IBV_QPS_SQD, 0);
    }
    assert!(is_readable(fd, DEADLINE));
    assert_eq!(verb!(ibv_get_async_event(bed.context, &mut event)), 0);
    assert_eq!(event.event_type, ffi::IBV_EVENT_SQ_DRAINED);
    // SAFETY: this member was written for an event of this type.
    assert_eq!(unsafe { event.element.qp }, qps[0].raw);
    let acknowledged = AtomicBool::new(false);
    let foreign = Foreign(event);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            acknowledged.store(true, Ordering::SeqCst);
            let mut event = foreign.get();
            verb!(ibv_ack_async_event(&mut event));
        });
        drop(qps);
        assert!(acknowledged.load(Ordering::SeqCst), "it did not wait");
    });
    // That of the other queue pair went with it.
    assert_eq!(verb!(ibv_get_async_event(bed.context, &mut event)), -1);
    assert_eq!(errno(), libc::EAGAIN);
}

#[test]
fn a_queue_that_overflows_says_so() {
    let bed = Bed::new();
    let (small, other) = (bed.cq(2), bed.cq(16));
    let mut attr = init_attr(&other, ffi::IBV_QPT_RC);
    attr.send_cq = small.raw;
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let (from, to) = (bed.mem(8), bed.mem(8));
    let mut sges = [from.sge(0, 8)];
    let mut wr = send_wr(1, ffi::IBV_WR_RDMA_WRITE, &mut sges);
    wr.wr.rdma.remote_addr = to.addr();
    wr.wr.rdma.rkey = to.rkey();
    qp.post_send(&mut [wr; 5]).unwrap();
    // SAFETY: the device is open.
    assert!(is_readable(unsafe { (*bed.context).async_fd }, DEADLINE));
    let mut event = ffi::ibv_async_event::default();
    assert_eq!(verb!(ibv_get_async_event(bed.context, &mut event)), 0);
    assert_eq!(event.event_type, ffi::IBV_EVENT_CQ_ERR);
    // SAFETY: this member was written for an event of this type.
    assert_eq!(unsafe { event.element.cq }, small.raw);
    verb!(ibv_ack_async_event(&mut event));
    assert_eq!(small.poll().len(), 2, "those that fitted");
    assert_eq!(small.poll().len(), 0);
}
