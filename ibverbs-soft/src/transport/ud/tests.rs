use super::*;
use crate::sim::fixture::{Fixture, MTU, NUMBERS, PSNS, QKEY};
use crate::wire::GRH_LEN;

fn fixture() -> Fixture {
    Fixture::new(Service::Ud)
}

fn datagram(fixture: &Fixture, qkey: u32, imm: Option<u32>) -> SendOperation {
    SendOperation::Datagram { path: fixture.net.path(0, 1), remote_qpn: NUMBERS[1], qkey, imm }
}

const ONLY: Operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };

#[test]
fn a_datagram_arrives_behind_its_header() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 30), fixture.sge(1, 100, 500)]);
    let operation = datagram(&fixture, QKEY, Some(5));
    fixture.send(1, operation, vec![fixture.sge(0, 3, 200), fixture.sge(0, 1000, 56)]);
    assert_eq!(fixture.ended(0), [(1, Status::Success)]);
    let [received] = fixture.completions(1)[..] else { panic!("one receive") };
    assert_eq!((received.wr_id, received.status), (7, Status::Success));
    assert_eq!((received.kind, received.len), (CompletionKind::Recv, 296));
    assert_eq!((received.imm, received.src_qp, received.grh), (Some(5), NUMBERS[0], true));
    let bytes = [fixture.bytes(1, 0, 30), fixture.bytes(1, 100, 266)].concat();
    assert_eq!(bytes[..20], [0; 20]);
    assert_eq!(bytes[20], 0x45);
    assert_eq!(bytes[32..GRH_LEN], [10, 0, 0, 1, 10, 0, 0, 2]);
    let sent = [fixture.bytes(0, 3, 200), fixture.bytes(0, 1000, 56)].concat();
    assert_eq!(bytes[GRH_LEN..], sent);
}

#[test]
fn a_datagram_with_another_queue_key_is_dropped() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    let sges = vec![fixture.sge(0, 3, 20)];
    let operation = datagram(&fixture, QKEY + 1, None);
    fixture.send(1, operation, sges.clone());
    assert_eq!(fixture.ended(0), [(1, Status::Success)]);
    assert!(fixture.completions(1).is_empty());
    // A privileged key stands for that of the queue pair.
    let operation = datagram(&fixture, 0x8765_4321, None);
    fixture.send(2, operation, sges);
    assert_eq!(fixture.ended(1), [(7, Status::Success)]);
}

#[test]
fn a_datagram_that_is_longer_than_the_mtu_stops_the_send_queue_only() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    let operation = datagram(&fixture, QKEY, None);
    fixture.post(1, operation, vec![fixture.sge(0, 0, MTU + 1)]);
    fixture.post(2, operation, vec![fixture.sge(0, 0, MTU)]);
    let flushed = (2, Status::WorkRequestFlushed);
    assert_eq!(fixture.ended(0), [(1, Status::LocalLength), flushed]);
    assert_eq!(fixture.state(0), State::SendQueueError);
    assert!(fixture.completions(1).is_empty());
    fixture.modify(0, State::ReadyToSend);
    fixture.send(3, operation, vec![fixture.sge(0, 0, MTU)]);
    assert_eq!(fixture.ended(0), [(3, Status::Success)]);
    assert_eq!(fixture.ended(1), [(7, Status::Success)]);
}

#[test]
fn memory_that_cannot_be_read_is_not_sent() {
    let mut fixture = fixture();
    let operation = datagram(&fixture, QKEY, None);
    let mut sge = fixture.sge(0, 0, 10);
    sge.lkey += 1;
    fixture.send(1, operation, vec![sge]);
    assert_eq!(fixture.ended(0), [(1, Status::LocalProtection)]);
    fixture.modify(0, State::ReadyToSend);
    fixture.send(2, SendOperation::Send { imm: None }, vec![]);
    assert_eq!(fixture.ended(0), [(2, Status::LocalQpOperation)]);
}

#[test]
fn a_receive_that_is_too_short_fails_alone() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 59)]);
    let mut unwritable = fixture.sge(1, 0, 60);
    unwritable.lkey += 1;
    fixture.receive(8, vec![unwritable]);
    fixture.receive(9, vec![fixture.sge(1, 0, 60)]);
    for _ in 0..3 {
        let operation = datagram(&fixture, QKEY, None);
        fixture.send(1, operation, vec![fixture.sge(0, 3, 20)]);
    }
    let ended = fixture.ended(1);
    assert_eq!(
        ended,
        [(7, Status::LocalLength), (8, Status::LocalProtection), (9, Status::Success)]
    );
    assert_eq!(fixture.state(1), State::ReadyToSend);
}

#[test]
fn a_datagram_without_a_receive_is_dropped() {
    let mut fixture = fixture();
    let operation = datagram(&fixture, QKEY, None);
    fixture.send(1, operation, vec![fixture.sge(0, 3, 20)]);
    fixture.receive(7, vec![fixture.sge(1, 0, 100)]);
    assert!(fixture.completions(1).is_empty());
    fixture.send(2, operation, vec![fixture.sge(0, 3, 20)]);
    assert_eq!(fixture.ended(1), [(7, Status::Success)]);
}

#[test]
fn what_is_no_datagram_for_this_queue_pair_changes_nothing() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    let good = fixture.packet(PSNS[0], ONLY, &[1; 4]);
    let mut other = good.clone();
    other.bth.pkey = 0x8001;
    fixture.inject(other);
    let now = fixture.net.now();
    let path = fixture.net.path(0, 1);
    let first = Operation::Send { position: Position::First, imm: None, invalidate: None };
    let key = Operation::Send { position: Position::Only, imm: None, invalidate: Some(1) };
    for (deth, operation) in [(None, ONLY), (good.deth, first), (good.deth, key)] {
        let packet = Packet { deth, operation, ..good.clone() };
        let (endpoint, host) = fixture.net.endpoint(1, 0);
        endpoint.qp.handle_packet(now, &path, packet, host);
    }
    assert!(fixture.completions(1).is_empty());
    fixture.inject(good);
    assert_eq!(fixture.ended(1), [(7, Status::Success)]);
}

#[test]
fn nothing_is_sent_while_draining_and_everything_is_flushed_at_an_error() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    fixture.modify(0, State::SendQueueDrain);
    assert!(!fixture.net.nodes[0].endpoints[0].qp.is_draining());
    let operation = datagram(&fixture, QKEY, None);
    fixture.send(1, operation, vec![fixture.sge(0, 3, 20)]);
    assert!(fixture.completions(0).is_empty() && fixture.completions(1).is_empty());
    fixture.modify(0, State::ReadyToSend);
    assert_eq!(fixture.ended(1), [(7, Status::Success)]);
    fixture.modify(0, State::SendQueueDrain);
    fixture.post(2, operation, vec![fixture.sge(0, 3, 20)]);
    fixture.modify(0, State::Error);
    assert_eq!(fixture.ended(0)[1..], [(2, Status::WorkRequestFlushed)]);
}
