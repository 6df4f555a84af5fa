//! A completion queue that its provider loses. The limit on memory is that of the whole process, so that this
//! is a test binary of its own.

use ibverbs::{Error, Rc, Wc};
use ibverbs_tests::{submit, wait_one, Bed, PORT};

/// Sets how many bytes the process may have mapped, and returns what it was.
fn limit_memory(limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it points to a whole structure.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut now) }, 0);
    let wanted = libc::rlimit { rlim_cur: limit, ..now };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &wanted) }, 0);
    now.rlim_cur
}

#[test]
fn a_queue_that_cannot_be_mapped_again_is_not_polled() {
    let Some(bed) = Bed::new() else { return };
    let mut cq = bed.ctx().create_cq(16).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    let prepared = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    let mem = bed.mem(8);
    let remote = mem.remote();
    let mut complete = |wr_id| {
        submit(&mut qp, |batch| batch.op().signaled().write(wr_id, &[mem.slice(..)], remote))
            .unwrap();
    };
    complete(1);
    wait_one(&cq, 1).ok.unwrap();
    complete(2);

    let before = limit_memory(0);
    let result = cq.resize(4000);
    limit_memory(before);
    let Err(error) = result else { panic!("memory was mapped beyond the limit") };
    if matches!(error, Error::Unsupported { .. }) {
        return;
    }
    assert!(matches!(error, Error::Resize { .. }), "{error}");
    // Only SoftRoCE has let go of the queue by then.
    if cq.capacity() < 4000 {
        wait_one(&cq, 2).ok.unwrap();
        return;
    }
    for _ in 0..2 {
        assert!(matches!(cq.poll(), Err(Error::CompletionQueueLost)));
        assert!(matches!(cq.poll_into(&mut [Wc::default()]), Err(Error::CompletionQueueLost)));
        assert!(matches!(cq.resize(16), Err(Error::CompletionQueueLost)));
    }
    qp.close().unwrap();
    cq.close().unwrap();
}
