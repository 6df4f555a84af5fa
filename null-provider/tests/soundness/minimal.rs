//! The minimal data path, which the benchmarks measure on, does what they need.

use ibverbs::{AccessFlags, RecvRequest, WcOpcode};
use null_provider::DataPath;

use crate::common::{
    activated, connected, null, parts, poll_all, post, some_handle, submit, Parts, QKEY,
};

/// More than there are places.
const ROUNDS: u64 = if cfg!(miri) { 10 } else { 1000 };

#[test]
fn sends_and_receives_complete() {
    let null = null();
    null.configure(|config| {
        config.data_path = DataPath::Minimal;
        config.complete_sends = true;
        config.complete_receives = true;
    });
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    let slices = [region.slice(..)];
    null.take_calls();
    for round in 0..ROUNDS {
        post(&mut qp, [RecvRequest::new(round, &slices)]).unwrap();
        let mut batch = qp.start_send();
        batch.op().send(round, b"quiet");
        batch.op().signaled().send(round + 1, &slices);
        submit(batch).unwrap();
        drop(qp.start_send());
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        assert_eq!((wc.wr_id(), wc.opcode(), wc.ok()), (round, WcOpcode::RECV, Ok(())));
        let wc = completions.next().unwrap();
        assert_eq!((wc.wr_id(), wc.opcode()), (round + 1, WcOpcode::SEND));
        assert_eq!(wc.qp_num(), qp.qp_num());
        assert!(completions.next().is_none());
        drop(completions);
        // SAFETY: nobody polls the queue, and two completions were taken out of it just now.
        unsafe { null_provider::rewind(cq.as_raw(), 2) };
        assert_eq!(poll_all(&cq), [round, round + 1]);
    }
    null.expect_no_calls();
}

#[test]
fn datagrams_complete() {
    let null = null();
    null.configure(|config| {
        config.data_path = DataPath::Minimal;
        config.complete_sends = true;
    });
    let Parts { pd, cq, .. } = parts();
    let mut qp = activated(&pd, &cq);
    let ah = some_handle(&pd);
    null.take_calls();
    for round in 0..ROUNDS {
        let mut batch = qp.start_send();
        batch.to(&ah, 17, QKEY).send(round, b"quiet");
        batch.to(&ah, 18, QKEY).signaled().send(round + 1, b"loud");
        submit(batch).unwrap();
        assert_eq!(poll_all(&cq), [round + 1]);
    }
    null.expect_no_calls();
}
