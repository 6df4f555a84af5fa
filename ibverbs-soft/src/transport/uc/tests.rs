use super::super::{CompletionKind, QpEvent};
use super::*;
use crate::sim::fixture::{Fixture, MTU, PSNS};
use crate::transport::{Bind, Payload, SendRequest};
use crate::wire::{Position, Reth, Service};

const SEND: SendOperation = SendOperation::Send { imm: None };

fn part(position: Position) -> Operation {
    Operation::Send { position, imm: None, invalidate: None }
}

fn fixture() -> Fixture {
    Fixture::new(Service::Uc)
}

fn success(wr_id: u64) -> Vec<(u64, Status)> {
    vec![(wr_id, Status::Success)]
}

#[test]
fn a_message_of_several_packets_arrives_with_its_immediate_data() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 100), fixture.sge(1, 200, 1000)]);
    let sges = vec![fixture.sge(0, 3, 333), fixture.sge(0, 1000, 400)];
    fixture.send(1, SendOperation::Send { imm: Some(9) }, sges);
    assert_eq!(fixture.ended(0), success(1));
    let [received] = fixture.completions(1)[..] else { panic!("one receive") };
    assert_eq!((received.wr_id, received.status), (7, Status::Success));
    assert_eq!((received.kind, received.len), (CompletionKind::Recv, 733));
    assert_eq!((received.imm, received.solicited), (Some(9), false));
    let sent = [fixture.bytes(0, 3, 333), fixture.bytes(0, 1000, 400)].concat();
    assert_eq!([fixture.bytes(1, 0, 100), fixture.bytes(1, 200, 633)].concat(), sent);
}

#[test]
fn a_write_arrives_and_takes_a_receive_for_immediate_data_only() {
    let mut fixture = fixture();
    let (addr, rkey) = fixture.memory[1];
    fixture.receive(7, vec![]);
    let sges = vec![fixture.sge(0, 9, 600)];
    fixture.send(1, SendOperation::Write { addr: addr + 50, rkey, imm: None }, sges.clone());
    assert_eq!(fixture.bytes(1, 50, 600), fixture.bytes(0, 9, 600));
    assert!(fixture.completions(1).is_empty());
    fixture.send(2, SendOperation::Write { addr: addr + 700, rkey, imm: Some(5) }, sges);
    assert_eq!(fixture.bytes(1, 700, 600), fixture.bytes(0, 9, 600));
    let [received] = fixture.completions(1)[..] else { panic!("one receive") };
    assert_eq!((received.kind, received.len), (CompletionKind::RecvWriteWithImm, 600));
    assert_eq!((received.wr_id, received.imm), (7, Some(5)));
}

#[test]
fn a_message_with_a_gap_is_dropped_and_its_receive_kept_for_the_next() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 1000)]);
    let full = [1; MTU as usize];
    let psn = PSNS[0];
    for (number, position) in
        [(0, Position::First), (2, Position::Middle), (3, Position::Last), (4, Position::Last)]
    {
        let packet = fixture.packet(psn.add(number), part(position), &full);
        fixture.inject(packet);
        assert!(fixture.completions(1).is_empty(), "{position:?}");
    }
    for (number, position, byte) in [(9, Position::First, 2), (10, Position::Last, 3)] {
        let packet = fixture.packet(psn.add(number), part(position), &[byte; MTU as usize]);
        fixture.inject(packet);
    }
    assert_eq!(fixture.ended(1), success(7));
    assert_eq!(fixture.bytes(1, 0, 512), [[2; 256], [3; 256]].concat());
    assert_eq!(fixture.state(1), State::ReadyToSend);
}

#[test]
fn a_beginning_without_an_end_gives_way_to_the_next() {
    let mut fixture = fixture();
    let (addr, rkey) = fixture.memory[1];
    fixture.receive(7, vec![fixture.sge(1, 0, 1000)]);
    let psn = PSNS[0];
    let full = [1; MTU as usize];
    let reth = Some(Reth { addr: addr + 5000, rkey, len: 4 });
    let write = Operation::Write { position: Position::Only, reth, imm: None };
    for packet in [
        fixture.packet(psn, part(Position::First), &full),
        fixture.packet(psn.add(1), write, &[8; 4]),
        fixture.packet(psn.add(2), part(Position::Last), &full),
        fixture.packet(psn.add(3), part(Position::Only), &[4; 3]),
    ] {
        fixture.inject(packet);
    }
    assert_eq!(fixture.bytes(1, 5000, 4), [8; 4]);
    let [received] = fixture.completions(1)[..] else { panic!("one receive") };
    assert_eq!((received.len, fixture.bytes(1, 0, 3)), (3, vec![4; 3]));
}

