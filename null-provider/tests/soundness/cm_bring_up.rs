//! Rules 1 and 15 for queue pairs that the connection manager brings up: what they are modified with is what was
//! agreed on, within what they were built for; and what fails leaves them as they were.

use ibverbs::rdmacm::{Acceptor, CmEventType, CmId, ConnectionParams, Connector, Ece, Tcp, Udp};
use ibverbs::{
    ffi, AccessFlags, AckTimeout, Context, Error, Mtu, PreparedQueuePair, QpState, QueuePairAttr,
    QueuePairAttrMask, Rc, RnrTimer, Ud,
};
use null_provider::{CmConn, CmEvent as Raised, CmReplies, Verb};

use crate::cm_common::*;
use crate::common::{complete, null, Null};

const ACCESS: AccessFlags = AccessFlags::REMOTE_READ;
const MAX_RD_ATOMIC: u8 = 5;
const MAX_DEST_RD_ATOMIC: u8 = 6;
const RETRIES: u8 = 3;
const RNR_RETRIES: u8 = 2;
const FIRST_PSN: u32 = 0x12_3456;

fn rnr_timer() -> RnrTimer {
    RnrTimer::from_code(9).unwrap()
}

fn timeout() -> AckTimeout {
    AckTimeout::from_exponent(11).unwrap()
}

/// A queue pair of which everything was set that a connection has.
fn built(ctx: &Context) -> PreparedQueuePair<Rc> {
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).build().unwrap());
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
    let builder = builder.set_access(ACCESS | AccessFlags::LOCAL_WRITE).set_path_mtu(Mtu::B4096);
    let builder = builder.set_max_rd_atomic(MAX_RD_ATOMIC).set_min_rnr_timer(rnr_timer());
    let builder = builder.set_max_dest_rd_atomic(MAX_DEST_RD_ATOMIC).set_timeout(timeout());
    let builder = builder.set_retry_count(RETRIES).set_rnr_retry(RNR_RETRIES);
    builder.set_first_psn(FIRST_PSN).build().unwrap()
}

/// A client to which a peer has answered that offers these depths.
fn answered(null: &Null, responder_resources: u8, initiator_depth: u8) -> CmId {
    null.configure(|config| config.cm.replies.connect = false);
    let mut id = resolved(Tcp, 0);
    id.connect(&ConnectionParams::new()).unwrap();
    let conn = CmConn {
        responder_resources,
        initiator_depth,
        rnr_retry_count: 7,
        qp_num: 0x77_7777,
        ..CmConn::default()
    };
    raise(null, &id, Raised { conn, ..plain(CmEventType::CONNECT_RESPONSE) });
    next(&mut id, CmEventType::CONNECT_RESPONSE);
    null.configure(|config| config.cm.replies = CmReplies::default());
    id
}

/// What the last three transitions were.
fn transitions(null: &Null) -> [(QueuePairAttrMask, ffi::ibv_qp_attr); 3] {
    let modified = null.modified();
    let last = &modified[modified.len() - 3..];
    let states: Vec<_> = last.iter().map(|(_, attr)| QpState(attr.qp_state)).collect();
    assert_eq!(states, [QpState::INIT, QpState::RTR, QpState::RTS]);
    std::array::from_fn(|n| (QueuePairAttrMask::from_bits(last[n].0).unwrap(), last[n].1))
}

#[test]
fn what_was_built_stays_and_what_was_agreed_on_is_taken() {
    let null = null();
    let mut id = answered(&null, 16, 16);
    let qp = id.bring_up(built(&id.context().unwrap())).unwrap();
    let [(init_mask, init), (rtr_mask, rtr), (rts_mask, rts)] = transitions(&null);
    assert!(init_mask.contains(QueuePairAttrMask::ACCESS_FLAGS));
    assert_eq!(init.qp_access_flags, ACCESS.bits(), "neither none nor all");
    assert_eq!(init.port_num, 1);
    assert!(rtr_mask.contains(QueuePairAttrMask::MAX_DEST_RD_ATOMIC));
    assert!(rtr_mask.contains(QueuePairAttrMask::MIN_RNR_TIMER));
    assert_eq!((rtr.max_dest_rd_atomic, rtr.min_rnr_timer), (MAX_DEST_RD_ATOMIC, 9));
    assert_eq!((rtr.dest_qp_num, rtr.path_mtu), (0x77_7777, ffi::IBV_MTU_1024));
    assert_eq!((rts.max_rd_atomic, rts.timeout), (MAX_RD_ATOMIC, 11));
    assert_eq!((rts.retry_cnt, rts.rnr_retry), (RETRIES, RNR_RETRIES));
    assert!(rts_mask.contains(QueuePairAttrMask::SQ_PSN));
    assert_ne!(rts.sq_psn, FIRST_PSN, "the peer expects the one that was agreed on");
    drop(qp);
}

