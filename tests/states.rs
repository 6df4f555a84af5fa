//! Bringing queue pairs up, step by step, at once and by hand; asking for their attributes; and what is
//! said of a transition that cannot be.

use std::time::Duration;

use ibverbs::{
    AccessFlags, AckTimeout, AddressVector, CanReceive, CanSend, Error, GlobalRoute, Manual, Mtu,
    Payload, QpState, QueuePair, QueuePairAttr, QueuePairAttrMask as Mask, QueuePairBuilder,
    QueuePairEndpoint, Rc, RecvRequest, RnrTimer, State, TransitionFailure, WcStatus,
};
use ibverbs_tests::{
    assert_silent, connect, eventually, pair, pattern, post_recv, prepare, submit, wait, wait_ok,
    wait_one, Bed, Prepared, Side, PORT,
};

#[track_caller]
fn state<S: State>(qp: &mut QueuePair<Rc, S>) -> QpState {
    qp.query(Mask::STATE).unwrap().state().expect("the state was asked for")
}

/// Goes to SQD and waits until the send queue is drained: before that the way back is refused.
#[track_caller]
fn drain<S: State>(
    qp: &mut QueuePair<Rc, S>,
    modify: impl FnOnce(&mut QueuePair<Rc, S>, &QueuePairAttr) -> ibverbs::Result<()>,
) {
    modify(qp, &to(QpState::SQD)).unwrap();
    assert_eq!(state(qp), QpState::SQD);
    eventually("the send queue drains", || {
        qp.query(Mask::STATE).unwrap().sq_draining() == Some(false)
    });
}

fn to(state: QpState) -> QueuePairAttr {
    QueuePairAttr::new().set_state(state)
}

/// Sends a message from one queue pair to the other and checks its bytes.
#[track_caller]
fn assert_delivers<A: CanSend, B: CanReceive>(
    (a, send_cq): (&mut QueuePair<Rc, A>, &ibverbs::CompletionQueue),
    (b, recv_cq): (&mut QueuePair<Rc, B>, &ibverbs::CompletionQueue),
    bed: &Bed,
) {
    let (from, into) = (bed.mem(2048), bed.mem(2048));
    let data = pattern(2048, u64::from(a.qp_num()));
    from.write(0, &data);
    post_recv(b, [RecvRequest::new(501, &[into.slice(..)])]).unwrap();
    submit(a, |batch| batch.op().signaled().send(502, &[from.slice(..)])).unwrap();
    assert_eq!(wait_one(send_cq, 502).ok, Ok(()));
    let received = wait_one(recv_cq, 501);
    assert_eq!((received.ok, received.len), (Ok(()), 2048));
    assert!(into.read(..) == data);
}

#[test]
fn receives_that_wait_from_init_on_catch_the_first_message() {
    let bed = Bed::new();
    let (a, b) = (prepare::<Rc>(&bed, |builder| builder), prepare::<Rc>(&bed, |builder| builder));
    let (of_a, of_b) = (a.qp.endpoint().unwrap(), b.qp.endpoint().unwrap());
    let mem = bed.mem(64);
    let slices = [mem.slice(..)];
    let mut init = b.qp.init().unwrap();
    assert_eq!(state(&mut init), QpState::INIT);
    post_recv(&mut init, [RecvRequest::new(1, &slices), RecvRequest::new(2, &slices)]).unwrap();
    let mut b_qp = init.handshake(of_a).unwrap();
    assert_eq!(state(&mut b_qp), QpState::RTS);
    let mut a_qp = a.qp.handshake(of_b).unwrap();
    for n in 1..=2 {
        submit(&mut a_qp, |batch| batch.op().signaled().send(n, &[mem.slice(..0)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, n).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, n).ok, Ok(()));
    }
}