#[test]
fn what_comes_again_does_not_break_a_message() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 1000)]);
    let psn = PSNS[0];
    for (number, position) in [
        (0, Position::First),
        (1, Position::Middle),
        (1, Position::Middle),
        (2, Position::Middle),
        (1, Position::Middle),
        (3, Position::Last),
        (3, Position::Last),
    ] {
        let bytes = [number as u8; 200];
        let len = if position == Position::Last { 200 } else { 256 };
        let bytes = [&bytes[..], &bytes[..]].concat();
        let packet = fixture.packet(psn.add(number), part(position), &bytes[..len]);
        fixture.inject(packet);
    }
    let [received] = fixture.completions(1)[..] else { panic!("one receive") };
    assert_eq!(received.len, 3 * 256 + 200);
    assert_eq!(fixture.bytes(1, 0, 968), [&[0; 256][..], &[1; 256], &[2; 256], &[3; 200]].concat());
}

#[test]
fn a_message_without_a_receive_is_dropped() {
    let mut fixture = fixture();
    fixture.send(1, SEND, vec![fixture.sge(0, 0, 600)]);
    assert_eq!(fixture.ended(0), success(1));
    fixture.receive(7, vec![fixture.sge(1, 0, 600)]);
    assert!(fixture.completions(1).is_empty());
    fixture.send(2, SEND, vec![fixture.sge(0, 1, 600)]);
    assert_eq!(fixture.ended(1), success(7));
    assert_eq!(fixture.bytes(1, 0, 600), fixture.bytes(0, 1, 600));
}

#[test]
fn a_write_that_is_not_allowed_is_dropped() {
    let mut fixture = fixture();
    let (addr, rkey) = fixture.memory[1];
    let sges = vec![fixture.sge(0, 0, 600)];
    for (addr, rkey) in [(addr, rkey + 1), (addr - 1, rkey), (addr + (64 << 10) - 599, rkey)] {
        fixture.send(1, SendOperation::Write { addr, rkey, imm: None }, sges.clone());
    }
    fixture.attributes[1].access.write = false;
    fixture.modify(1, State::ReadyToSend);
    fixture.send(1, SendOperation::Write { addr, rkey, imm: None }, sges);
    assert!(!fixture.is_written(1));
    assert_eq!(fixture.ended(0), [(1, Status::Success); 4]);
    assert_eq!([fixture.state(0), fixture.state(1)], [State::ReadyToSend; 2]);
}

#[test]
fn a_message_that_is_longer_than_its_receive_fails_the_receiver() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    fixture.receive(8, vec![fixture.sge(1, 0, 500)]);
    fixture.send(1, SEND, vec![fixture.sge(0, 0, 600)]);
    assert_eq!(fixture.ended(0), success(1));
    assert_eq!(fixture.ended(1), [(7, Status::LocalLength), (8, Status::WorkRequestFlushed)]);
    assert_eq!(fixture.state(1), State::Error);
}

#[test]
fn a_receive_that_cannot_be_written_fails_the_receiver() {
    let mut fixture = fixture();
    let mut sge = fixture.sge(1, 0, 500);
    sge.lkey += 1;
    fixture.receive(7, vec![sge]);
    fixture.send(1, SEND, vec![fixture.sge(0, 0, 300)]);
    assert_eq!(fixture.ended(1), [(7, Status::LocalProtection)]);
    assert_eq!(fixture.state(1), State::Error);
}

#[test]
fn a_send_that_fails_stops_the_send_queue_only() {
    let mut fixture = fixture();
    let mut bad = fixture.sge(0, 0, 300);
    bad.len = 65 << 10;
    let good = fixture.sge(0, 0, 300);
    fixture.post(1, SEND, vec![good]);
    fixture.post(2, SEND, vec![good, bad]);
    fixture.post(3, SEND, vec![good]);
    let flushed = Status::WorkRequestFlushed;
    assert_eq!(
        fixture.ended(0),
        [(1, Status::Success), (2, Status::LocalProtection), (3, flushed)]
    );
    assert_eq!(fixture.state(0), State::SendQueueError);
    fixture.send(4, SEND, vec![good]);
    assert_eq!(fixture.ended(0), [(4, flushed)]);

    // It still receives.
    fixture.net.post_recv(0, 0, crate::transport::RecvRequest { wr_id: 9, sges: vec![good] });
    let back = SendRequest {
        wr_id: 5,
        operation: SEND,
        payload: Payload::Inline(vec![6; 300]),
        signaled: true,
        solicited: true,
        fenced: false,
    };
    fixture.net.post_send(1, 0, back);
    assert_eq!(fixture.ended(0), success(9));

    fixture.modify(0, State::ReadyToSend);
    fixture.receive(7, vec![fixture.sge(1, 0, 300)]);
    fixture.send(6, SEND, vec![good]);
    assert_eq!(fixture.ended(0), success(6));
    assert_eq!(fixture.ended(1)[1..], success(7));
}

#[test]
fn what_this_service_has_not_is_refused_at_the_sender() {
    let mut fixture = fixture();
    let (addr, rkey) = fixture.memory[1];
    fixture.send(1, SendOperation::Read { addr, rkey }, vec![fixture.sge(0, 0, 8)]);
    assert_eq!(fixture.ended(0), [(1, Status::LocalQpOperation)]);
    fixture.modify(0, State::ReadyToSend);
    let long = vec![fixture.sge(0, 0, u32::MAX); 2];
    fixture.send(2, SEND, long);
    assert_eq!(fixture.ended(0), [(2, Status::LocalLength)]);
}

