//! What a responder makes of requests that it has carried out before, or that are out of order.

use super::*;
use crate::transport::Host;

/// Carries out a few requests of A at B, and returns their packets. All answers are lost.
fn carried_out(bed: &mut Bed) -> Vec<Packet> {
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.b().sge(40_000, 2 * MTU);
    bed.b().recv(7, &[to]);
    let (from, result) = (bed.a().sge(0, 2 * MTU), bed.a().sge(8, 8));
    bed.post(A, send(1, &[from]));
    bed.post(A, request(2, SendOperation::Write { addr: addr + 64, rkey, imm: None }, &[result]));
    bed.post(A, request(3, SendOperation::Read { addr, rkey }, &[from]));
    bed.post(A, request(4, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[result]));
    bed.post(A, send(5, &[]));
    bed.b().recv(8, &[]);
    let packets = bed.sent(A);
    assert_eq!(indices(A, &packets), [0, 1, 2, 3, 5, 6]);
    bed.deliver_all(B, packets.clone());
    assert_eq!(bed.sent_at_once(B).len(), 4);
    assert_eq!(bed.b().completions(), [(7, OK), (8, OK)]);
    packets
}

#[test]
fn repeated_sends_and_writes_are_acknowledged_and_not_carried_out() {
    let mut bed = Bed::new();
    let packets = carried_out(&mut bed);
    bed.b().look();
    let before = bed.b().log.len();
    for (place, packet) in
        packets.iter().enumerate().filter(|(place, _)| [0, 1, 2, 5].contains(place))
    {
        bed.deliver(B, packet.clone());
        let answers = bed.sent(B);
        assert_eq!(syndromes(A, &answers), [(6, ACK)], "{place}: at once, up to the latest");
    }
    bed.b().look();
    assert_eq!(bed.b().log.len(), before, "nothing was done");
}

#[test]
fn a_repeated_read_reads_again() {
    let mut bed = Bed::new();
    let packets = carried_out(&mut bed);
    // Meanwhile memory has changed.
    let (addr, key) = (bed.b().addr, bed.b().key);
    let through = bed.b().qp.config().through();
    bed.b().host.write_remote(through, key, addr, &[0x99; 16]).unwrap();
    bed.deliver(B, packets[3].clone());
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [3, 4]);
    assert_eq!(answers[0].payload[..16], [0x99; 16]);
    let aeth = Some(Aeth { syndrome: ACK, msn: 5 });
    let response = |position, aeth| Operation::ReadResponse { position, aeth };
    assert_eq!(answers[0].operation, response(Position::First, aeth));
    assert_eq!(answers[1].operation, response(Position::Last, aeth));
}

#[test]
fn a_repeated_read_that_is_not_allowed_any_more_is_not_answered() {
    let mut bed = Bed::new();
    let packets = carried_out(&mut bed);
    let Operation::ReadRequest(reth) = packets[3].operation else { panic!("{packets:?}") };
    for reth in [
        Reth { rkey: reth.rkey ^ 1, ..reth },
        Reth { addr: reth.addr - 1, ..reth },
        // It would end beyond what was asked for.
        Reth { len: 5 * MTU, ..reth },
        Reth { len: u32::MAX, ..reth },
    ] {
        let packet = Packet { operation: Operation::ReadRequest(reth), ..packets[3].clone() };
        bed.deliver(B, packet);
        assert_eq!(bed.sent(B), [], "{reth:?}");
    }
    bed.modify(B, State::ReadyToSend, |attributes| attributes.access.read = false);
    bed.deliver(B, packets[3].clone());
    assert_eq!(bed.sent(B), []);
    assert_eq!(bed.state(B), State::ReadyToSend);
    assert_eq!(bed.b().events(), []);
}

#[test]
fn a_repeated_atomic_is_answered_from_memory_and_not_carried_out() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let mut packets = Vec::new();
    let mut first = Vec::new();
    for wr_id in 0..6 {
        let to = bed.a().sge(wr_id * 8, 8);
        bed.post(A, request(wr_id, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[to]));
        let sent = bed.sent(A);
        bed.deliver_all(B, sent.clone());
        packets.extend(sent);
        let answers = bed.sent(B);
        bed.deliver_all(A, answers.clone());
        first.extend(answers);
    }
    assert_eq!(bed.b().atomics(), 6);
    for (index, packet) in packets.iter().enumerate() {
        bed.deliver(B, packet.clone());
        let again = bed.sent(B);
        if index < 2 {
            assert_eq!(again, [], "{index}: four may be outstanding, and no older one is");
            continue;
        }
        let result = |packet: &Packet| match packet.operation {
            Operation::AtomicAcknowledge { original, .. } => (packet.bth.psn, original),
            other => panic!("{other:?}"),
        };
        assert_eq!(again.len(), 1);
        assert_eq!(result(&again[0]), result(&first[index]));
    }
    assert_eq!(bed.b().atomics(), 6);
}

#[test]
fn repeated_requests_are_answered_in_their_order() {
    let mut bed = Bed::new();
    let packets = carried_out(&mut bed);
    // The later one first, and a send between them.
    for place in [4, 5, 3] {
        bed.deliver(B, packets[place].clone());
    }
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [3, 4, 5, 6]);
    assert_eq!(syndromes(A, &answers[3..]), [(6, ACK)]);
}

