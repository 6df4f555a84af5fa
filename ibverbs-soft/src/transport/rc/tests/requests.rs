//! What goes right: every operation, its packets, and when they ask for acknowledgements.

use super::*;
use crate::wire::AtomicEth;

#[test]
fn a_send_arrives_and_completes_on_both_sides() {
    let mut bed = Bed::new();
    let (from, to) = (bed.a().sge(0, 100), bed.b().sge(1000, 120));
    bed.b().recv(7, &[to]);
    let mut request = request(1, SendOperation::Send { imm: Some(0xabcd) }, &[from]);
    request.solicited = true;
    bed.post(A, request);
    bed.settle();
    assert_eq!(bed.a().completions(), [(1, OK)]);
    let received = bed.b().full_completions();
    let expected = Completion {
        wr_id: 7,
        status: OK,
        kind: CompletionKind::Recv,
        qp_num: 0x11,
        len: 100,
        imm: Some(0xabcd),
        invalidated: None,
        src_qp: 0,
        source: None,
        vendor_error: 0,
        grh: false,
        solicited: true,
    };
    assert_eq!(received, [expected]);
    assert_eq!(bed.b().bytes(1000, 100), bed.a().bytes(0, 100));
    assert_eq!([bed.a().qp.next_timeout(), bed.b().qp.next_timeout()], [None; 2]);
}

#[test]
fn long_messages_are_cut_and_put_together_from_scattered_memory() {
    let mut bed = Bed::new();
    for (wr_id, len) in [0, 1, 255, 256, 257, 512, 5000, 20_000].into_iter().enumerate() {
        let parts = |side: &Side, at: u64| {
            let third = len / 3;
            [side.sge(at, third), side.sge(at + 20_001, 0), side.sge(at + 25_000, len - third)]
        };
        let (from, to) = (parts(bed.a(), 0), parts(bed.b(), 3));
        bed.b().recv(wr_id as u64, &to);
        bed.post(A, send(wr_id as u64, &from));
        bed.settle();
        assert_eq!(bed.a().completions(), [(wr_id as u64, OK)], "{len}");
        let received = bed.b().full_completions();
        assert_eq!((received[0].status, received[0].len), (OK, len), "{len}");
        let third = len / 3;
        for (at, len) in [(0, third), (25_000, len - third)] {
            let found = bed.b().bytes(at + 3, len as usize);
            assert!(found == bed.a().bytes(at, len as usize), "{len}");
        }
    }
}

#[test]
fn inline_bytes_are_those_of_the_time_of_the_post() {
    let mut bed = Bed::new();
    let to = bed.b().sge(0, 300);
    bed.b().recv(1, &[to]);
    let mut request = send(2, &[]);
    request.payload = Payload::Inline((0..=255).chain(0..44).collect());
    bed.post(A, request);
    bed.settle();
    assert_eq!(bed.b().completions(), [(1, OK)]);
    assert_eq!(bed.b().bytes(0, 300), (0..=255).chain(0..44).collect::<Vec<u8>>());
}

#[test]
fn a_write_takes_a_receive_only_with_immediate_data() {
    let mut bed = Bed::new();
    for imm in [None, Some(5)] {
        let from = bed.a().sge(0, 1000);
        let (addr, rkey) = (bed.b().addr + 2000, bed.b().key);
        bed.b().recv(7, &[]);
        bed.post(A, request(1, SendOperation::Write { addr, rkey, imm }, &[from]));
        bed.settle();
        assert_eq!(bed.a().full_completions()[0].kind, CompletionKind::Write);
        assert_eq!(bed.b().bytes(2000, 1000), bed.a().bytes(0, 1000));
        let received = bed.b().full_completions();
        let found: Vec<_> = received.iter().map(|done| (done.kind, done.len, done.imm)).collect();
        match imm {
            None => assert_eq!(found, []),
            Some(_) => assert_eq!(found, [(CompletionKind::RecvWriteWithImm, 1000, imm)]),
        }
    }
}

#[test]
fn a_long_read_is_several_that_have_a_window() {
    let mut bed = Bed::new();
    let len = 40 * MTU + 3;
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let sges = [bed.a().sge(20_000, 5), bed.a().sge(30_000, len - 5)];
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &sges));
    let requests = bed.sent(A);
    assert_eq!(indices(A, &requests), [0, 16], "no more than a window of responses");
    let lens: Vec<_> = requests
        .iter()
        .map(|packet| match packet.operation {
            Operation::ReadRequest(reth) => (reth.addr - addr, reth.len),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lens, [(0, 16 * MTU), (16 * u64::from(MTU), 16 * MTU)]);
    bed.deliver_all(B, requests);
    let responses = bed.sent(B);
    assert_eq!(indices(A, &responses), (0..32).collect::<Vec<_>>());
    bed.deliver_all(A, responses);
    let rest = bed.sent(A);
    assert_eq!(indices(A, &rest), [32]);
    bed.deliver_all(B, rest);
    bed.settle();
    let done = bed.a().full_completions();
    assert_eq!((done[0].status, done[0].kind, done[0].len), (OK, CompletionKind::Read, len));
    assert_eq!(bed.a().bytes(20_000, 5), bed.b().bytes(0, 5));
    assert_eq!(bed.a().bytes(30_000, len as usize - 5), bed.b().bytes(5, len as usize - 5));
}

