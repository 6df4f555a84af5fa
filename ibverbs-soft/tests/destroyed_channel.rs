//! An event channel that a thread is about to read when it is destroyed. The only test in its process: the memory of the channel is
//! that of the next one.

// Not every test program needs all of it.
#[allow(dead_code)]
mod c;

use std::ptr::null_mut;

use c::{created, errno, verb, Bed};
use ibverbs_soft::Options;
use ibverbs_sys as ffi;

fn options() -> Options {
    Options::default()
}

#[test]
fn who_reads_a_destroyed_channel_is_told_so_and_the_next_one_is_whole() {
    let _bed = Bed::new();
    let mut event = null_mut();
    for arg in 0..3 {
        let channel = created(verb!(rdma_create_event_channel()));
        let mut id = null_mut();
        assert_eq!(verb!(rdma_create_id(channel, &mut id, null_mut(), ffi::RDMA_PS_TCP)), 0);
        assert_eq!(verb!(rdma_write_cm_event(id, ffi::RDMA_CM_EVENT_USER, 0, arg)), 0);
        assert_eq!(verb!(rdma_get_cm_event(channel, &mut event)), 0);
        // SAFETY: an event that was not acknowledged.
        let param = unsafe { event.read() }.param;
        // SAFETY: the member that such an event has.
        assert_eq!(unsafe { param.arg }, arg);
        assert_eq!(verb!(rdma_ack_cm_event(event)), 0);
        assert_eq!(verb!(rdma_destroy_id(id)), 0);
        verb!(rdma_destroy_event_channel(channel));
        assert_eq!((verb!(rdma_get_cm_event(channel, &mut event)), errno()), (-1, libc::EBADF));
    }
}