#[test]
fn a_queue_pair_receives_before_it_can_send() {
    let bed = Bed::new();
    let (a, b) = (prepare::<Rc>(&bed, |builder| builder), prepare::<Rc>(&bed, |builder| builder));
    let (of_a, of_b) = (a.qp.endpoint().unwrap(), b.qp.endpoint().unwrap());
    let mut a_qp = a.qp.handshake(of_b).unwrap();
    let mut rtr = b.qp.init().unwrap().ready_to_receive(of_a).unwrap();
    assert_eq!(state(&mut rtr), QpState::RTR);
    assert_delivers((&mut a_qp, &a.send_cq), (&mut rtr, &b.recv_cq), &bed);
    let mut b_qp = rtr.ready_to_send().unwrap();
    assert_eq!(state(&mut b_qp), QpState::RTS);
    assert_delivers((&mut b_qp, &b.send_cq), (&mut a_qp, &a.recv_cq), &bed);
}

#[test]
fn endpoints_survive_the_way_as_bytes() {
    let bed = Bed::new();
    let psn = 0x00ab_cdef;
    let a = prepare::<Rc>(&bed, |builder| builder.set_first_psn(psn));
    let b = prepare::<Rc>(&bed, |builder| builder);
    let endpoint = a.qp.endpoint().unwrap();
    assert_eq!((endpoint.qp_num(), endpoint.psn()), (a.qp.qp_num(), psn));
    assert_eq!(endpoint.gid(), Some(bed.gid().gid()));
    let from_bytes = |prepared: &Prepared| {
        let bytes = prepared.qp.endpoint().unwrap().to_bytes();
        QueuePairEndpoint::from_bytes(&bytes).unwrap()
    };
    let (of_a, of_b) = (from_bytes(&a), from_bytes(&b));
    assert_eq!(of_a, endpoint);
    let mut a_qp = a.qp.handshake(of_b).unwrap();
    let mut b_qp = b.qp.handshake(of_a).unwrap();
    assert_delivers((&mut a_qp, &a.send_cq), (&mut b_qp, &b.recv_cq), &bed);
    assert_delivers((&mut b_qp, &b.send_cq), (&mut a_qp, &a.recv_cq), &bed);
}

/// Values of which none is a default.
fn unusual(builder: QueuePairBuilder<'_, Rc>) -> QueuePairBuilder<'_, Rc> {
    builder
        .set_access(AccessFlags::REMOTE_READ)
        .set_path_mtu(Mtu::B256)
        .set_min_rnr_timer(RnrTimer::at_least(Duration::from_millis(3)))
        .set_timeout(AckTimeout::at_least(Duration::from_millis(20)))
        .set_retry_count(5)
        .set_rnr_retry(3)
        .set_max_rd_atomic(4)
        .set_max_dest_rd_atomic(8)
        .set_first_psn(0x123456)
        .set_traffic_class(32)
        .set_hop_limit(9)
        .set_flow_label(0x4321)
}

#[test]
fn a_query_returns_what_was_set_in_every_state() {
    let bed = Bed::new();
    let mut reset = prepare(&bed, unusual);
    let peer = prepare(&bed, unusual);
    let remote = peer.qp.endpoint().unwrap();
    assert_eq!(state(&mut reset.qp), QpState::RESET);

    let mut init = reset.qp.init().unwrap();
    let asked = Mask::STATE | Mask::ACCESS_FLAGS | Mask::PORT | Mask::PKEY_INDEX;
    let attr = init.query(asked).unwrap();
    assert_eq!(attr.mask(), asked);
    assert_eq!(attr.state(), Some(QpState::INIT));
    assert_eq!(attr.access(), Some(AccessFlags::REMOTE_READ));
    assert_eq!((attr.port(), attr.pkey_index()), (Some(PORT), Some(0)));
    assert_eq!(attr.path_mtu(), None, "it was not asked for");

    let mut rtr = init.ready_to_receive(remote).unwrap();
    let asked = Mask::STATE
        | Mask::AV
        | Mask::PATH_MTU
        | Mask::DEST_QPN
        | Mask::RQ_PSN
        | Mask::MAX_DEST_RD_ATOMIC
        | Mask::MIN_RNR_TIMER;
    let attr = rtr.query(asked).unwrap();
    assert_eq!(attr.state(), Some(QpState::RTR));
    assert_eq!(attr.path_mtu(), Some(Mtu::B256));
    assert_eq!(attr.dest_qp_num(), Some(remote.qp_num()));
    assert_eq!(attr.rq_psn(), Some(0x123456));
    assert_eq!(attr.max_dest_rd_atomic(), Some(8));
    let waits = attr.min_rnr_timer().map(RnrTimer::duration);
    assert_eq!(waits, Some(Duration::from_micros(3840)));
    let address = attr.address().expect("the address was asked for");
    let grh = address.grh.expect("a global route");
    // On RoCE, Linux sets the hop limit to that of the IP route.
    let route = GlobalRoute {
        dgid: remote.gid().expect("a GID"),
        flow_label: 0x4321,
        gid_index: bed.gid_index(),
        hop_limit: grh.hop_limit,
        traffic_class: 32,
    };
    assert_eq!((address.port, grh), (PORT, route));

    let mut rts = rtr.ready_to_send().unwrap();
    let asked = Mask::STATE
        | Mask::TIMEOUT
        | Mask::RETRY_CNT
        | Mask::RNR_RETRY
        | Mask::SQ_PSN
        | Mask::MAX_RD_ATOMIC;
    let attr = rts.query(asked).unwrap();
    assert_eq!(attr.state(), Some(QpState::RTS));
    assert_eq!(attr.timeout(), Some(AckTimeout::at_least(Duration::from_millis(20))));
    assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(5), Some(3)));
    assert_eq!((attr.sq_psn(), attr.max_rd_atomic()), (Some(0x123456), Some(4)));
}

