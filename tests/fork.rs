//! What a program that starts others may rely on.
//!
//! It is the only test of its binary, because whether a device was opened belongs to the process.

use std::process::Command;

use ibverbs::{fork_init, Error, ForkStatus, RecvRequest};
use ibverbs_tests::{choose_provider, pair, pattern, post_recv, submit, wait_one, Bed};

#[test]
fn a_transfer_is_not_disturbed_by_the_start_of_a_program() {
    choose_provider();
    let early = fork_init();
    let bed = Bed::new();
    match early {
        Ok(()) | Err(Error::Unsupported { .. }) => (),
        Err(error) => panic!("{error}"),
    }
    let status = bed.ctx().fork_status();
    assert!([ForkStatus::ENABLED, ForkStatus::UNNEEDED].contains(&status), "{status}");
    // It would come too late now, if it were needed.
    fork_init().unwrap();

    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(8192), bed.mem(8192));
    for round in 0..3 {
        let data = pattern(8192, round);
        post_recv(&mut b.qp, [RecvRequest::new(round, &[to.slice(..)])]).unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        from.write(0, &data);
        submit(&mut a.qp, |batch| batch.op().signaled().send(round, &[from.slice(..)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, round).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, round).ok, Ok(()));
        assert!(to.read(..) == data, "round {round}");
        assert!(child.wait().unwrap().success());
    }
}
