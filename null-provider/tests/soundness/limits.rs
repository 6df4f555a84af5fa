//! Rule 6: what goes beyond what was granted never reaches the provider.

use std::io::IoSlice;

use ibverbs::{
    AccessFlags, Error, LocalMemorySlice, Manual, Payload, QpState, QueuePair, QueuePairAttr, Rc,
    RemoteMemorySlice, SendBatch, SendOps,
};
use null_provider::Verb;

use crate::common::{connected, null, parts, submit, Null, Parts};

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x1000, len: 64, rkey: 0x77 };

/// That a batch with this operation in it, between two good ones, is refused, that the provider does
/// not hear of it, and that the queue pair is none the worse for it.
#[track_caller]
fn refused(
    null: &Null,
    qp: &mut QueuePair<Rc>,
    fill: impl FnOnce(&mut SendBatch<'_, Rc>),
) -> Error {
    let mut batch = qp.start_send();
    batch.op().send(1, b"good");
    null.take_calls();
    fill(&mut batch);
    null.expect_no_calls();
    batch.op().send(2, b"good");
    null.take_calls();
    let error = submit(batch).unwrap_err();
    assert_eq!(null.verbs(), [Verb::WrAbort]);
    assert_eq!(null.take_requests(), []);
    let mut batch = qp.start_send();
    batch.op().send(3, b"good");
    submit(batch).unwrap();
    assert_eq!(null.take_requests().len(), 1);
    error
}

#[test]
fn operations_that_were_not_granted() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let one = region.slice(..);
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
    let builder = builder.set_send_ops(SendOps::SEND).set_max_inline_data(64);
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    type Fill<'a> = Box<dyn FnOnce(&mut SendBatch<'_, Rc>) + 'a>;
    let cases: [(SendOps, Fill<'_>); 6] = [
        (SendOps::SEND_WITH_IMM, Box::new(|b| b.op().imm(1).send(9, &[one]))),
        (SendOps::RDMA_WRITE, Box::new(|b| b.op().write(9, &[one], REMOTE))),
        (SendOps::RDMA_WRITE_WITH_IMM, Box::new(|b| b.op().imm(1).write(9, &[one], REMOTE))),
        (SendOps::RDMA_READ, Box::new(|b| b.op().read(9, &[one], REMOTE))),
        (SendOps::ATOMIC_CMP_AND_SWP, Box::new(|b| b.op().atomic_cmp_swap(9, one, REMOTE, 0, 0))),
        (SendOps::ATOMIC_FETCH_AND_ADD, Box::new(|b| b.op().atomic_fetch_add(9, one, REMOTE, 0))),
    ];
    for (wanted, fill) in cases {
        match refused(&null, &mut qp, fill) {
            Error::OperationNotGranted { operation, granted } => {
                assert_eq!((operation, granted), (wanted, SendOps::SEND));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Adds an operation with this scatter list.
type FillScatter = fn(&mut SendBatch<'_, Rc>, &[LocalMemorySlice]);

#[test]
fn too_many_scatter_entries() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let three = [region.slice(..1); 3];
    let mut qp = connected(&pd, &cq);
    let fills: [FillScatter; 3] = [
        |b, list| b.op().send(9, list),
        |b, list| b.op().write(9, list, REMOTE),
        |b, list| b.op().read(9, list, REMOTE),
    ];
    for fill in fills {
        match refused(&null, &mut qp, |batch| fill(batch, &three)) {
            Error::TooManyScatterEntries { queue, entries, granted } => {
                assert_eq!((queue, entries, granted), ("send", 3, 2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn too_much_inline_data() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let bytes = [0; 65];
    let expect = |error| match error {
        Error::InlineTooLong { bytes, granted } => assert_eq!((bytes, granted), (65, 64)),
        other => panic!("{other:?}"),
    };
    expect(refused(&null, &mut qp, |batch| batch.op().send(9, &bytes)));
    // Each buffer fits; their sum does not.
    let list = [IoSlice::new(&bytes[..32]), IoSlice::new(&bytes[..33])];
    expect(refused(&null, &mut qp, |batch| batch.op().send(9, &list)));
    let list = [IoSlice::new(&bytes[..32]), IoSlice::new(&bytes[..32])];
    let mut batch = qp.start_send();
    batch.op().send(9, &list);
    submit(batch).unwrap();
}

#[test]
fn more_than_the_remote_slice_has() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(65, AccessFlags::LOCAL_WRITE).unwrap();
    let (half, rest) = (region.slice(..32), region.slice(32..));
    let mut qp = connected(&pd, &cq);
    let list = [half, rest];
    let fills: [FillScatter; 3] = [
        |b, list| b.op().write(9, list, REMOTE),
        |b, list| b.op().imm(0).write(9, list, REMOTE),
        |b, list| b.op().read(9, list, REMOTE),
    ];
    for fill in fills {
        match refused(&null, &mut qp, |batch| fill(batch, &list)) {
            Error::BeyondRemote { bytes, len } => assert_eq!((bytes, len), (65, 64)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn atomics_of_another_length() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    for length in [0, 4, 9, 64] {
        let slice = region.slice(..length);
        for error in [
            refused(&null, &mut qp, |batch| batch.op().atomic_fetch_add(9, slice, REMOTE, 1)),
            refused(&null, &mut qp, |batch| batch.op().atomic_cmp_swap(9, slice, REMOTE, 1, 2)),
        ] {
            assert!(
                matches!(error, Error::InvalidArgument { value, .. } if value == length as u64)
            );
        }
    }
    let (slice, short) = (region.slice(..8), REMOTE.slice(..7));
    for error in [
        refused(&null, &mut qp, |batch| batch.op().atomic_fetch_add(9, slice, short, 1)),
        refused(&null, &mut qp, |batch| batch.op().atomic_cmp_swap(9, slice, short, 1, 2)),
    ] {
        assert!(matches!(error, Error::BeyondRemote { bytes: 8, len: 7 }), "{error:?}");
    }
}

#[test]
fn atomics_at_an_odd_address() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    let (slice, odd) = (region.slice(..8), REMOTE.slice(4..12));
    for error in [
        refused(&null, &mut qp, |batch| batch.op().atomic_fetch_add(9, slice, odd, 1)),
        refused(&null, &mut qp, |batch| batch.op().atomic_cmp_swap(9, slice, odd, 1, 2)),
    ] {
        assert!(matches!(error, Error::InvalidArgument { value: 0x1004, .. }), "{error:?}");
    }
}

/// That the provider hears nothing of this operation, and that its batch is refused.
fn not_posted(null: &Null, qp: &mut QueuePair<Rc, Manual>) -> Error {
    null.take_calls();
    let mut batch = qp.start_send();
    batch.op().signaled().send(1, Payload::EMPTY);
    let error = submit(batch).unwrap_err();
    let verbs = null.verbs();
    assert!(!verbs.contains(&Verb::WrOperation) && !verbs.contains(&Verb::WrComplete));
    error
}

#[test]
fn a_queue_pair_that_was_not_asked_to_be_ready_to_send() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let prepared = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap();
    let mut qp = prepared.into_manual();
    // Also before any state was asked for.
    assert!(matches!(not_posted(&null, &mut qp), Error::NotReadyToSend));
    null.expect_no_calls();
    for _ in 0..2 {
        for state in [QpState::RESET, QpState::INIT, QpState::RTR] {
            qp.modify(&QueuePairAttr::new().set_state(state)).unwrap();
            for _ in 0..2 {
                assert!(matches!(not_posted(&null, &mut qp), Error::NotReadyToSend));
                null.expect_no_calls();
                std::mem::forget(qp.start_send());
            }
        }
        qp.modify(&QueuePairAttr::new().set_state(QpState::RTS)).unwrap();
        let mut batch = qp.start_send();
        batch.op().send(1, Payload::EMPTY);
        submit(batch).unwrap();
    }
}

#[test]
fn a_queue_pair_without_a_send_queue() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_send_wr(0);
    let mut qp = builder.build().unwrap().into_manual();
    for state in [QpState::INIT, QpState::RTR, QpState::RTS] {
        qp.modify(&QueuePairAttr::new().set_state(state)).unwrap();
    }
    assert_eq!(qp.send_ops(), SendOps::empty());
    assert!(matches!(not_posted(&null, &mut qp), Error::OperationNotGranted { .. }));
}

#[test]
fn the_first_refusal_is_told() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let error = refused(&null, &mut qp, |batch| {
        batch.op().send(9, &[0; 100]);
        batch.op().write(9, &[0; 100], REMOTE);
    });
    assert!(matches!(error, Error::InlineTooLong { bytes: 100, .. }), "{error:?}");
}

#[test]
fn operations_without_a_name_are_refused_at_creation() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    for ops in [SendOps::empty(), SendOps::from_bits_retain(1 << 63)] {
        let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_send_ops(ops);
        assert!(matches!(builder.build(), Err(Error::InvalidSendOps { .. })));
    }
    assert_eq!(null.count(Verb::CreateQp), 0);
}

#[test]
fn more_inline_data_than_the_device_has_is_explained() {
    let _null = null();
    let Parts { pd, cq, .. } = parts();
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_inline_data(1000);
    match builder.build() {
        Err(Error::Capacity { requested, available, .. }) => {
            assert_eq!((requested, available), (1000, 512));
        }
        other => panic!("{other:?}"),
    }
}
