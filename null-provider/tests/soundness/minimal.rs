//! The minimal data path, which the benchmarks measure on, does what they need.

use ibverbs::{AccessFlags, RecvRequest, WcOpcode};
use null_provider::DataPath;

use crate::common::{connected, null, parts, post, submit, Parts};

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
    for round in 0..1000 {
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
    }
    null.expect_no_calls();
}