#[test]
fn the_default_attributes_are_the_documented_ones() {
    let bed = Bed::new();
    let (mut a, b) = pair(&bed);
    let asked = Mask::TIMEOUT
        | Mask::RETRY_CNT
        | Mask::RNR_RETRY
        | Mask::MIN_RNR_TIMER
        | Mask::PATH_MTU
        | Mask::PKEY_INDEX
        | Mask::AV;
    let attr = a.qp.query(asked).unwrap();
    assert_eq!(attr.timeout(), Some(AckTimeout::DEFAULT));
    assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(6), Some(7)));
    assert_eq!(attr.min_rnr_timer(), Some(RnrTimer::DEFAULT));
    assert_eq!(attr.path_mtu(), Some(bed.ctx().query_port(PORT).unwrap().active_mtu()));
    assert_eq!(attr.pkey_index(), Some(0));
    assert_eq!(attr.address().and_then(|address| address.grh).map(|grh| grh.hop_limit), Some(64));
    let psns = [a.qp.endpoint().unwrap().psn(), b.qp.endpoint().unwrap().psn()];
    assert_ne!(psns[0], psns[1], "the first PSNs are random");
}

fn address_of(bed: &Bed, remote: &QueuePairEndpoint) -> AddressVector {
    let dgid = remote.gid().expect("a GID");
    let gid_index = bed.gid_index();
    let grh = GlobalRoute { dgid, flow_label: 0, gid_index, hop_limit: 64, traffic_class: 0 };
    AddressVector {
        port: PORT,
        dlid: remote.lid(),
        service_level: 0,
        src_path_bits: 0,
        static_rate: 0,
        grh: Some(grh),
    }
}

/// What both sides must agree on.
const MTU: Mtu = Mtu::B1024;

fn to_init() -> QueuePairAttr {
    let access = AccessFlags::REMOTE_READ | AccessFlags::REMOTE_WRITE;
    to(QpState::INIT).set_pkey_index(0).set_port(PORT).set_access(access)
}

fn to_rtr(bed: &Bed, remote: &QueuePairEndpoint) -> QueuePairAttr {
    to(QpState::RTR)
        .set_address(address_of(bed, remote))
        .set_path_mtu(MTU)
        .set_dest_qp_num(remote.qp_num())
        .set_rq_psn(remote.psn())
        .set_max_dest_rd_atomic(4)
        .set_min_rnr_timer(RnrTimer::DEFAULT)
}