#[test]
fn a_read_that_is_repeated_while_it_is_answered_begins_again() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 32 * MTU);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    let requests = bed.sent(A);
    bed.deliver_all(B, requests.clone());
    for index in 0..5 {
        assert_eq!(bed.next(B).map(|packet| packet.bth.psn), Some(psn(A, index)));
    }
    bed.deliver(B, requests[0].clone());
    // A part of it, which does not end where it ends, is none that was made.
    let Operation::ReadRequest(reth) = requests[0].operation else { panic!("{requests:?}") };
    let shorter = Operation::ReadRequest(Reth { len: 3 * MTU, ..reth });
    let forged = bed.forge(B, psn(A, 1), shorter, Vec::new());
    bed.deliver(B, forged);
    let longer = Operation::ReadRequest(Reth { len: 20 * MTU, ..reth });
    let forged = bed.forge(B, psn(A, 0), longer, Vec::new());
    bed.deliver(B, forged);
    for index in 0..20 {
        assert_eq!(bed.next(B).map(|packet| packet.bth.psn), Some(psn(A, index)));
    }
    // Nor one that goes on into the next.
    let forged = bed.forge(B, psn(A, 0), longer, Vec::new());
    bed.deliver(B, forged);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), (20..32).collect::<Vec<_>>(), "and the second one follows");
}

#[test]
fn a_repeated_read_whose_memory_goes_away_is_dropped() {
    let mut bed = Bed::new();
    let packets = carried_out(&mut bed);
    bed.deliver(B, packets[3].clone());
    bed.deliver(B, packets[4].clone());
    let key = bed.b().key;
    bed.b().host.deregister(key);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [5]);
    assert_eq!(bed.state(B), State::ReadyToSend);
}

#[test]
fn a_read_whose_memory_goes_away_fails_where_it_is() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 4 * MTU);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    bed.post(A, request(2, SendOperation::Read { addr, rkey }, &[to]));
    let requests = bed.sent(A);
    bed.deliver_all(B, requests);
    let mut answers = vec![bed.next(B).unwrap(), bed.next(B).unwrap()];
    let key = bed.b().key;
    bed.b().host.deregister(key);
    answers.extend(bed.sent(B));
    assert_eq!(indices(A, &answers), [0, 1, 2]);
    let refused = Syndrome::Nak(NakCode::RemoteAccessError);
    assert_eq!(syndromes(A, &answers[2..]), [(2, refused)]);
    assert_eq!(bed.state(B), State::Error);
    assert_eq!(bed.b().events(), [QpEvent::AccessError]);
    bed.deliver_all(A, answers);
    assert_eq!(bed.a().completions(), [(1, Status::RemoteAccess), (2, FLUSHED)]);
}

#[test]
fn packets_from_before_the_connection_are_not_answered() {
    let mut bed = Bed::new();
    let early = Psn::new(psn(A, 0).get() - 1);
    let operations = [
        Operation::Send { position: Position::Only, imm: None, invalidate: None },
        Operation::ReadRequest(Reth { addr: 0, rkey: 0, len: 0 }),
    ];
    for operation in operations {
        let packet = bed.forge(B, early, operation, Vec::new());
        bed.deliver(B, packet);
        assert_eq!(bed.sent_at_once(B), []);
        assert_eq!(bed.b().qp.next_timeout(), None);
    }
}

#[test]
fn many_repetitions_take_no_room() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let mut packets = Vec::new();
    for wr_id in 0..60 {
        let to = bed.a().sge(0, 8);
        bed.post(A, request(wr_id, SendOperation::Read { addr, rkey }, &[to]));
        let sent = bed.sent(A);
        bed.deliver_all(B, sent.clone());
        packets.extend(sent);
        let answers = bed.sent(B);
        bed.deliver_all(A, answers);
    }
    bed.deliver_all(B, packets.clone());
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), (0..32).collect::<Vec<_>>(), "each once, and not all");
    // New ones are not counted among them.
    let to = bed.a().sge(0, 8);
    bed.post(A, request(60, SendOperation::Read { addr, rkey }, &[to]));
    bed.settle();
    assert_eq!(bed.state(B), State::ReadyToSend);
    assert_eq!(bed.a().completions().len(), 61);
}

#[test]
fn what_is_not_from_the_peer_is_dropped() {
    let mut bed = Bed::new();
    bed.b().recv(1, &[]);
    let operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };
    let good = bed.forge(B, psn(A, 0), operation, Vec::new());
    let now = bed.now;
    let mut try_with = |arrived: Path, packet: Packet| {
        let Side { qp, host, .. } = bed.b();
        qp.handle_packet(now, &arrived, packet, host);
        (bed.b().completions().len(), bed.sent_at_once(B).len())
    };
    assert_eq!(try_with(path(3, 2), good.clone()), (0, 0), "another source");
    assert_eq!(try_with(path(1, 3), good.clone()), (0, 0), "another destination");
    let mut other = good.clone();
    other.bth.pkey = 0xfffe;
    assert_eq!(try_with(path(1, 2), other), (0, 0), "another partition");
    let mut other = good.clone();
    other.bth.service = Service::Uc;
    assert_eq!(try_with(path(1, 2), other), (0, 0), "another service");
    let mut limited = good;
    limited.bth.pkey = 0x7fff;
    assert_eq!(try_with(path(1, 2), limited), (1, 1), "a limited member of it");
}

#[test]
fn one_of_two_must_be_a_full_member_of_the_partition() {
    for (ours, theirs, takes) in
        [(0x7fff, 0xffff, true), (0xffff, 0x7fff, true), (0x7fff, 0x7fff, false)]
    {
        let mut bed = Bed::with(|_, attributes| attributes.pkey = ours);
        bed.b().recv(1, &[]);
        let operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };
        let mut packet = bed.forge(B, psn(A, 0), operation, Vec::new());
        packet.bth.pkey = theirs;
        bed.deliver(B, packet);
        assert_eq!(bed.b().completions().len(), usize::from(takes), "{theirs:#x} to {ours:#x}");
    }
}
