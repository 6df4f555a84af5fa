//! What is refused, and how both sides learn of it.

use super::*;
use crate::wire::AtomicEth;

/// Gives B a packet of A, and checks that it is refused so, and that B has failed.
#[track_caller]
fn refused(bed: &mut Bed, packet: Packet, code: NakCode, events: &[QpEvent]) {
    let index = packet.bth.psn.since(psn(A, 0));
    bed.deliver(B, packet.clone());
    let answers = bed.sent(B);
    assert_eq!(syndromes(A, &answers), [(index, Syndrome::Nak(code))], "{packet:?}");
    assert_eq!(bed.state(B), State::Error);
    assert_eq!(bed.b().events(), events, "{packet:?}");
    // It says it once.
    bed.deliver(B, packet);
    assert_eq!(bed.sent_at_once(B), []);
    assert_eq!(bed.b().qp.next_timeout(), None);
}

fn send_part(position: Position) -> Operation {
    Operation::Send { position, imm: None, invalidate: None }
}

fn write_part(position: Position, reth: Option<Reth>) -> Operation {
    Operation::Write { position, reth, imm: None }
}

#[test]
fn packets_out_of_their_message_are_not_valid() {
    use Position::*;
    fn whole(bed: &Bed) -> Reth {
        Reth { addr: bed.sides[B].addr, rkey: bed.sides[B].key, len: 3 * MTU }
    }
    let full = MTU as usize;
    type Case = fn(&Bed) -> (Option<Operation>, Operation);
    let cases: [Case; 12] = [
        |_| (None, send_part(Middle)),
        |_| (None, send_part(Last)),
        |_| (None, write_part(Middle, None)),
        |_| (None, write_part(Last, None)),
        |_| (Some(send_part(First)), send_part(First)),
        |_| (Some(send_part(First)), send_part(Only)),
        |_| (Some(send_part(First)), write_part(Middle, None)),
        |bed| (Some(send_part(First)), write_part(First, Some(whole(bed)))),
        |bed| (Some(send_part(First)), Operation::ReadRequest(whole(bed))),
        |bed| (Some(write_part(First, Some(whole(bed)))), send_part(Last)),
        |bed| (Some(write_part(First, Some(whole(bed)))), write_part(First, Some(whole(bed)))),
        |bed| {
            let Reth { addr, rkey, .. } = whole(bed);
            let eth = AtomicEth { addr, rkey, swap_or_add: 1, compare: 0 };
            (Some(write_part(First, Some(whole(bed)))), Operation::FetchAdd(eth))
        },
    ];
    for case in cases {
        let mut bed = Bed::new();
        let to = bed.b().sge(0, 10 * MTU);
        bed.b().recv(1, &[to]);
        let (before, operation) = case(&bed);
        let mut next = 0;
        if let Some(before) = before {
            let packet = bed.forge(B, psn(A, 0), before, vec![1; full]);
            bed.deliver(B, packet);
            next = 1;
        }
        let len = if matches!(operation, Operation::ReadRequest(_)) { 0 } else { full };
        let packet = bed.forge(B, psn(A, next), operation, vec![2; len]);
        refused(&mut bed, packet, NakCode::InvalidRequest, &[QpEvent::RequestError]);
        assert_eq!(bed.b().completions(), [(1, FLUSHED)], "{operation:?}");
    }
}

#[test]
fn packets_of_wrong_sizes_are_not_valid() {
    use Position::*;
    let mtu = MTU as usize;
    for (position, len) in [
        (First, mtu - 1),
        (First, mtu + 1),
        (Middle, 0),
        (Middle, mtu - 1),
        (Last, 0),
        (Last, mtu + 1),
        (Only, mtu + 1),
    ] {
        for is_send in [true, false] {
            let mut bed = Bed::new();
            let to = bed.b().sge(0, 10 * MTU);
            bed.b().recv(1, &[to]);
            let reth = Reth { addr: bed.b().addr, rkey: bed.b().key, len: 3 * MTU };
            let operation = |position: Position| match is_send {
                true => send_part(position),
                false => write_part(position, position.begins().then_some(reth)),
            };
            let mut next = 0;
            if !position.begins() {
                let packet = bed.forge(B, psn(A, 0), operation(First), vec![1; mtu]);
                bed.deliver(B, packet);
                next = 1;
            }
            let packet = bed.forge(B, psn(A, next), operation(position), vec![1; len]);
            refused(&mut bed, packet, NakCode::InvalidRequest, &[QpEvent::RequestError]);
        }
    }
}