#[test]
fn the_depths_are_the_least_of_what_both_sides_can_do() {
    let most = (MAX_DEST_RD_ATOMIC, MAX_RD_ATOMIC);
    for (offered, granted) in
        [((0, 0), (0, 0)), ((2, 3), (2, 3)), ((255, 255), most), ((0, 255), (0, most.1))]
    {
        let null = null();
        let mut id = answered(&null, offered.0, offered.1);
        let qp = id.bring_up(built(&id.context().unwrap())).unwrap();
        let [_, (_, rtr), (_, rts)] = transitions(&null);
        assert_eq!((rtr.max_dest_rd_atomic, rts.max_rd_atomic), granted, "{offered:?}");
        drop(qp);
    }
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn what_is_asked_for_is_limited_by_the_queue_pair_and_limits_it() {
    for (asked, granted) in [((4, 3), (4, 3)), ((255, 255), (MAX_DEST_RD_ATOMIC, MAX_RD_ATOMIC))] {
        let null = null();
        let params = ConnectionParams::new();
        let params = params.set_responder_resources(asked.0).set_initiator_depth(asked.1);
        let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
        let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
        let (server, client) = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let incoming = acceptor.accept(None).unwrap().unwrap();
                let offer = incoming.peer_params().unwrap();
                // What one side can have under way is what the other answers.
                assert_eq!((offer.initiator_depth, offer.responder_resources), granted);
                let qp = built(incoming.context());
                incoming.accept(qp, &params, TIMEOUT).unwrap()
            });
            let qp = built(way.context());
            let client = way.connect(qp, &params, TIMEOUT).unwrap();
            (server.join().unwrap(), client)
        });
        for (_, attr) in null.modified() {
            assert!(attr.max_dest_rd_atomic <= granted.0 && attr.max_rd_atomic <= granted.1);
        }
        drop((server, client));
    }
}

#[test]
fn the_peer_is_told_of_a_shared_receive_queue() {
    let _null = null();
    let mut listener = listening(Tcp, 0);
    for has_srq in [false, true] {
        let mut client = resolved(Tcp, 0);
        let ctx = client.context().unwrap();
        let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).build().unwrap());
        let srq = pd.create_srq(1).build().unwrap();
        let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
        let builder = if has_srq { builder.set_srq(&srq) } else { builder };
        let qp = builder.build().unwrap();
        client.connect(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
        let event = next(&mut listener, CmEventType::CONNECT_REQUEST);
        assert_eq!(event.connection().unwrap().srq, has_srq);
    }
}

#[test]
fn bits_that_are_not_for_user_space_are_dropped() {
    let null = null();
    let mut id = answered(&null, 16, 16);
    null.configure(|config| {
        config.cm.edit_qp_attr = Some(Box::new(|_, mask| *mask |= 0x7e00_0000_u32 as i32));
    });
    let attr = id.qp_attr(QpState::INIT).unwrap();
    assert_eq!(attr.state(), Some(QpState::INIT));
    let qp = id.bring_up(built(&id.context().unwrap())).unwrap();
    for (mask, _) in null.modified() {
        assert!(QueuePairAttrMask::from_bits(mask).is_some(), "{mask:#x}");
    }
    drop(qp);
}

