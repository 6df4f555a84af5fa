//! What is lost is sent again, as often as it may be.

use super::*;

fn long_send(bed: &mut Bed, packets: u32) -> Vec<Packet> {
    let (from, to) = (bed.a().sge(0, packets * MTU), bed.b().sge(0, packets * MTU));
    bed.b().recv(7, &[to]);
    bed.post(A, send(1, &[from]));
    bed.sent(A)
}

#[test]
fn what_is_not_acknowledged_in_time_is_sent_again() {
    let mut bed = Bed::new();
    let packets = long_send(&mut bed, 5);
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now + TIMEOUT));
    bed.pass(A, TIMEOUT - Duration::from_nanos(1));
    assert_eq!(bed.sent(A), []);
    bed.pass(A, Duration::from_nanos(1));
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [0, 1, 2, 3, 4]);
    assert!(again.iter().zip(&packets).all(|(again, first)| again.payload == first.payload));
    bed.deliver_all(B, again);
    bed.settle();
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(bed.b().completions(), [(7, OK)]);
}

#[test]
fn retries_are_counted_and_run_out() {
    let mut bed = Bed::new();
    bed.post(A, send(1, &[]));
    bed.post(A, send(2, &[]));
    bed.a().recv(3, &[]);
    assert_eq!(bed.sent(A).len(), 2);
    for _ in 0..3 {
        bed.pass(A, TIMEOUT);
        assert_eq!(indices(A, &bed.sent(A)), [0, 1]);
        assert_eq!(bed.a().completions(), []);
    }
    bed.pass(A, TIMEOUT);
    let expected = [(1, Status::RetryExceeded), (2, FLUSHED), (3, FLUSHED)];
    assert_eq!(bed.a().completions(), expected);
    assert_eq!(bed.state(A), State::Error);
    assert_eq!(bed.a().qp.next_timeout(), None);
    assert_eq!(bed.sent(A), []);
    assert_eq!(bed.a().events(), []);
}

#[test]
fn progress_allows_all_retries_again() {
    let mut bed = Bed::new();
    long_send(&mut bed, 9);
    for index in 0..8 {
        for _ in 0..3 {
            bed.pass(A, TIMEOUT);
            assert_eq!(indices(A, &bed.sent(A)), (index..9).collect::<Vec<_>>());
        }
        let ack = bed.answer(index as u32, ACK);
        bed.deliver(A, ack);
    }
    assert_eq!(bed.state(A), State::ReadyToSend);
    // The timer begins with the progress.
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now + TIMEOUT));
}

#[test]
fn a_timeout_of_zero_is_for_ever() {
    let mut bed = Bed::with(|_, attributes| attributes.timeout = 0);
    long_send(&mut bed, 1);
    assert_eq!(bed.a().qp.next_timeout(), None);
    bed.pass(A, Duration::from_secs(86_400));
    assert_eq!(bed.sent(A), []);
}

#[test]
fn a_gap_is_told_once_and_what_follows_it_is_sent_again() {
    let mut bed = Bed::new();
    let mut packets = long_send(&mut bed, 6);
    packets.remove(2);
    bed.deliver_all(B, packets);
    let told = bed.sent(B);
    assert_eq!(syndromes(A, &told), [(2, SEQUENCE)], "one, and at once");
    bed.deliver_all(A, told);
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [2, 3, 4, 5]);
    // The gap is there still when the repetition is lost: only the timer helps now.
    bed.deliver_all(B, again[1..].to_vec());
    assert_eq!(bed.sent(B), []);
    bed.pass(A, TIMEOUT);
    let again = bed.sent(A);
    bed.deliver_all(B, again[..1].to_vec());
    // It is closed, so that the next one is told again.
    bed.deliver_all(B, again[2..].to_vec());
    let told = bed.sent(B);
    assert_eq!(syndromes(A, &told), [(3, SEQUENCE)]);
    bed.deliver_all(A, told);
    bed.settle();
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(bed.b().completions(), [(7, OK)]);
    assert_eq!(bed.b().bytes(0, 6 * MTU as usize), bed.a().bytes(0, 6 * MTU as usize));
}

#[test]
fn a_gap_that_closes_before_it_is_told_is_not_told() {
    let mut bed = Bed::new();
    let mut packets = long_send(&mut bed, 3);
    packets.swap(0, 1);
    bed.deliver_all(B, packets[..2].to_vec());
    assert_eq!(bed.sent(B), []);
}

#[test]
fn the_same_refusal_twice_is_one() {
    let mut bed = Bed::new();
    long_send(&mut bed, 3);
    let nak = bed.answer(1, SEQUENCE);
    for _ in 0..10 {
        bed.deliver(A, nak.clone());
    }
    assert_eq!(bed.state(A), State::ReadyToSend);
    assert_eq!(indices(A, &bed.sent(A)), [1, 2]);
}

