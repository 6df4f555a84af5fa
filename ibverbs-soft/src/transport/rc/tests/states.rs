//! States: what is done in which, and what is left when one is left.

use super::*;

#[test]
fn packets_are_taken_from_ready_to_receive_on() {
    let mut side = Side::new(0x11, false);
    let mut bed = Bed::new();
    let now = bed.now;
    let operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };
    for state in [State::Reset, State::Init, State::ReadyToReceive, State::ReadyToSend] {
        side.qp.modify(now, state, attributes(B), &mut side.host);
        if state != State::Reset {
            side.recv(1, &[]);
        }
        let next = psn(A, u32::from(state == State::ReadyToSend));
        let packet = bed.forge(B, next, operation, Vec::new());
        side.qp.handle_packet(now, &path(1, 2), packet, &mut side.host);
        side.qp.hasten_acks();
        let answer = side.qp.poll_transmit(now, &mut side.host);
        let takes = matches!(state, State::ReadyToReceive | State::ReadyToSend);
        assert_eq!(answer.is_some(), takes, "{state:?}");
        assert_eq!(side.completions().len(), usize::from(takes), "{state:?}");
        let established = state == State::ReadyToReceive;
        let expected = established.then_some(QpEvent::CommunicationEstablished);
        assert_eq!(side.events(), Vec::from_iter(expected), "{state:?}");
    }
    // Once is enough.
    bed.modify(B, State::ReadyToSend, |_| ());
    assert_eq!(bed.b().events(), []);
}

#[test]
fn communication_is_established_once() {
    let mut side = Side::new(0x11, false);
    let bed = Bed::new();
    for state in [State::Init, State::ReadyToReceive] {
        side.qp.modify(bed.now, state, attributes(B), &mut side.host);
    }
    for index in 0..3 {
        let operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };
        let packet = bed.forge(B, psn(A, index), operation, Vec::new());
        side.recv(1, &[]);
        side.qp.handle_packet(bed.now, &path(1, 2), packet, &mut side.host);
    }
    assert_eq!(side.events(), [QpEvent::CommunicationEstablished]);
}

#[test]
fn an_error_flushes_all_that_is_there_and_all_that_comes() {
    for srq in [false, true] {
        let mut bed = Bed::with_queues([srq; 2], |_, _| ());
        bed.a().recv(1, &[]);
        bed.a().recv(2, &[]);
        bed.post(A, unsignaled(send(3, &[])));
        bed.post(A, send(4, &[]));
        bed.sent(A);
        bed.modify(A, State::Error, |_| ());
        let done = bed.a().full_completions();
        let found: Vec<_> = done.iter().map(|done| (done.wr_id, done.status)).collect();
        match srq {
            false => {
                let expected = [(3, FLUSHED), (4, FLUSHED), (1, FLUSHED), (2, FLUSHED)];
                assert_eq!(found, expected);
                assert_eq!(bed.a().events(), []);
            }
            // Those of the shared queue are not this queue pair's.
            true => {
                assert_eq!(found, [(3, FLUSHED), (4, FLUSHED)]);
                assert_eq!(bed.a().events(), [QpEvent::LastRequestReached]);
            }
        }
        assert!(done.iter().all(|done| done.qp_num == 0x10));
        bed.post(A, unsignaled(send(5, &[])));
        assert_eq!(bed.a().completions(), [(5, FLUSHED)]);
        if !srq {
            bed.a().recv(6, &[]);
            assert_eq!(bed.a().completions(), [(6, FLUSHED)]);
        }
        assert_eq!((bed.a().qp.send_room(), bed.a().qp.recv_room()), (128, 128));
        assert_eq!(bed.a().qp.next_timeout(), None);
        let ack = bed.answer(0, ACK);
        bed.deliver(A, ack);
        assert_eq!(bed.sent_at_once(A), []);
        // Failing again says nothing more.
        bed.modify(A, State::Error, |_| ());
        assert_eq!((bed.a().completions(), bed.a().events()), (vec![], vec![]));
    }
}