#[test]
fn attributes_that_are_missing_are_not_made_up() {
    let null = null();
    let mut id = answered(&null, 16, 16);
    null.configure(|config| {
        config.cm.edit_qp_attr = Some(Box::new(|attr, mask| {
            *attr = ffi::ibv_qp_attr { qp_state: attr.qp_state, ..Default::default() };
            *mask = ffi::IBV_QP_STATE as i32;
        }));
    });
    let qp = id.bring_up(built(&id.context().unwrap())).unwrap();
    let [_, (rtr_mask, rtr), (_, rts)] = transitions(&null);
    // What the peer did not offer is none.
    assert_eq!((rtr.max_dest_rd_atomic, rts.max_rd_atomic), (0, 0));
    assert!(!rtr_mask.contains(QueuePairAttrMask::AV));
    drop(qp);
    let mut datagrams = bound(Udp, 0);
    let failed = datagrams.activate(prepared_for::<Ud>(&datagrams)).unwrap_err();
    assert!(matches!(failed.error, Error::Unsupported { .. }));
}

/// That a handshake of the queue pair uses what it was built for.
#[track_caller]
fn expect_as_built(null: &Null, qp: PreparedQueuePair<Rc>) {
    let endpoint = qp.endpoint().unwrap();
    let mut qp = qp.handshake(endpoint).unwrap();
    let [(_, init), (_, rtr), (_, rts)] = transitions(null);
    assert_eq!(init.qp_access_flags, ACCESS.bits());
    assert_eq!((init.pkey_index, init.port_num), (0, 1));
    assert_eq!((rtr.max_dest_rd_atomic, rtr.min_rnr_timer), (MAX_DEST_RD_ATOMIC, 9));
    assert_eq!(rtr.path_mtu, ffi::IBV_MTU_4096);
    assert_eq!(rtr.ah_attr.sl, 0);
    assert_eq!((rts.max_rd_atomic, rts.timeout, rts.sq_psn), (MAX_RD_ATOMIC, 11, FIRST_PSN));
    assert_eq!((rts.retry_cnt, rts.rnr_retry), (RETRIES, RNR_RETRIES));
    let attr = qp.query(QueuePairAttrMask::STATE).unwrap();
    assert_eq!(attr.state(), Some(QpState::RTS));
}

/// Makes librdmacm answer with values that no builder has said.
fn answer_oddly(null: &Null) {
    null.configure(|config| {
        config.cm.edit_qp_attr = Some(Box::new(|attr, _| {
            attr.pkey_index = 7;
            attr.port_num = 9;
            attr.ah_attr.sl = 5;
            attr.ah_attr.grh.sgid_index = 3;
            attr.sq_psn = 0x65_4321;
        }));
    });
}

#[test]
fn a_queue_pair_that_could_not_be_brought_up_is_as_it_was_built() {
    for at in 0..3 {
        for verb in [Verb::ModifyQp, Verb::InitQpAttr] {
            let null = null();
            let mut id = answered(&null, 2, 1);
            answer_oddly(&null);
            let qp = built(&id.context().unwrap());
            null.fail_once_after(verb, at, libc::EACCES);
            let failed = id.bring_up(qp).unwrap_err();
            assert_eq!(failed.error.os_error(), Some(libc::EACCES), "{verb:?} {at}");
            expect_as_built(&null, failed.resource);
        }
    }
}

#[test]
fn one_that_was_initialised_before_is_initialised_again() {
    for at in 1..3 {
        let null = null();
        let mut id = answered(&null, 2, 1);
        answer_oddly(&null);
        let qp = built(&id.context().unwrap()).init().unwrap();
        null.fail_once_after(Verb::ModifyQp, at, libc::EACCES);
        let mut qp = id.bring_up(qp).unwrap_err().resource;
        let state = qp.query(QueuePairAttrMask::STATE).unwrap().state();
        assert_eq!(state, Some(QpState::INIT));
        let init = null.modified().pop().unwrap().1;
        assert_eq!((init.pkey_index, init.port_num), (0, 1), "as it was built");
        expect_as_built(&null, qp.reset().unwrap());
    }
}