#[test]
fn refusals_without_progress_are_counted() {
    let mut bed = Bed::new();
    long_send(&mut bed, 3);
    let nak = bed.answer(0, SEQUENCE);
    for _ in 0..3 {
        bed.deliver(A, nak.clone());
        assert_eq!(indices(A, &bed.sent(A)), [0, 1, 2]);
    }
    bed.deliver(A, nak);
    assert_eq!(bed.a().completions(), [(1, Status::RetryExceeded)]);
}

#[test]
fn a_read_goes_on_where_its_answer_was_cut_off() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let len = 20 * MTU + 5;
    let to = bed.a().sge(30_000, len);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    let requests = bed.sent(A);
    bed.deliver_all(B, requests);
    let mut answers = bed.sent(B);
    assert_eq!(answers.len(), 21);
    answers.truncate(10);
    bed.deliver_all(A, answers);
    bed.pass(A, TIMEOUT);
    let again = bed.sent(A);
    let asked: Vec<_> = again
        .iter()
        .map(|packet| match packet.operation {
            Operation::ReadRequest(reth) => (reth.addr - addr, reth.len),
            other => panic!("{other:?}"),
        })
        .collect();
    let mtu = u64::from(MTU);
    assert_eq!(asked, [(10 * mtu, 6 * MTU), (16 * mtu, 4 * MTU + 5)], "to the same ends");
    assert_eq!(indices(A, &again), [10, 16]);
    bed.deliver_all(B, again);
    let rest = bed.sent(B);
    assert_eq!(indices(A, &rest), (10..21).collect::<Vec<_>>());
    bed.deliver_all(A, rest);
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(bed.a().bytes(30_000, len as usize), bed.b().bytes(0, len as usize));
}

#[test]
fn an_answer_after_a_missing_one_has_it_asked_for_again_once() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(30_000, 6 * MTU);
    bed.post(A, request(1, SendOperation::Read { addr, rkey }, &[to]));
    bed.b().recv(8, &[]);
    bed.post(A, send(2, &[]));
    let requests = bed.sent(A);
    bed.deliver_all(B, requests);
    let mut answers = bed.sent_at_once(B);
    assert_eq!(answers.len(), 7);
    answers.remove(2);
    for (i, answer) in answers.into_iter().enumerate() {
        bed.deliver(A, answer);
        match i {
            2 => assert_eq!(indices(A, &bed.sent(A)), [2, 6]),
            _ => assert_eq!(bed.sent(A), [], "{i}"),
        }
    }
    assert_eq!(bed.a().completions(), []);
    // The same is missing after a timeout: it is asked for again.
    bed.pass(A, TIMEOUT);
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [2, 6]);
    bed.deliver_all(B, again);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [2, 3, 4, 5, 6]);
    bed.deliver_all(A, answers[1..].to_vec());
    assert_eq!(indices(A, &bed.sent(A)), [2, 6]);
    bed.deliver_all(A, answers);
    assert_eq!(bed.a().completions(), [(1, OK), (2, OK)]);
    assert_eq!(bed.b().completions(), [(8, OK)]);
}

#[test]
fn an_acknowledgement_does_not_stand_for_an_answer() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 8);
    bed.post(A, request(1, SendOperation::Write { addr, rkey, imm: None }, &[to]));
    bed.post(A, request(2, SendOperation::FetchAdd { addr, rkey, add: 1 }, &[to]));
    bed.post(A, request(3, SendOperation::Write { addr, rkey, imm: None }, &[to]));
    bed.sent(A);
    let ack = bed.answer(2, ACK);
    bed.deliver(A, ack);
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(indices(A, &bed.sent(A)), [1, 2]);
}

#[test]
fn an_answer_acknowledges_what_is_before_it() {
    let mut bed = Bed::new();
    let (addr, rkey) = (bed.b().addr, bed.b().key);
    let to = bed.a().sge(0, 8);
    bed.b().recv(1, &[]);
    bed.post(A, send(1, &[]));
    bed.post(A, request(2, SendOperation::Read { addr, rkey }, &[to]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let answers = bed.sent(B);
    assert_eq!(indices(A, &answers), [1]);
    bed.deliver_all(A, answers);
    assert_eq!(bed.a().completions(), [(1, OK), (2, OK)]);
}

#[test]
fn a_receiver_that_is_not_ready_is_tried_again_after_its_time() {
    let mut bed = Bed::new();
    let from = bed.a().sge(0, 3 * MTU);
    bed.post(A, send(1, &[from]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let told = bed.sent(B);
    assert_eq!(syndromes(A, &told), [(0, Syndrome::RnrNak(RNR_TIMER.0))], "nothing else");
    bed.deliver_all(A, told.clone());
    bed.deliver_all(A, told);
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now + RNR_TIMER.1));
    bed.pass(A, RNR_TIMER.1 - Duration::from_nanos(1));
    assert_eq!(bed.sent(A), []);
    let to = bed.b().sge(0, 3 * MTU);
    bed.b().recv(2, &[to]);
    bed.pass(A, Duration::from_nanos(1));
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now));
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [0, 1, 2]);
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now + TIMEOUT));
    bed.deliver_all(B, again);
    bed.settle();
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(bed.b().completions(), [(2, OK)]);
}