#[test]
fn a_receive_in_use_is_flushed_before_the_others() {
    for srq in [false, true] {
        let mut bed = Bed::with_queues([false, srq], |_, _| ());
        let (from, to) = (bed.a().sge(0, 2 * MTU), bed.b().sge(0, 2 * MTU));
        bed.b().recv(1, &[to]);
        bed.b().recv(2, &[]);
        bed.post(A, send(3, &[from]));
        let packets = bed.sent(A);
        bed.deliver(B, packets[0].clone());
        bed.modify(B, State::Error, |_| ());
        let expected: &[(u64, Status)] = match srq {
            false => &[(1, FLUSHED), (2, FLUSHED)],
            true => &[(1, FLUSHED)],
        };
        assert_eq!(bed.b().completions(), expected);
    }
}

#[test]
fn what_was_done_is_acknowledged_even_after_an_error() {
    let mut bed = Bed::new();
    bed.b().recv(1, &[]);
    bed.post(A, send(2, &[]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    assert_eq!(bed.b().completions(), [(1, OK)]);
    bed.modify(B, State::Error, |_| ());
    let acks = bed.sent(B);
    assert_eq!(syndromes(A, &acks), [(0, ACK)]);
    bed.deliver_all(A, acks);
    assert_eq!(bed.a().completions(), [(2, OK)]);
    assert_eq!(bed.b().qp.next_timeout(), None);
}

#[test]
fn a_read_that_is_not_answered_is_not_acknowledged_after_an_error() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 8);
    bed.b().recv(1, &[]);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    bed.post(A, send(2, &[]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    bed.modify(B, State::Error, |_| ());
    assert_eq!(bed.sent_at_once(B), []);
}

#[test]
fn a_reset_forgets_everything() {
    let mut bed = Bed::new();
    bed.a().recv(1, &[]);
    bed.post(A, send(2, &[]));
    bed.sent(A);
    bed.modify(A, State::Reset, |_| ());
    assert_eq!(bed.a().completions(), []);
    assert_eq!(bed.a().qp.next_timeout(), None);
    assert_eq!((bed.a().qp.send_room(), bed.a().qp.recv_room()), (128, 128));
    assert_eq!(bed.sent_at_once(A), []);
    // It can be connected again, to a peer that begins anew, too.
    let mut other = Bed::new();
    std::mem::swap(bed.a(), other.a());
    for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
        other.modify(A, state, |now| *now = attributes(A));
    }
    other.b().recv(3, &[]);
    other.post(A, send(4, &[]));
    other.settle();
    assert_eq!(other.a().completions(), [(4, OK)]);
    assert_eq!(other.b().completions(), [(3, OK)]);
}

#[test]
fn a_drain_finishes_what_was_begun() {
    let mut bed = Bed::new();
    let (from, to) = (bed.a().sge(0, 40 * MTU), bed.b().sge(0, 40 * MTU));
    bed.b().recv(1, &[to]);
    bed.b().recv(2, &[]);
    bed.post(A, unsignaled(send(3, &[from])));
    bed.post(A, send(4, &[]));
    let packets = bed.sent(A);
    assert_eq!(packets.len(), 32, "a part of the first message");
    bed.modify(A, State::SendQueueDrain, |_| ());
    assert!(bed.a().qp.is_draining());
    bed.deliver_all(B, packets);
    bed.settle();
    assert_eq!(bed.b().completions(), [(1, OK)], "all of it, and nothing else");
    assert_eq!(bed.a().events(), [QpEvent::SendQueueDrained]);
    assert!(!bed.a().qp.is_draining());
    assert_eq!(bed.a().qp.next_timeout(), None);
    bed.modify(A, State::SendQueueDrain, |attributes| attributes.retry_count = 5);
    bed.post(A, send(5, &[]));
    bed.settle();
    assert_eq!((bed.a().completions(), bed.a().events()), (vec![], vec![]));
    bed.b().recv(6, &[]);
    bed.modify(A, State::ReadyToSend, |_| ());
    bed.settle();
    assert_eq!(bed.a().completions(), [(4, OK), (5, OK)]);
}

#[test]
fn a_drain_of_nothing_is_done_at_once() {
    let mut bed = Bed::new();
    bed.modify(A, State::SendQueueDrain, |_| ());
    assert_eq!(bed.a().events(), [QpEvent::SendQueueDrained]);
    assert!(!bed.a().qp.is_draining());
}

#[test]
fn a_drain_asks_for_the_acknowledgement_that_nobody_has_asked_for() {
    let mut bed = Bed::with(|_, attributes| attributes.timeout = 0);
    bed.b().recv(1, &[]);
    bed.post(A, unsignaled(send(1, &[])));
    bed.post(A, send(2, &[]));
    let first = bed.next(A).unwrap();
    assert!(!first.bth.ack_request);
    bed.deliver(B, first);
    bed.modify(A, State::SendQueueDrain, |_| ());
    bed.settle();
    assert_eq!(bed.a().events(), [QpEvent::SendQueueDrained]);
    assert_eq!(bed.b().completions(), [(1, OK)]);
}

#[test]
fn a_drain_goes_on_receiving() {
    let mut bed = Bed::new();
    bed.modify(B, State::SendQueueDrain, |_| ());
    bed.b().recv(1, &[]);
    bed.post(A, send(2, &[]));
    bed.settle();
    assert_eq!(bed.a().completions(), [(2, OK)]);
    assert_eq!(bed.b().completions(), [(1, OK)]);
}

#[test]
fn a_drain_that_fails_is_no_drain() {
    let mut bed = Bed::new();
    bed.post(A, send(1, &[]));
    bed.sent(A);
    bed.modify(A, State::SendQueueDrain, |_| ());
    for _ in 0..4 {
        bed.pass(A, TIMEOUT);
        bed.sent(A);
    }
    assert_eq!(bed.a().completions(), [(1, Status::RetryExceeded)]);
    assert_eq!(bed.a().events(), []);
    assert!(!bed.a().qp.is_draining());
}

#[test]
fn rooms_are_those_of_the_queues() {
    let mut bed = Bed::new();
    for wr_id in 0..3 {
        bed.post(A, unsignaled(send(wr_id, &[])));
        bed.a().recv(wr_id, &[]);
    }
    assert_eq!((bed.a().qp.send_room(), bed.a().qp.recv_room()), (125, 125));
    bed.sent(A);
    let ack = bed.answer(1, ACK);
    bed.deliver(A, ack);
    assert_eq!(bed.a().qp.send_room(), 127);
}

#[test]
fn signal_all_completes_all() {
    let mut bed = Bed::new();
    let config = Config { signal_all: true, ..*bed.a().qp.config() };
    bed.a().qp = QueuePair::new(config, 0);
    for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
        bed.modify(A, state, |now| *now = attributes(A));
    }
    bed.b().recv(1, &[]);
    bed.post(A, unsignaled(send(2, &[])));
    bed.settle();
    assert_eq!(bed.a().completions(), [(2, OK)]);
}

