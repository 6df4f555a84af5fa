//! Transfers over an unreliable connection. Nothing is lost here: the device is its own peer.

use ibverbs::{
    DataInOrder, DataOperation, QueuePairAttrMask as Mask, RecvRequest, SendOps, Uc, WcOpcode,
};
use ibverbs_tests::{eventually, pair_with, pattern, post_recv, submit, wait_one, Bed, Side};

fn connected(bed: &Bed) -> (Side<Uc>, Side<Uc>) {
    pair_with::<Uc>(bed, |builder| builder.set_max_inline_data(32))
}

#[test]
fn a_send_arrives_with_its_immediate_data() {
    let bed = Bed::new();
    let (mut a, mut b) = connected(&bed);
    let (from, to) = (bed.mem(8192), bed.mem(8192));
    for (size, imm) in [(0, None), (1, Some(7)), (1024, None), (1025, Some(9)), (8000, None)] {
        let data = pattern(size, size as u64);
        from.write(0, &data);
        to.write(0, &[0; 8192]);
        post_recv(&mut b.qp, [RecvRequest::new(1, &[to.slice(..)])]).unwrap();
        let slice = from.slice(..size);
        submit(&mut a.qp, |batch| match imm {
            Some(imm) => batch.op().signaled().imm(imm).send(2, &[slice]),
            None => batch.op().signaled().send(2, &[slice]),
        })
        .unwrap();
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
        let received = wait_one(&b.recv_cq, 1);
        assert_eq!((received.ok, received.len as usize, received.imm), (Ok(()), size, imm));
        assert!(to.read(..size) == data, "{size} bytes");
        assert_eq!(to.read(size..), vec![0; 8192 - size]);
    }
}

#[test]
fn a_write_arrives_and_its_immediate_data_tells_so() {
    let bed = Bed::new();
    let (mut a, mut b) = connected(&bed);
    let (from, to) = (bed.mem(8192), bed.mem(8192));
    let data = pattern(5000, 3);
    from.write(0, &data);
    let remote = to.remote();
    post_recv(&mut b.qp, [RecvRequest::new(1, &[])]).unwrap();
    submit(&mut a.qp, |batch| {
        batch.op().write(2, &[from.slice(..5000)], remote);
        batch.op().imm(11).signaled().write(3, b"inline", remote.slice(6000..));
    })
    .unwrap();
    assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
    let told = wait_one(&b.recv_cq, 1);
    assert_eq!((told.opcode, told.imm), (WcOpcode::RECV_RDMA_WITH_IMM, Some(11)));
    assert!(to.read(..5000) == data);
    assert_eq!(to.read(6000..6006), b"inline");
}

#[test]
fn the_attributes_are_those_of_the_transport() {
    let bed = Bed::new();
    let (mut a, b) = connected(&bed);
    let writes = SendOps::RDMA_WRITE | SendOps::RDMA_WRITE_WITH_IMM;
    assert_eq!(a.qp.send_ops(), SendOps::SEND | SendOps::SEND_WITH_IMM | writes);
    let attr = a.qp.query(Mask::STATE | Mask::DEST_QPN).unwrap();
    assert_eq!(attr.dest_qp_num(), Some(b.qp.qp_num()));
}

#[test]
fn a_message_without_a_receive_is_lost_and_the_next_one_arrives() {
    let bed = Bed::new();
    let (mut a, mut b) = connected(&bed);
    let (from, to) = (bed.mem(8), bed.mem(8));
    from.write(0, b"lost");
    let mark = bed.mem(8);
    let remote = mark.remote();
    submit(&mut a.qp, |batch| {
        batch.op().send(0, &[from.slice(..)]);
        batch.op().signaled().write(1, b"mark", remote);
    })
    .unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    // It is complete as soon as it was sent. What came before it has arrived when it has.
    eventually("the write arrives", || mark.read(..4) == b"mark");
    from.write(0, b"here");
    post_recv(&mut b.qp, [RecvRequest::new(2, &[to.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(3, &[from.slice(..)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 2).ok, Ok(()));
    assert_eq!(to.read(..4), b"here");
}

#[test]
fn the_order_in_which_data_is_written_is_told_or_not_known() {
    let bed = Bed::new();
    let (a, _b) = connected(&bed);
    for operation in [DataOperation::RdmaRead, DataOperation::RdmaWrite, DataOperation::Send] {
        let order = a.qp.data_in_order(operation);
        // What is in order as a whole is so in each block.
        assert!(!order.contains(DataInOrder::WHOLE_MESSAGE) || order == DataInOrder::all());
    }
}