#[test]
fn a_write_that_is_not_as_long_as_it_says_is_not_valid() {
    use Position::*;
    let mtu = MTU as usize;
    let cases: [&[(Position, usize, u32)]; 7] = [
        &[(Only, 10, 9)],
        &[(Only, 10, 11)],
        &[(Only, 0, 1)],
        &[(First, mtu, MTU)],
        &[(First, mtu, 3 * MTU), (Last, mtu, 0)],
        &[(First, mtu, 2 * MTU), (Middle, mtu, 0)],
        &[(First, mtu, (1 << 31) + 1)],
    ];
    for case in cases {
        let mut bed = Bed::new();
        for (index, &(position, len, total)) in case.iter().enumerate() {
            let reth = Reth { addr: bed.b().addr, rkey: bed.b().key, len: total };
            let operation = write_part(position, position.begins().then_some(reth));
            let packet = bed.forge(B, psn(A, index as u32), operation, vec![1; len]);
            if index + 1 == case.len() {
                refused(&mut bed, packet, NakCode::InvalidRequest, &[QpEvent::RequestError]);
            } else {
                bed.deliver(B, packet);
            }
        }
    }
}

#[test]
fn keys_are_checked() {
    let bed = Bed::new();
    let (addr, key) = (bed.sides[B].addr, bed.sides[B].key);
    let end = addr + MEMORY as u64;
    for (addr, rkey) in [(addr, key ^ 1), (addr - 8, key), (end, key), (u64::MAX - 7, key)] {
        let reth = Reth { addr, rkey, len: 8 };
        let eth = AtomicEth { addr, rkey, swap_or_add: 1, compare: 0 };
        for (operation, len) in [
            (write_part(Position::Only, Some(reth)), 8),
            (Operation::ReadRequest(reth), 0),
            (Operation::FetchAdd(eth), 0),
            (Operation::CompareSwap(eth), 0),
        ] {
            let mut bed = Bed::new();
            let before = bed.b().bytes(0, MEMORY);
            let packet = bed.forge(B, psn(A, 0), operation, vec![1; len]);
            refused(&mut bed, packet, NakCode::RemoteAccessError, &[QpEvent::AccessError]);
            assert!(bed.b().bytes(0, MEMORY) == before);
        }
    }
    // One byte too many, on either side.
    for addr in [addr - 1, end - 7] {
        let reth = Reth { addr, rkey: key, len: 8 };
        let mut bed = Bed::new();
        let packet = bed.forge(B, psn(A, 0), Operation::ReadRequest(reth), Vec::new());
        refused(&mut bed, packet, NakCode::RemoteAccessError, &[QpEvent::AccessError]);
    }
}

#[test]
fn a_write_that_begins_within_a_region_and_ends_beyond_writes_nothing() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr + MEMORY as u64 - u64::from(MTU), bed.b().key);
    let before = bed.b().bytes(MEMORY as u64 - u64::from(MTU), MTU as usize);
    let reth = Reth { addr, rkey, len: MTU + 1 };
    let operation = write_part(Position::First, Some(reth));
    let packet = bed.forge(B, psn(A, 0), operation, vec![0x55; MTU as usize]);
    refused(&mut bed, packet, NakCode::RemoteAccessError, &[QpEvent::AccessError]);
    assert_eq!(bed.b().bytes(MEMORY as u64 - u64::from(MTU), MTU as usize), before);
}

