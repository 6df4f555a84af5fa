//! A completion queue that its provider loses. The limit on memory is that of the whole process, so that this
//! is a test binary of its own.

use ibverbs::{Error, Rc, Wc};
use ibverbs_tests::{limit_resource, submit, wait_one, Ability, Bed, PORT};

#[test]
fn a_queue_that_cannot_be_mapped_again_is_not_polled() {
    let Some(bed) = Bed::with([Ability::Kernel, Ability::QueueResizing]) else { return };
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

    let before = limit_resource(libc::RLIMIT_AS, 0);
    let result = cq.resize(4000);
    limit_resource(libc::RLIMIT_AS, before);
    let Err(error) = result else { panic!("memory was mapped beyond the limit") };
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