#[test]
fn atomics_change_memory_and_return_what_was_there() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr + 8, bed.b().key);
    let value = |bed: &mut Bed| u64::from_ne_bytes(bed.b().bytes(8, 8).try_into().unwrap());
    let original = value(&mut bed);
    let result = bed.a().sge(64, 8);
    let swap = |compare, swap| SendOperation::CompareSwap { addr, rkey, compare, swap };
    let cases = [
        (swap(original ^ 1, 1), CompletionKind::CompareSwap, original, original),
        (swap(original, u64::MAX), CompletionKind::CompareSwap, original, u64::MAX),
        (SendOperation::FetchAdd { addr, rkey, add: 3 }, CompletionKind::FetchAdd, u64::MAX, 2),
    ];
    for (operation, kind, before, after) in cases {
        bed.post(A, request(1, operation, &[result]));
        bed.settle();
        let done = bed.a().full_completions();
        assert_eq!((done[0].status, done[0].kind, done[0].len), (OK, kind, 8));
        assert_eq!(bed.a().bytes(64, 8), before.to_ne_bytes());
        assert_eq!(value(&mut bed), after);
    }
}

#[test]
fn requests_of_no_bytes_need_no_keys() {
    let mut bed = Bed::new();
    let (addr, rkey) = (0xdead_beef, 1);
    bed.b().recv(9, &[]);
    bed.post(A, request(1, SendOperation::Write { addr, rkey, imm: None }, &[]));
    bed.post(A, request(2, SendOperation::Read { addr, rkey }, &[]));
    bed.post(A, send(3, &[Sge { addr, len: 0, lkey: 1 }]));
    bed.settle();
    assert_eq!(bed.a().completions(), [(1, OK), (2, OK), (3, OK)]);
    assert_eq!(bed.b().completions(), [(9, OK)]);
}

#[test]
fn a_window_of_packets_is_under_way_and_asks_for_acknowledgements() {
    let mut bed = Bed::new();
    let (from, to) = (bed.a().sge(0, 100 * MTU), bed.b().sge(0, 100 * MTU));
    bed.b().recv(1, &[to]);
    bed.post(A, send(2, &[from]));
    let packets = bed.sent(A);
    assert_eq!(packets.len(), 32);
    let asking: Vec<_> = packets.iter().map(|packet| packet.bth.ack_request).collect();
    let expected: Vec<_> = (1..=32).map(|count| count % 8 == 0).collect();
    assert_eq!(asking, expected);
    bed.deliver_all(B, packets[..8].to_vec());
    let acks = bed.sent(B);
    assert_eq!(syndromes(A, &acks), [(7, ACK)], "it does not wait");
    bed.deliver_all(A, acks);
    assert_eq!(indices(A, &bed.sent(A)), (32..40).collect::<Vec<_>>());
}

#[test]
fn an_acknowledgement_waits_for_more_until_it_is_due() {
    let mut bed = Bed::new();
    let sge = bed.a().sge(0, 1);
    for wr_id in 0..3 {
        let to = bed.b().sge(0, 1);
        bed.b().recv(wr_id, &[to]);
        bed.post(A, send(wr_id, &[sge]));
        let packets = bed.sent(A);
        assert!(packets[0].bth.ack_request);
        if wr_id == 0 {
            // There is none yet.
            bed.b().qp.hasten_acks();
        }
        bed.deliver_all(B, packets);
        assert_eq!(bed.sent(B), []);
    }
    let due = bed.b().qp.next_timeout().unwrap();
    assert_eq!(due, bed.now + Duration::from_micros(500));
    bed.pass(B, Duration::from_micros(499));
    assert_eq!(bed.sent(B), []);
    bed.pass(B, Duration::from_micros(1));
    let acks = bed.sent(B);
    assert_eq!(syndromes(A, &acks), [(2, ACK)]);
    assert_eq!(bed.b().qp.next_timeout(), None);
    bed.deliver_all(A, acks);
    assert_eq!(bed.a().completions(), [(0, OK), (1, OK), (2, OK)]);
    assert_eq!(bed.a().qp.next_timeout(), None);
}