#[test]
fn a_queue_pair_that_does_not_allow_an_operation_takes_none() {
    for forbidden in 0..3 {
        let mut bed = Bed::with(|_, attributes| match forbidden {
            0 => attributes.access.write = false,
            1 => attributes.access.read = false,
            _ => attributes.access.atomic = false,
        });
        let (addr, rkey) = (bed.b().addr, bed.b().key);
        let operations = [
            SendOperation::Write { addr, rkey, imm: None },
            SendOperation::Read { addr, rkey },
            SendOperation::FetchAdd { addr, rkey, add: 1 },
        ];
        let sge = bed.a().sge(0, 8);
        for (index, operation) in operations.into_iter().enumerate() {
            if index != forbidden {
                bed.post(A, request(1, operation, &[sge]));
                bed.settle();
                assert_eq!(bed.a().completions(), [(1, OK)], "{operation:?}");
            }
        }
        let before = bed.b().bytes(0, 8);
        bed.post(A, request(2, operations[forbidden], &[sge]));
        bed.settle();
        assert_eq!(bed.a().completions(), [(2, Status::RemoteInvalidRequest)]);
        assert_eq!([bed.state(A), bed.state(B)], [State::Error; 2]);
        assert_eq!(bed.b().events(), [QpEvent::RequestError]);
        assert_eq!(bed.b().bytes(0, 8), before);
    }
}

#[test]
fn atomics_at_odd_addresses_are_not_valid() {
    for offset in 1..8 {
        let mut bed = Bed::new();
        let (addr, rkey) = (bed.b().addr + offset, bed.b().key);
        let sge = bed.a().sge(0, 8);
        bed.post(A, request(1, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[sge]));
        bed.settle();
        assert_eq!(bed.a().completions(), [(1, Status::RemoteInvalidRequest)]);
        assert_eq!(bed.b().events(), [QpEvent::RequestError]);
    }
}

#[test]
fn more_reads_than_were_agreed_on_are_not_valid() {
    let mut bed = Bed::with(|me, attributes| match me {
        A => attributes.max_rd_atomic = 5,
        _ => attributes.max_dest_rd_atomic = 4,
    });
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    for wr_id in 0..5 {
        let sge = bed.a().sge(wr_id * 8, 8);
        bed.post(A, request(wr_id, SendOperation::Read { addr, rkey }, &[sge]));
    }
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [0, 1, 2, 3, 4], "those before it are answered");
    let invalid = Syndrome::Nak(NakCode::InvalidRequest);
    assert_eq!(syndromes(A, &answers[4..]), [(4, invalid)]);
    bed.deliver_all(A, answers);
    let expected = [(0, OK), (1, OK), (2, OK), (3, OK), (4, Status::RemoteInvalidRequest)];
    assert_eq!(bed.a().completions(), expected);
}

#[test]
fn a_message_that_is_longer_than_its_receive_fails_on_both_sides() {
    for (len, room) in [(1, 0), (101, 100), (5 * MTU, 5 * MTU - 1), (5 * MTU, 100)] {
        let mut bed = Bed::new();
        let (from, to) = (bed.a().sge(0, len), bed.b().sge(30_000, room));
        let beyond = bed.b().bytes(30_000 + u64::from(room), 5000);
        bed.b().recv(1, &[to]);
        bed.b().recv(2, &[]);
        bed.post(A, send(3, &[from]));
        bed.post(A, send(4, &[]));
        bed.settle();
        let expected = [(3, Status::RemoteInvalidRequest), (4, FLUSHED)];
        assert_eq!(bed.a().completions(), expected, "{len} into {room}");
        assert_eq!(bed.b().completions(), [(1, Status::LocalLength), (2, FLUSHED)]);
        assert_eq!(bed.b().bytes(30_000 + u64::from(room), 5000), beyond);
        assert_eq!([bed.state(A), bed.state(B)], [State::Error; 2]);
    }
}