#[test]
fn a_step_that_failed_changes_nothing() {
    let null = null();
    let mut id = answered(&null, 2, 1);
    answer_oddly(&null);
    let qp = built(&id.context().unwrap());
    null.fail_once(Verb::ModifyQp, libc::EACCES);
    let qp = id.init(qp).unwrap_err().resource;
    expect_as_built(&null, qp);
}

#[test]
fn the_steps_are_those_of_bringing_up_at_once() {
    let null = null();
    let mut id = answered(&null, 2, 1);
    let qp = id.init(built(&id.context().unwrap())).unwrap();
    let qp = id.ready_to_receive(qp).unwrap();
    let qp = id.ready_to_send(qp).unwrap();
    let [(_, init), (_, rtr), (_, rts)] = transitions(&null);
    assert_eq!(init.qp_access_flags, ACCESS.bits());
    assert_eq!((rtr.max_dest_rd_atomic, rtr.min_rnr_timer), (2, 9));
    assert_eq!((rts.max_rd_atomic, rts.timeout, rts.retry_cnt), (1, 11, RETRIES));
    drop(qp);
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_connection_that_could_not_be_confirmed_leaves_the_queue_pair_as_it_was_built() {
    let null = null();
    let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
    let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
    let client = built(way.context());
    null.fail_once(Verb::Establish, libc::EACCES);
    let (client, server) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let incoming = acceptor.accept(None).unwrap().unwrap();
            let qp = built(incoming.context());
            incoming.accept(qp, &ConnectionParams::new(), TIMEOUT).unwrap_err()
        });
        let params = ConnectionParams::new().set_initiator_depth(1).set_responder_resources(1);
        (way.connect(client, &params, TIMEOUT).unwrap_err(), server.join().unwrap())
    });
    assert_eq!(client.error.os_error(), Some(libc::EACCES));
    expect_as_built(&null, client.resource);
    assert!(matches!(server.error, Error::Connection(_)), "{}", server.error);
    expect_as_built(&null, server.resource);
}

#[test]
fn a_poll_that_is_open_does_not_dead_lock_with_stepping_back() {
    let null = null();
    let mut id = answered(&null, 2, 1);
    let ctx = id.context().unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).build().unwrap());
    let qp = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap();
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap().unwrap();
    null.fail_once_after(Verb::ModifyQp, 2, libc::EACCES);
    let failed = id.bring_up(qp).unwrap_err();
    drop(completions);
    // It could not be taken back, which the next transition reports.
    assert!(failed.resource.init().is_err());
}

#[test]
fn a_datagram_queue_pair_has_the_key_of_the_port_space() {
    let null = null();
    let mut id = bound(Udp, 0);
    for at in 0..3 {
        let qp = prepared_for::<Ud>(&id);
        null.fail_once_after(Verb::ModifyQp, at, libc::EACCES);
        let failed = id.activate(qp).unwrap_err();
        drop(failed.resource.init().unwrap());
    }
    let qp = id.activate(prepared_for::<Ud>(&id)).unwrap();
    let [(_, init), ..] = transitions(&null);
    assert_eq!(init.qkey, ffi::RDMA_UDP_QKEY);
    drop(qp);
}

#[test]
fn options_of_a_vendor_are_unsupported_where_there_are_none() {
    let _null = null();
    let id = bound(Tcp, 0);
    let mut qp = prepared_for::<Rc>(&id);
    assert!(matches!(qp.query_ece(), Err(Error::Unsupported { .. })));
    let ece = Ece { vendor_id: 1, options: 2 };
    assert!(matches!(qp.set_ece(ece), Err(Error::Unsupported { .. })));
}

#[test]
fn what_the_connection_manager_says_can_be_applied_by_hand() {
    let null = null();
    let mut id = answered(&null, 2, 1);
    let mut qp = built(&id.context().unwrap()).into_manual();
    for state in [QpState::INIT, QpState::RTR, QpState::RTS] {
        qp.modify(&id.qp_attr(state).unwrap()).unwrap();
    }
    // States that it has no attributes for, and such that are none.
    for state in [QpState::RESET, QpState::SQD, QpState::ERR, QpState(77), QpState(u32::MAX)] {
        assert!(id.qp_attr(state).is_err());
    }
    assert!(qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).is_ok());
}