#[test]
fn packets_of_others_change_nothing() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 500)]);
    let packet = fixture.packet(PSNS[0], part(Position::Only), &[1; 4]);
    let mut path = fixture.net.path(0, 1);
    path.source = [10, 0, 0, 9].into();
    fixture.net.inject(path, &packet);
    let mut other = packet.clone();
    other.bth.pkey = 0x8001;
    fixture.inject(other);
    let mut other = packet.clone();
    other.bth.dest_qp += 1;
    fixture.inject(other);
    let read = Operation::ReadRequest(Reth { addr: 0, rkey: 0, len: 0 });
    let mut other = fixture.packet(PSNS[0], read, &[]);
    other.bth.service = Service::Rc;
    fixture.inject(other);
    assert!(fixture.completions(1).is_empty());
    fixture.inject(packet);
    assert_eq!(fixture.ended(1), success(7));
}

#[test]
fn draining_finishes_the_message_that_has_begun() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 600)]);
    let sge = fixture.sge(0, 0, 600);
    fixture.post(1, SEND, vec![sge]);
    fixture.post(2, SEND, vec![sge]);
    let now = fixture.net.now();
    let (endpoint, host) = fixture.net.endpoint(0, 0);
    let first = endpoint.qp.poll_transmit(now, host).expect("a packet");
    fixture.modify(0, State::SendQueueDrain);
    assert!(fixture.net.nodes[0].endpoints[0].qp.is_draining());
    fixture.net.inject(first.path, &first.packet);
    assert_eq!(fixture.ended(0), success(1));
    assert_eq!(fixture.events(0), [QpEvent::SendQueueDrained]);
    assert_eq!(fixture.net.nodes[0].endpoints[0].qp.send_room(), 15);
    fixture.modify(0, State::ReadyToSend);
    assert_eq!(fixture.ended(0), success(2));

    fixture.modify(0, State::SendQueueDrain);
    fixture.settle();
    assert_eq!(fixture.events(0), [QpEvent::SendQueueDrained; 2]);
}

#[test]
fn an_error_flushes_both_queues() {
    let mut fixture = fixture();
    fixture.receive(7, vec![fixture.sge(1, 0, 600)]);
    let packet = fixture.packet(PSNS[0], part(Position::First), &[1; MTU as usize]);
    fixture.inject(packet);
    fixture.modify(1, State::Error);
    fixture.receive(8, vec![]);
    let flushed = Status::WorkRequestFlushed;
    assert_eq!(fixture.ended(1), [(7, flushed), (8, flushed)]);
    let sge = fixture.sge(0, 0, 600);
    fixture.post(1, SEND, vec![sge]);
    fixture.modify(0, State::Error);
    fixture.post(2, SEND, vec![sge]);
    assert_eq!(fixture.ended(0), [(1, flushed), (2, flushed)]);
}

#[test]
fn windows_are_bound_and_withdrawn_in_order_and_a_failure_stops_the_sends() {
    let mut fixture = fixture();
    let host = &mut fixture.net.nodes[0].host;
    let key = host.alloc_window();
    let (addr, region) = fixture.memory[0];
    let access = crate::transport::RemoteAccess { write: true, read: false, atomic: false };
    let bind = Bind { old_rkey: key, rkey: key + 1, region: Some(region), addr, len: 9, access };
    fixture.post(1, SEND, vec![fixture.sge(0, 0, 600)]);
    fixture.post(2, SendOperation::Bind(bind), vec![]);
    fixture.post(3, SendOperation::LocalInvalidate { rkey: key + 1 }, vec![]);
    fixture.post(4, SEND, vec![]);
    let kinds = |it: &mut Fixture| -> Vec<_> {
        it.completions(0).iter().map(|it| (it.wr_id, it.status, it.kind)).collect()
    };
    let ok = Status::Success;
    let expected = [
        (1, ok, CompletionKind::Send),
        (2, ok, CompletionKind::Bind),
        (3, ok, CompletionKind::LocalInvalidate),
        (4, ok, CompletionKind::Send),
    ];
    assert_eq!(kinds(&mut fixture), expected);
    fixture.post(5, SendOperation::LocalInvalidate { rkey: key + 1 }, vec![]);
    fixture.post(6, SEND, vec![]);
    let expected = [(5, Status::WindowBind), (6, Status::WorkRequestFlushed)];
    assert_eq!(fixture.ended(0), expected);
    assert_eq!(fixture.state(0), State::SendQueueError);
}

#[test]
fn a_peer_withdraws_no_keys() {
    let mut fixture = fixture();
    fixture.receive(7, vec![]);
    let operation = Operation::Send { position: Position::Only, imm: None, invalidate: Some(1) };
    let packet = fixture.packet(PSNS[0], operation, &[]);
    let path = fixture.net.path(0, 1);
    let now = fixture.net.now();
    let (endpoint, host) = fixture.net.endpoint(1, 0);
    endpoint.qp.handle_packet(now, &path, packet, host);
    assert!(fixture.completions(1).is_empty());
    assert_eq!(fixture.state(1), State::ReadyToSend);
}