#[test]
fn requests_go_before_acknowledgements() {
    let mut bed = Bed::new();
    let to = bed.b().sge(0, 1);
    bed.b().recv(1, &[to]);
    let (from_a, from_b) = (bed.a().sge(0, 1), bed.b().sge(0, 1));
    bed.post(A, send(1, &[from_a]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    bed.post(B, send(2, &[from_b]));
    let sent = bed.sent_at_once(B);
    assert!(matches!(sent[0].operation, Operation::Send { .. }));
    assert_eq!(syndromes(A, &sent[1..]), [(0, ACK)]);
}

#[test]
fn unsignaled_requests_complete_with_those_after_them() {
    let mut bed = Bed::new();
    for wr_id in 0..5 {
        bed.b().recv(wr_id, &[]);
        bed.post(A, unsignaled(send(wr_id, &[])));
    }
    let packets = bed.sent(A);
    let asking: Vec<_> = packets.iter().map(|packet| packet.bth.ack_request).collect();
    assert_eq!(asking, [false, false, false, false, true], "the last one must");
    bed.deliver_all(B, packets);
    bed.settle();
    assert_eq!(bed.a().completions(), []);
    assert_eq!(bed.a().qp.send_room(), 128, "but they are done");
}

#[test]
fn reads_under_way_are_limited_by_what_the_peer_takes() {
    let mut bed = Bed::with(|_, attributes| {
        attributes.max_rd_atomic = 2;
        attributes.max_dest_rd_atomic = 2;
    });
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    for wr_id in 0..4 {
        let to = bed.a().sge(wr_id * 8, 8);
        bed.post(A, request(wr_id, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[to]));
    }
    let packets = bed.sent(A);
    assert_eq!(indices(A, &packets), [0, 1]);
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    assert_eq!(answers.len(), 2);
    bed.deliver(A, answers[0].clone());
    assert_eq!(indices(A, &bed.sent(A)), [2]);
    bed.deliver(A, answers[1].clone());
    assert_eq!(indices(A, &bed.sent(A)), [3]);
}

#[test]
fn a_fenced_request_waits_for_the_reads_before_it() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let sge = bed.a().sge(0, 8);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[sge]));
    bed.post(A, request(2, SendOperation::Write { addr, rkey, imm: None }, &[sge]));
    let mut fenced = request(3, SendOperation::Write { addr: addr + 64, rkey, imm: None }, &[sge]);
    fenced.fenced = true;
    bed.post(A, fenced);
    let packets = bed.sent(A);
    assert_eq!(indices(A, &packets), [0, 1], "the unfenced one does not wait");
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    bed.deliver_all(A, answers);
    assert_eq!(indices(A, &bed.sent(A)), [2]);
}

#[test]
fn answers_and_requests_take_turns() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 8 * MTU);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    let from = bed.b().sge(0, 8 * MTU);
    bed.post(B, send(2, &[from]));
    let requests = bed.sent(A);
    bed.deliver_all(B, requests);
    let sent = bed.sent(B);
    let answers: Vec<_> = sent.iter().map(|packet| packet.operation.is_response()).collect();
    let expected: Vec<_> = (0..16).map(|i| i % 2 == 1).collect();
    assert_eq!(answers, expected);
}

#[test]
fn an_acknowledgement_does_not_overtake_the_answer_to_a_read() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let sge = bed.a().sge(0, 2 * MTU);
    bed.b().recv(9, &[]);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[sge]));
    bed.post(A, send(2, &[]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let sent = bed.sent_at_once(B);
    assert_eq!(indices(A, &sent), [0, 1, 2]);
    assert_eq!(syndromes(A, &sent[2..]), [(2, ACK)]);
    // The other way round, the answer acknowledges, and nothing else does.
    bed.deliver_all(A, sent);
    bed.b().recv(9, &[]);
    bed.post(A, send(3, &[]));
    bed.post(A, request(4, SendOperation::Read { addr, rkey }, &[sge]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let sent = bed.sent_at_once(B);
    assert_eq!(indices(A, &sent), [4, 5]);
    bed.deliver_all(A, sent);
    assert_eq!(bed.a().completions(), [(1, OK), (2, OK), (3, OK), (4, OK)]);
}

#[test]
fn messages_are_counted() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let sge = bed.a().sge(0, 300);
    bed.b().recv(1, &[]);
    bed.b().recv(2, &[]);
    bed.post(A, unsignaled(request(1, SendOperation::Write { addr, rkey, imm: None }, &[sge])));
    bed.post(A, send(2, &[]));
    bed.post(A, request(3, SendOperation::Read { addr, rkey }, &[sge]));
    bed.post(A, send(4, &[]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let msns: Vec<_> = bed
        .sent_at_once(B)
        .iter()
        .map(|packet| match packet.operation {
            Operation::ReadResponse { aeth, .. } => aeth.unwrap().msn,
            Operation::Acknowledge(aeth) => aeth.msn,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(msns, [3, 3, 4]);
}

#[test]
fn atomic_headers_say_what_the_specification_says() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let sge = bed.a().sge(0, 8);
    let operation = SendOperation::CompareSwap { addr, rkey, compare: 5, swap: 6 };
    bed.post(A, request(1, operation, &[sge]));
    let sent = bed.sent(A);
    let expected = AtomicEth { addr, rkey, swap_or_add: 6, compare: 5 };
    assert_eq!(sent[0].operation, Operation::CompareSwap(expected));
}