#[test]
fn a_receive_whose_memory_cannot_be_written_fails_on_both_sides() {
    let mut bed = Bed::new();
    let (from, mut to) = (bed.a().sge(0, 2 * MTU), bed.b().sge(0, 2 * MTU));
    to.lkey ^= 1;
    bed.b().recv(1, &[to]);
    bed.post(A, send(2, &[from]));
    bed.settle();
    assert_eq!(bed.a().completions(), [(2, Status::RemoteOperation)]);
    assert_eq!(bed.b().completions(), [(1, Status::LocalProtection)]);
    assert_eq!(bed.b().events(), []);
}

#[test]
fn what_a_peer_refuses_is_told_of_the_request_that_it_refuses() {
    for (code, status) in [
        (NakCode::InvalidRequest, Status::RemoteInvalidRequest),
        (NakCode::RemoteAccessError, Status::RemoteAccess),
        (NakCode::RemoteOperationalError, Status::RemoteOperation),
    ] {
        let mut bed = Bed::new();
        let from = bed.a().sge(0, 2 * MTU);
        bed.post(A, unsignaled(send(1, &[from])));
        bed.post(A, unsignaled(send(2, &[from])));
        bed.post(A, send(3, &[from]));
        bed.a().recv(4, &[]);
        bed.sent(A);
        let nak = bed.answer(3, Syndrome::Nak(code));
        bed.deliver(A, nak);
        // The first one is done, and said not to be told of.
        assert_eq!(bed.a().completions(), [(2, status), (3, FLUSHED), (4, FLUSHED)]);
        assert_eq!(bed.state(A), State::Error);
        assert_eq!(bed.a().events(), []);
    }
}

#[test]
fn requests_of_memory_that_cannot_be_read_or_written_fail_in_their_turn() {
    let (addr, rkey) = {
        let bed = Bed::new();
        (bed.sides[B].addr, bed.sides[B].key)
    };
    let operations = [
        SendOperation::Send { imm: None },
        SendOperation::Write { addr, rkey, imm: None },
        SendOperation::Read { addr, rkey },
        SendOperation::FetchAdd { addr, rkey, add: 1 },
    ];
    for operation in operations {
        for before in 0..3 {
            let mut bed = Bed::new();
            let sge = bed.a().sge(0, 8);
            for wr_id in 0..before {
                bed.b().recv(wr_id, &[]);
                bed.post(A, unsignaled(send(wr_id, &[])));
            }
            let wrong = Sge { lkey: sge.lkey ^ 1, ..sge };
            bed.post(A, request(8, operation, &[wrong]));
            bed.post(A, send(9, &[]));
            let packets = bed.sent(A);
            if before == 0 {
                assert_eq!(packets, []);
            } else {
                assert_eq!(bed.a().completions(), [], "those before it are not done");
                assert!(packets[packets.len() - 1].bth.ack_request, "and it wants to know");
                bed.deliver_all(B, packets);
                bed.settle();
            }
            assert_eq!(bed.a().completions(), [(8, Status::LocalProtection), (9, FLUSHED)]);
            assert_eq!(bed.b().completions().len(), before as usize, "nothing else has come");
        }
    }
}

#[test]
fn a_message_whose_later_part_cannot_be_read_fails() {
    let mut bed = Bed::new();
    let good = bed.a().sge(0, 2 * MTU);
    let sges = [good, Sge { lkey: good.lkey ^ 1, ..good }];
    let to = bed.b().sge(0, 4 * MTU);
    bed.b().recv(1, &[]);
    bed.b().recv(2, &[to]);
    bed.post(A, unsignaled(send(1, &[])));
    bed.post(A, send(2, &sges));
    bed.settle();
    assert_eq!(bed.a().completions(), [(2, Status::LocalProtection)]);
    assert_eq!(bed.b().completions(), [(1, OK)], "the peer waits for the rest");
    assert_eq!(bed.state(B), State::ReadyToSend);
}