fn to_rts(local: &QueuePairEndpoint) -> QueuePairAttr {
    to(QpState::RTS)
        .set_timeout(AckTimeout::DEFAULT)
        .set_retry_count(7)
        .set_rnr_retry(7)
        .set_sq_psn(local.psn())
        .set_max_rd_atomic(4)
}

/// A queue pair that the test drives by itself, or connects to one that it does, and its endpoint.
fn manual(bed: &Bed) -> (Prepared, QueuePairEndpoint) {
    let prepared = prepare(bed, |builder| builder.set_path_mtu(MTU));
    let endpoint = prepared.qp.endpoint().unwrap();
    (prepared, endpoint)
}

#[test]
fn a_program_can_drive_all_states_itself() {
    let bed = Bed::new();
    let ((a, of_a), (b, of_b)) = (manual(&bed), manual(&bed));
    let (mut a_qp, mut b_qp) = (a.qp.into_manual(), b.qp.into_manual());
    for round in 0..2 {
        for (qp, local, remote) in [(&mut a_qp, &of_a, &of_b), (&mut b_qp, &of_b, &of_a)] {
            assert_eq!(state(qp), QpState::RESET, "round {round}");
            qp.modify(&to_init()).unwrap();
            assert_eq!(state(qp), QpState::INIT);
            qp.modify(&QueuePairAttr::new().set_state(QpState::INIT).set_pkey_index(0)).unwrap();
            qp.modify(&to_rtr(&bed, remote)).unwrap();
            assert_eq!(state(qp), QpState::RTR);
            qp.modify(&to_rts(local)).unwrap();
            assert_eq!(state(qp), QpState::RTS);
        }
        assert_delivers((&mut a_qp, &a.send_cq), (&mut b_qp, &b.recv_cq), &bed);
        assert_delivers((&mut b_qp, &b.send_cq), (&mut a_qp, &a.recv_cq), &bed);

        drain(&mut a_qp, |qp, attr| qp.modify(attr));
        a_qp.modify(&to(QpState::RTS)).unwrap();
        assert_delivers((&mut a_qp, &a.send_cq), (&mut b_qp, &b.recv_cq), &bed);

        b_qp.modify(&to(QpState::ERR)).unwrap();
        assert_eq!(state(&mut b_qp), QpState::ERR);
        a_qp.modify(&to(QpState::RESET)).unwrap();
        b_qp.modify(&to(QpState::RESET)).unwrap();
    }
}

/// Begins a send that must be refused.
#[track_caller]
fn assert_cannot_send(qp: &mut QueuePair<Rc, Manual>) {
    let error = submit(qp, |batch| batch.op().signaled().send(1, Payload::EMPTY)).unwrap_err();
    assert!(matches!(error, Error::NotReadyToSend), "{error}");
    drop(qp.start_send());
    std::mem::forget(qp.start_send());
}

#[test]
fn nothing_is_sent_before_the_program_has_asked_for_ready_to_send() {
    let bed = Bed::new();
    let ((a, of_a), (b, of_b)) = (manual(&bed), manual(&bed));
    let mut qp = a.qp.into_manual();
    let mut peer = b.qp.handshake(of_a).unwrap();
    for _ in 0..2 {
        assert_cannot_send(&mut qp);
        qp.modify(&to_init()).unwrap();
        assert_cannot_send(&mut qp);
        qp.modify(&to_rtr(&bed, &of_b)).unwrap();
        assert_cannot_send(&mut qp);
        // A refused transition changes nothing.
        qp.modify(&to(QpState::RTS)).unwrap_err();
        assert_cannot_send(&mut qp);
        qp.modify(&to_rts(&of_a)).unwrap();
        assert_silent(&a.send_cq);
        assert_delivers((&mut qp, &a.send_cq), (&mut peer, &b.recv_cq), &bed);
        qp.modify(&to(QpState::RESET)).unwrap();
        peer = peer.reset().unwrap().handshake(of_a).unwrap();
    }
}