#[test]
fn a_receiver_that_is_never_ready_is_given_up_or_waited_for() {
    for (rnr_retry, tries) in [(0, 1), (2, 3), (7, 100)] {
        let mut bed = Bed::with(|_, attributes| attributes.rnr_retry = rnr_retry);
        bed.post(A, send(1, &[]));
        bed.post(A, send(2, &[]));
        for _ in 0..tries {
            assert_eq!(bed.a().completions(), []);
            let packets = bed.sent(A);
            assert_eq!(indices(A, &packets), [0, 1]);
            bed.deliver_all(B, packets);
            let told = bed.sent(B);
            bed.deliver_all(A, told);
            bed.pass(A, RNR_TIMER.1);
        }
        match rnr_retry {
            7 => assert_eq!(bed.a().completions(), []),
            _ => {
                let expected = [(1, Status::RnrRetryExceeded), (2, FLUSHED)];
                assert_eq!(bed.a().completions(), expected);
                assert_eq!([bed.state(A), bed.state(B)], [State::Error, State::ReadyToSend]);
            }
        }
    }
}

#[test]
fn a_write_with_immediate_data_waits_for_a_receive_before_its_last_packet_is_written() {
    let mut bed = Bed::new();
    let from = bed.a().sge(0, 2 * MTU);
    let (addr, rkey) = (bed.b().addr + 30_000, bed.b().key);
    let before = bed.b().bytes(30_000 + u64::from(MTU), MTU as usize);
    bed.post(A, request(1, SendOperation::Write { addr, rkey, imm: Some(1) }, &[from]));
    let packets = bed.sent(A);
    bed.deliver_all(B, packets);
    let told = bed.sent(B);
    assert_eq!(syndromes(A, &told), [(1, Syndrome::RnrNak(RNR_TIMER.0))]);
    assert_eq!(bed.b().bytes(30_000 + u64::from(MTU), MTU as usize), before);
    bed.deliver_all(A, told);
    bed.b().recv(5, &[]);
    bed.pass(A, RNR_TIMER.1);
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [1], "in the middle of the message");
    bed.deliver_all(B, again);
    bed.settle();
    assert_eq!(bed.b().completions(), [(5, OK)]);
    assert_eq!(bed.b().bytes(30_000, 2 * MTU as usize), bed.a().bytes(0, 2 * MTU as usize));
}

#[test]
fn answers_to_what_was_not_sent_mean_nothing() {
    let mut bed = Bed::new();
    long_send(&mut bed, 2);
    for (index, syndrome) in
        [(2, ACK), (1000, ACK), (2, SEQUENCE), (7, Syndrome::Nak(NakCode::RemoteAccessError))]
    {
        let answer = bed.answer(index, syndrome);
        bed.deliver(A, answer);
    }
    // What was acknowledged before is acknowledged again, or refused.
    let ack = bed.answer(0, ACK);
    bed.deliver(A, ack);
    for syndrome in [ACK, SEQUENCE, Syndrome::RnrNak(1), Syndrome::Nak(NakCode::InvalidRequest)] {
        let answer = bed.answer(0, syndrome);
        bed.deliver(A, answer);
    }
    assert_eq!(bed.a().completions(), []);
    assert_eq!(bed.sent(A), []);
    assert_eq!(bed.a().qp.next_timeout(), Some(bed.now + TIMEOUT));
    let ack = bed.answer(1, ACK);
    bed.deliver(A, ack);
    assert_eq!(bed.a().completions(), [(1, OK)]);
}

#[test]
fn a_late_acknowledgement_ends_a_repetition() {
    let mut bed = Bed::new();
    long_send(&mut bed, 6);
    bed.pass(A, TIMEOUT);
    assert_eq!(bed.next(A).map(|packet| packet.bth.psn), Some(psn(A, 0)));
    let ack = bed.answer(3, ACK);
    bed.deliver(A, ack);
    assert_eq!(indices(A, &bed.sent(A)), [4, 5]);
    let ack = bed.answer(5, ACK);
    bed.deliver(A, ack);
    assert_eq!(bed.a().completions(), [(1, OK)]);
    assert_eq!(bed.a().qp.next_timeout(), None);
}

#[test]
fn what_is_repeated_asks_for_an_acknowledgement_at_its_end() {
    let mut bed = Bed::new();
    bed.b().recv(1, &[]);
    let first = unsignaled(send(1, &[]));
    let second = send(2, &[]);
    bed.post(A, first);
    bed.post(A, second);
    let packets = bed.sent(A);
    assert_eq!(
        packets.iter().map(|packet| packet.bth.ack_request).collect::<Vec<_>>(),
        [false, true]
    );
    bed.pass(A, TIMEOUT);
    let again = bed.sent(A);
    assert_eq!(
        again.iter().map(|packet| packet.bth.ack_request).collect::<Vec<_>>(),
        [false, true]
    );
}