#[test]
fn requests_that_cannot_be_made_fail() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let huge = Sge { len: u32::MAX, ..bed.a().sge(0, 0) };
    let (seven, nine) = (bed.a().sge(0, 7), bed.a().sge(0, 9));
    let read = SendOperation::Read { addr, rkey };
    let inline = SendRequest { payload: Payload::Inline(vec![0; 8]), ..request(1, read, &[]) };
    let datagram =
        SendOperation::Datagram { path: path(1, 2), remote_qpn: 0x11, qkey: 0, imm: None };
    for (request, status) in [
        (send(1, &[huge]), Status::LocalLength),
        (request(1, SendOperation::Write { addr, rkey, imm: None }, &[huge]), Status::LocalLength),
        (request(1, read, &[huge]), Status::LocalLength),
        (request(1, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[seven]), Status::LocalLength),
        (request(1, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[nine]), Status::LocalLength),
        (inline, Status::LocalQpOperation),
        (request(1, datagram, &[]), Status::LocalQpOperation),
    ] {
        bed = Bed::new();
        bed.post(A, request.clone());
        assert_eq!(bed.sent(A), []);
        assert_eq!(bed.a().completions(), [(1, status)], "{request:?}");
        assert_eq!(bed.state(A), State::Error);
    }
    bed = Bed::with(|_, attributes| attributes.max_rd_atomic = 0);
    bed.post(A, request(1, read, &[]));
    assert_eq!(bed.sent(A), []);
    assert_eq!(bed.a().completions(), [(1, Status::LocalQpOperation)]);
}

#[test]
fn answers_that_make_no_sense_fail_the_request() {
    let aeth = Aeth { syndrome: ACK, msn: 1 };
    let ack = Some(aeth);
    let part = |position, aeth| Operation::ReadResponse { position, aeth };
    let mtu = MTU as usize;
    let atomic = Operation::AtomicAcknowledge { aeth, original: 1 };
    let refusal = Some(Aeth { syndrome: SEQUENCE, msn: 1 });
    for (operation, len) in [
        (part(Position::First, ack), mtu - 1),
        (part(Position::First, ack), mtu + 1),
        (part(Position::First, ack), 0),
        (part(Position::Only, ack), mtu),
        (part(Position::Last, ack), mtu),
        (part(Position::First, refusal), mtu),
        (atomic, 0),
    ] {
        let mut bed = Bed::new();
        let (addr, rkey) = (bed.b().addr, bed.b().key);
        let to = bed.a().sge(0, 2 * MTU + 10);
        bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
        bed.sent(A);
        let packet = bed.forge(A, psn(A, 0), operation, vec![0; len]);
        bed.deliver(A, packet);
        assert_eq!(bed.a().completions(), [(1, Status::BadResponse)], "{operation:?} {len}");
    }
    // A read's answer to what is no read.
    for fetch in [true, false] {
        let mut bed = Bed::new();
        let (addr, rkey) = (bed.b().addr, bed.b().key);
        let to = bed.a().sge(0, 8);
        let operation = match fetch {
            true => SendOperation::FetchAdd { addr, rkey, add: 1 },
            false => SendOperation::Write { addr, rkey, imm: None },
        };
        bed.post(A, request(1, operation, &[to]));
        bed.sent(A);
        let packet = bed.forge(A, psn(A, 0), part(Position::Only, ack), vec![0; 8]);
        bed.deliver(A, packet);
        assert_eq!(bed.a().completions(), [(1, Status::BadResponse)]);
    }
}

#[test]
fn an_answer_that_cannot_be_written_any_more_fails_the_request() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 8);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    bed.post(A, request(2, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[to]));
    let packets = bed.sent(A);
    let key = bed.a().key;
    bed.a().host.deregister(key);
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    bed.deliver_all(A, answers);
    assert_eq!(bed.a().completions(), [(1, Status::LocalProtection), (2, FLUSHED)]);
}