#[test]
fn a_queue_pair_in_use_can_be_drained_and_resumed() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    assert_delivers((&mut a.qp, &a.send_cq), (&mut b.qp, &b.recv_cq), &bed);
    drain(&mut a.qp, |qp, attr| qp.modify(attr));
    let (from, into) = (bed.mem(8), bed.mem(8));
    from.write(0, b"paused");
    let remote = into.remote();
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[from.slice(..6)], remote)).unwrap();
    assert_silent(&a.send_cq);
    assert_eq!(into.read(..), [0; 8], "a drained send queue sends nothing");
    a.qp.modify(&to(QpState::RTS)).unwrap();
    // SoftRoCE (seen on 6.1 and 6.12) goes on at the next doorbell only, so ring one.
    submit(&mut a.qp, |batch| batch.op().signaled().read(2, &[from.slice(..6)], remote)).unwrap();
    let ids: Vec<u64> = wait_ok(&a.send_cq, 2).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(into.read(..6), b"paused");
    assert_delivers((&mut b.qp, &b.send_cq), (&mut a.qp, &a.recv_cq), &bed);
}

#[test]
fn attributes_can_change_while_ready_to_send() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(8);
    let slower = RnrTimer::at_least(Duration::from_millis(10));
    let attr = QueuePairAttr::new()
        .set_state(QpState::RTS)
        .set_min_rnr_timer(slower)
        .set_access(AccessFlags::REMOTE_READ);
    b.qp.modify(&attr).unwrap();
    let now = b.qp.query(Mask::MIN_RNR_TIMER | Mask::ACCESS_FLAGS | Mask::STATE).unwrap();
    assert_eq!(now.min_rnr_timer(), Some(slower));
    assert_eq!(now.access(), Some(AccessFlags::REMOTE_READ));
    assert_eq!(now.state(), Some(QpState::RTS));
    let target = bed.mem(8);
    let remote = target.remote();
    submit(&mut a.qp, |batch| batch.op().signaled().read(1, &[mem.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    submit(&mut a.qp, |batch| batch.op().signaled().write(2, &[mem.slice(..)], remote)).unwrap();
    assert!(wait_one(&a.send_cq, 2).ok.is_err(), "the right to write was taken back");
}

#[test]
fn failing_a_queue_pair_flushes_what_is_posted() {
    let bed = Bed::new();
    let (mut a, b) = pair(&bed);
    let mem = bed.mem(64);
    let slices = [mem.slice(..)];
    let receives = [1, 2, 3].map(|id| RecvRequest::new(id, &slices));
    post_recv(&mut a.qp, receives).unwrap();
    a.qp.modify(&to(QpState::ERR)).unwrap();
    assert_eq!(state(&mut a.qp), QpState::ERR);
    let flushed = wait(&a.recv_cq, 3);
    for (wc, id) in flushed.iter().zip(1..) {
        assert_eq!((wc.wr_id, wc.status()), (id, WcStatus::WR_FLUSH_ERR));
        assert_eq!(wc.qp_num, a.qp.qp_num());
    }
    // What is posted later is flushed as well.
    submit(&mut a.qp, |batch| batch.op().signaled().send(4, &[mem.slice(..0)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 4).status(), WcStatus::WR_FLUSH_ERR);
    // (Not so a receive on SoftRoCE: no doorbell tells it of one.)
    drop(b);
}

#[test]
fn a_queue_pair_can_be_reset_and_used_again() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    for round in 0..3 {
        assert_delivers((&mut a.qp, &a.send_cq), (&mut b.qp, &b.recv_cq), &bed);
        // Left behind: the reset takes it away.
        let old = bed.mem(64);
        post_recv(&mut b.qp, [RecvRequest::new(66, &[old.slice(..)])]).unwrap();
        let reset = |side: Side| {
            let mut qp = side.qp.reset().unwrap();
            assert_eq!(state(&mut qp), QpState::RESET, "round {round}");
            let Side { send_cq, recv_cq, bed, .. } = side;
            Prepared { qp, send_cq, recv_cq, bed }
        };
        (a, b) = connect(reset(a), reset(b));
        assert_delivers((&mut a.qp, &a.send_cq), (&mut b.qp, &b.recv_cq), &bed);
        assert_delivers((&mut b.qp, &b.send_cq), (&mut a.qp, &a.recv_cq), &bed);
        assert_eq!(old.read(..), [0; 64]);
        assert_silent(&b.recv_cq);
    }
}

#[test]
fn a_queue_pair_that_failed_can_be_reset_and_used_again() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    a.qp.modify(&to(QpState::ERR)).unwrap();
    b.qp.modify(&to(QpState::ERR)).unwrap();
    let (mut a_qp, mut b_qp) = (a.qp.reset().unwrap(), b.qp.reset().unwrap());
    assert_eq!((state(&mut a_qp), state(&mut b_qp)), (QpState::RESET, QpState::RESET));
    let (of_a, of_b) = (a_qp.endpoint().unwrap(), b_qp.endpoint().unwrap());
    let (mut a_qp, mut b_qp) = (a_qp.handshake(of_b).unwrap(), b_qp.handshake(of_a).unwrap());
    assert_delivers((&mut a_qp, &a.send_cq), (&mut b_qp, &b.recv_cq), &bed);
}

/// The diagnosis of a transition that must fail.
#[track_caller]
fn refused(qp: &mut QueuePair<Rc, Manual>, attr: &QueuePairAttr) -> Box<TransitionFailure> {
    let before = state(qp);
    let error = qp.modify(attr).expect_err("the transition should have been refused");
    assert_eq!(error.os_error(), Some(libc::EINVAL), "{error}");
    let Error::Transition(failure) = error else { panic!("{error}") };
    assert_eq!(failure.from(), before, "{failure}");
    assert_eq!(state(qp), before, "a refused transition changes nothing");
    failure
}

#[test]
fn a_transition_that_does_not_exist_is_named() {
    let bed = Bed::new();
    let (prepared, local) = manual(&bed);
    let mut qp = prepared.qp.into_manual();
    let failure = refused(&mut qp, &to_rts(&local));
    assert_eq!((failure.from(), failure.to()), (QpState::RESET, QpState::RTS));
    assert!(!failure.exists());
    assert!(failure.to_string().contains("RESET -> RTS"), "{failure}");
    qp.modify(&to_init()).unwrap();
    assert!(!refused(&mut qp, &to_rts(&local)).exists());
    assert!(!refused(&mut qp, &to(QpState::SQD)).exists());
    qp.modify(&to_rtr(&bed, &local)).unwrap();
    assert!(!refused(&mut qp, &to_init()).exists());
    assert!(!refused(&mut qp, &to(QpState::SQD)).exists());
}

#[test]
fn attributes_that_are_missing_or_too_many_are_named() {
    let bed = Bed::new();
    let (prepared, local) = manual(&bed);
    let mut qp = prepared.qp.into_manual();

    let failure = refused(&mut qp, &to(QpState::INIT).set_port(PORT));
    assert!(failure.exists() && !failure.is_well_formed());
    assert_eq!(failure.missing(), Mask::PKEY_INDEX | Mask::ACCESS_FLAGS);
    assert_eq!(failure.not_allowed(), Mask::empty());
    let failure = refused(&mut qp, &to_init().set_qkey(7).set_path_mtu(Mtu::B1024));
    assert_eq!(failure.missing(), Mask::empty());
    assert_eq!(failure.not_allowed(), Mask::QKEY | Mask::PATH_MTU);
    assert!(failure.exists() && !failure.is_well_formed());
    qp.modify(&to_init()).unwrap();

    let failure =
        refused(&mut qp, &to(QpState::RTR).set_rq_psn(1).set_timeout(AckTimeout::DEFAULT));
    let missing =
        Mask::AV | Mask::PATH_MTU | Mask::DEST_QPN | Mask::MAX_DEST_RD_ATOMIC | Mask::MIN_RNR_TIMER;
    assert_eq!((failure.missing(), failure.not_allowed()), (missing, Mask::TIMEOUT));
    assert!(failure.to_string().contains("it does not take TIMEOUT"), "{failure}");
    qp.modify(&to_rtr(&bed, &local)).unwrap();

    let failure = refused(&mut qp, &to(QpState::RTS).set_dest_qp_num(3));
    let missing =
        Mask::TIMEOUT | Mask::RETRY_CNT | Mask::RNR_RETRY | Mask::SQ_PSN | Mask::MAX_RD_ATOMIC;
    assert_eq!((failure.missing(), failure.not_allowed()), (missing, Mask::DEST_QPN));
    qp.modify(&to_rts(&local)).unwrap();

    let failure = refused(&mut qp, &to(QpState::RTS).set_path_mtu(Mtu::B256));
    assert_eq!((failure.missing(), failure.not_allowed()), (Mask::empty(), Mask::PATH_MTU));
    let failure = refused(&mut qp, &to(QpState::SQD).set_retry_count(1));
    assert_eq!(failure.not_allowed(), Mask::RETRY_CNT);
}

#[test]
fn a_wrong_value_is_told_from_a_wrong_attribute() {
    let bed = Bed::new();
    let (prepared, _) = manual(&bed);
    let mut qp = prepared.qp.into_manual();
    let failure = refused(&mut qp, &to_init().set_port(77));
    assert!(failure.is_well_formed());
    assert!(failure.to_string().contains("one of their values"), "{failure}");
    qp.modify(&to_init()).unwrap();
}

#[test]
fn a_connected_queue_pair_is_asked_for_rts_sqd_or_err_only() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    for wrong in [QpState::RESET, QpState::INIT, QpState::RTR, QpState::SQE, QpState(42)] {
        let error = a.qp.modify(&to(wrong)).unwrap_err();
        assert!(matches!(error, Error::InvalidState { state } if state == wrong), "{error}");
    }
    assert_eq!(state(&mut a.qp), QpState::RTS);
    let error = a.qp.modify(&to(QpState::SQD).set_port(PORT)).unwrap_err();
    let Error::Transition(failure) = error else { panic!("{error}") };
    assert_eq!((failure.from(), failure.to()), (QpState::RTS, QpState::SQD));
    assert_eq!(failure.not_allowed(), Mask::PORT);
    assert_delivers((&mut a.qp, &a.send_cq), (&mut b.qp, &b.recv_cq), &bed);
}