#[test]
fn an_idle_connection_has_nothing_to_do() {
    let mut bed = Bed::new();
    bed.a().recv(1, &[]);
    assert_eq!(bed.a().qp.next_timeout(), None);
    bed.a().qp.hasten_acks();
    bed.pass(A, Duration::from_secs(3600));
    assert_eq!(bed.sent(A), []);
}

#[test]
fn a_queue_pair_can_be_connected_to_itself() {
    let mut side = Side::new(0x10, false);
    let now = Instant::now();
    let own = Attributes { path: Some(path(1, 1)), rq_psn: psn(A, 0), ..attributes(A) };
    for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
        side.qp.modify(now, state, own, &mut side.host);
    }
    let (addr, rkey) = (side.addr + 1000, side.key);
    let (from, to) = (side.sge(0, 600), side.sge(2000, 600));
    side.recv(1, &[to]);
    for request in [
        send(2, &[from]),
        request(3, SendOperation::Write { addr, rkey, imm: None }, &[from]),
        request(4, SendOperation::Read { addr, rkey }, &[side.sge(3000, 600)]),
    ] {
        side.qp.post_send(now, request, &mut side.host);
    }
    for _ in 0..2 {
        while let Some(sent) = side.qp.poll_transmit(now, &mut side.host) {
            side.qp.handle_packet(now, &sent.path, sent.packet, &mut side.host);
        }
        side.qp.hasten_acks();
    }
    assert_eq!(side.completions(), [(1, OK), (2, OK), (3, OK), (4, OK)]);
    for at in [1000, 2000, 3000] {
        assert_eq!(side.bytes(at, 600), side.bytes(0, 600));
    }
}