#[test]
fn messages_wait_for_a_peer_that_connects_later() {
    let bed = Bed::new();
    // Even if the emulated machine stands still for a while, the peer is not given up.
    let patient = AckTimeout::at_least(Duration::from_millis(300));
    let a = prepare::<Rc>(&bed, |builder| builder.set_timeout(patient));
    let b = prepare::<Rc>(&bed, |builder| builder);
    let (of_a, of_b) = (a.qp.endpoint().unwrap(), b.qp.endpoint().unwrap());
    let (from, into) = (bed.mem(8), bed.mem(8));
    let mut a_qp = a.qp.handshake(of_b).unwrap();
    submit(&mut a_qp, |batch| batch.op().signaled().send(1, &[from.slice(..)])).unwrap();
    let mut init = b.qp.init().unwrap();
    post_recv(&mut init, [RecvRequest::new(2, &[into.slice(..)])]).unwrap();
    let _b_qp = init.handshake(of_a).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert_eq!(wait_ok(&b.recv_cq, 1)[0].len, 8);
}

#[test]
fn a_query_of_everything_tells_what_there_is_to_tell() {
    let bed = Bed::new();
    let (mut a, b) = pair(&bed);
    let attr = a.qp.query(Mask::all()).unwrap();
    assert_eq!(attr.mask(), Mask::all() - Mask::RATE_LIMIT);
    assert_eq!((attr.dest_qp_num(), attr.rate_limit()), (Some(b.qp.qp_num()), None));
}
