use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::sim::fixture::{Fixture, MTU, NUMBERS, PSNS, QKEY};
use crate::transport::{CompletionKind, DatagramTarget, Payload, SendOperation, Sge, SrdOperation};

const SEND: SrdOperation = SrdOperation::Send { imm: None };

fn target(bed: &Fixture) -> DatagramTarget {
    DatagramTarget { path: bed.net.path(0, 1), remote_qpn: NUMBERS[1], qkey: QKEY }
}

/// Posts a request of device 0 to device 1.
fn post(bed: &mut Fixture, wr_id: u64, operation: SrdOperation, sges: Vec<Sge>) {
    let to = target(bed);
    bed.post(wr_id, SendOperation::Srd { to, operation }, sges);
}

fn run(bed: &mut Fixture, operation: SrdOperation, sges: Vec<Sge>) -> Status {
    post(bed, 5, operation, sges);
    let ended = bed.ended(0);
    assert_eq!((ended.len(), ended[0].0), (1, 5), "{ended:?}");
    ended[0].1
}

#[test]
fn a_message_fills_its_receive_from_the_first_byte_on() {
    let mut bed = Fixture::new(Service::Srd);
    for (wr_id, len) in (1..).zip([0, 1, MTU, MTU + 1, SRD_MAX_SEND]) {
        let sges = vec![bed.sge(1, 0x8000, 1), bed.sge(1, 0x9000, len.max(1))];
        bed.receive(wr_id, sges);
        let imm = (len % 2 == 1).then_some(len);
        let sges = vec![bed.sge(0, 0x100, len)];
        assert_eq!(run(&mut bed, SrdOperation::Send { imm }, sges), Status::Success);
        let received = bed.completions(1);
        assert_eq!(received.len(), 1);
        let it = received[0];
        assert_eq!((it.wr_id, it.status, it.kind), (wr_id, Status::Success, CompletionKind::Recv));
        assert_eq!((it.len, it.imm, it.grh, it.vendor_error), (len, imm, false, 0));
        let addr: IpAddr = [10, 0, 0, 1].into();
        assert_eq!((it.src_qp, it.source), (NUMBERS[0], Some(addr)));
        let rest = (len as usize).saturating_sub(1);
        assert!(bed.bytes(1, 0x9000, rest) == bed.bytes(0, 0x101, rest), "{len}");
    }
}

#[test]
fn memory_of_the_peer_is_written_and_read() {
    let mut bed = Fixture::new(Service::Srd);
    let (addr, rkey) = bed.memory[1];
    let write = SrdOperation::Write { addr: addr + 7, rkey, imm: None };
    let sges = vec![bed.sge(0, 0x1000, 5000)];
    assert_eq!(run(&mut bed, write, sges), Status::Success);
    assert!(bed.bytes(1, 7, 5000) == bed.bytes(0, 0x1000, 5000));
    assert_eq!(bed.completions(1), []);

    let read = SrdOperation::Read { addr: addr + 9, rkey };
    let sges = vec![bed.sge(0, 0x8000, 4000)];
    post(&mut bed, 6, read, sges);
    let read = bed.completions(0)[0];
    assert_eq!((read.status, read.kind, read.len), (Status::Success, CompletionKind::Send, 4000));
    assert!(bed.bytes(0, 0x8000, 4000) == bed.bytes(1, 9, 4000));

    let write = SrdOperation::Write { addr, rkey, imm: Some(77) };
    bed.receive(8, Vec::new());
    let sges = vec![bed.sge(0, 0x2000, 3000)];
    assert_eq!(run(&mut bed, write, sges), Status::Success);
    let told = bed.completions(1)[0];
    assert_eq!((told.kind, told.len), (CompletionKind::RecvWriteWithImm, 3000));
    assert_eq!((told.imm, told.src_qp), (Some(77), NUMBERS[0]));
}

#[test]
fn a_send_that_fails_ends_alone() {
    let mut bed = Fixture::new(Service::Srd);
    let (addr, rkey) = bed.memory[1];
    let mut failing = |operation, sges: Vec<Sge>| {
        post(&mut bed, 5, operation, sges);
        let failed = bed.completions(0)[0];
        bed.receive(1, vec![bed.sge(1, 0, 64)]);
        let sges = vec![bed.sge(0, 0, 64)];
        assert_eq!(run(&mut bed, SEND, sges), Status::Success, "after {failed:?}");
        let received = bed.ended(1);
        let ended = (failed.wr_id, failed.status, failed.vendor_error);
        (ended, received.last().map(|ended| ended.1))
    };
    let sge =
        |bed: usize, len| Sge { addr: (1 << 32 | 0xa_0000) + bed as u64, len, lkey: 0x5eed_0177 };
    let success = Some(Status::Success);
    let refused = |status, code| ((5, status, code), success);
    let write = |addr, rkey| SrdOperation::Write { addr, rkey, imm: None };
    assert_eq!(failing(write(addr, rkey ^ 1), vec![sge(0, 8)]), refused(Status::RemoteAccess, 7));
    let behind = SrdOperation::Read { addr: addr + (64 << 10) - 8, rkey };
    assert_eq!(failing(behind, vec![sge(0, 9)]), refused(Status::RemoteAccess, 7));
    let wrong = Sge { lkey: 1, ..sge(0, 8) };
    assert_eq!(failing(SEND, vec![wrong]), refused(Status::LocalProtection, 5));
    let long = sge(0, SRD_MAX_SEND + 1);
    assert_eq!(failing(SEND, vec![long]), refused(Status::LocalLength, 6));
}

#[test]
fn a_message_that_is_too_long_fails_on_both_sides() {
    for (len, room) in [(65, 64), (3 * MTU, 2 * MTU)] {
        let mut bed = Fixture::new(Service::Srd);
        bed.receive(1, vec![bed.sge(1, 0, room)]);
        bed.receive(2, vec![bed.sge(1, 0, 4096)]);
        let sges = vec![bed.sge(0, 0, len)];
        assert_eq!(run(&mut bed, SEND, sges.clone()), Status::RemoteInvalidRequest);
        assert_eq!(run(&mut bed, SEND, sges), Status::Success);
        assert_eq!(bed.ended(1), [(1, Status::LocalLength), (2, Status::Success)]);
    }
}

#[test]
fn who_is_not_there_is_told_or_found_out() {
    let mut bed = Fixture::new(Service::Srd);
    let to = DatagramTarget { qkey: QKEY ^ 1, ..target(&bed) };
    let sges = vec![bed.sge(0, 0, 8)];
    bed.post(1, SendOperation::Srd { to, operation: SEND }, sges.clone());
    let failed = bed.completions(0)[0];
    assert_eq!((failed.status, failed.vendor_error), (Status::RemoteInvalidRdRequest, 9));

    // Nobody answers for a number that is not there: here, there is no device around the queue pairs.
    let to = DatagramTarget { remote_qpn: 0x99, ..target(&bed) };
    let start = bed.net.now();
    bed.post(1, SendOperation::Srd { to, operation: SEND }, sges.clone());
    let failed = bed.completions(0)[0];
    assert_eq!((failed.status, failed.vendor_error), (Status::Unreachable, 15));
    let took = bed.net.now() - start;
    assert!((Duration::from_secs(1)..SILENCE / 2).contains(&took), "{took:?}");

    // One that has answered before.
    bed.receive(1, vec![bed.sge(1, 0, 64)]);
    assert_eq!(run(&mut bed, SEND, sges.clone()), Status::Success);
    bed.modify(1, State::Reset);
    post(&mut bed, 1, SEND, sges);
    let failed = bed.completions(0)[0];
    assert_eq!((failed.status, failed.vendor_error), (Status::Unresponsive, 13));
}

#[test]
fn what_is_refused_by_the_device_fails_at_once() {
    let mut bed = Fixture::new(Service::Srd);
    let sges = vec![bed.sge(0, 0, 8)];
    post(&mut bed, 1, SEND, sges);
    let now = bed.net.now();
    let (endpoint, host) = bed.net.endpoint(0, 0);
    let request = endpoint.qp.poll_transmit(now, host).unwrap();
    let answer = refuse(&request.path, &request.packet).unwrap();
    assert_eq!(refuse(&answer.path, &answer.packet), None, "answers are not answered");
    let (endpoint, host) = bed.net.endpoint(0, 0);
    endpoint.qp.handle_packet(now, &answer.path, answer.packet, host);
    let failed = bed.completions(0)[0];
    assert_eq!((failed.status, failed.vendor_error), (Status::RemoteInvalidRdRequest, 9));
}

#[test]
fn a_receiver_that_is_not_ready_is_waited_for() {
    for retries in [0, 3, 7] {
        let mut bed = Fixture::new(Service::Srd);
        bed.attributes[0].rnr_retry = retries;
        bed.modify(0, State::ReadyToSend);
        let sges = vec![bed.sge(0, 0, 700)];
        post(&mut bed, 1, SEND, sges);
        if retries < 7 {
            let failed = bed.completions(0)[0];
            assert_eq!((failed.status, failed.vendor_error), (Status::RnrRetryExceeded, 10));
            continue;
        }
        for _ in 0..1000 {
            bed.net.step().expect("it is tried for ever");
        }
        bed.receive(9, vec![bed.sge(1, 0, 1000)]);
        assert_eq!(bed.ended(0), [(1, Status::Success)]);
        assert_eq!(bed.ended(1), [(9, Status::Success)]);
    }
}

#[test]
fn others_do_not_wait_for_a_receiver_that_is_not_ready() {
    let mut bed = Fixture::new(Service::Srd);
    bed.attributes[0].rnr_retry = 7;
    // It asks for the third of a second.
    bed.attributes[1].min_rnr_timer = 30;
    for node in 0..2 {
        bed.modify(node, State::ReadyToSend);
    }
    for wr_id in 0..1000 {
        post(&mut bed, wr_id, SEND, Vec::new());
    }
    // Nobody is there, which is soon found out.
    let to = DatagramTarget { remote_qpn: 0x99, ..target(&bed) };
    bed.post(1000, SendOperation::Srd { to, operation: SEND }, Vec::new());
    let end = bed.net.now() + SILENCE / 2;
    while bed.net.now() < end {
        bed.net.step().expect("it is tried for ever");
    }
    for wr_id in 0..1000 {
        bed.receive(wr_id, Vec::new());
    }
    let ended = bed.ended(0);
    assert_eq!(ended[0], (1000, Status::Unreachable));
    let expected: Vec<_> = (0..1000).map(|wr_id| (wr_id, Status::Success)).collect();
    let mut others = ended[1..].to_vec();
    others.sort_by_key(|ended| ended.0);
    assert_eq!(others, expected);
}

/// A request as the peer could send it.
fn forged(bed: &mut Fixture, psn: u32, flow: u32, floor: u32, part: SrdPart) -> Packet {
    let srd = SrdHeader { flow, floor: Psn::new(floor), part };
    let payload: &[u8] = if matches!(part, SrdPart::Fragment { .. }) { &[1; 8] } else { &[] };
    bed.packet(Psn::new(psn), Operation::Srd(srd), payload)
}

#[test]
fn nothing_is_done_twice() {
    let mut bed = Fixture::new(Service::Srd);
    let part = SrdPart::Fragment { message: Psn::new(5), offset: 0, len: 8, imm: None };
    for wr_id in 1..=8 {
        bed.receive(wr_id, vec![bed.sge(1, 0, 64)]);
    }
    for (psn, flow, floor, comes) in [
        (5, 1, 5, true),
        (5, 1, 5, false),
        // Overtaken, and late.
        (9, 1, 6, true),
        (6, 1, 5, true),
        (5, 1, 5, false),
        (9, 1, 9, false),
        // Behind what can be under way.
        (9 + 64, 1, 9, false),
        (8 + 64, 1, 9, true),
        (8 + 64, 1, 7, false),
        // Another flow of the same queue pair.
        (5, 2, 5, true),
    ] {
        let packet = forged(&mut bed, psn, flow, floor, part);
        bed.inject(packet);
        assert_eq!(bed.ended(1).len(), usize::from(comes), "{psn} in {flow} from {floor} on");
    }
}

#[test]
fn what_a_responder_remembers_is_bounded() {
    let mut bed = Fixture::new(Service::Srd);
    for wr_id in 1..=4 {
        bed.receive(wr_id, vec![bed.sge(1, 0, 64)]);
    }
    let part = SrdPart::Write { addr: 0, rkey: 0 };
    for flow in 0..4096 {
        let packet = forged(&mut bed, 0, flow, 0, part);
        bed.inject(packet);
    }
    let fragment = SrdPart::Fragment { message: Psn::new(0), offset: 0, len: 8, imm: None };
    let packet = forged(&mut bed, 0, 5000, 0, fragment);
    bed.inject(packet.clone());
    assert_eq!(bed.ended(1), [], "there is no room");
    // A flow that is known goes on.
    let known = forged(&mut bed, 1, 7, 0, fragment);
    bed.inject(known);
    assert_eq!(bed.ended(1).len(), 1);
    // Until the others have been silent for long.
    bed.net.wake(0, SILENCE);
    bed.settle();
    bed.inject(packet);
    assert_eq!(bed.ended(1).len(), 1);
}

#[test]
fn pieces_that_do_not_fit_together_are_refused() {
    let mut bed = Fixture::new(Service::Srd);
    bed.receive(1, vec![bed.sge(1, 0, 4096)]);
    let fragment = |offset, len| SrdPart::Fragment { message: Psn::new(0), offset, len, imm: None };
    let mut psn = 0;
    for part in [
        fragment(0, 7),
        fragment(1, 8),
        fragment(u32::MAX, 8),
        fragment(0, SRD_MAX_SEND + 1),
        fragment(0, 16),
        fragment(8, 17),
        SrdPart::Fragment { message: Psn::new(0), offset: 8, len: 16, imm: Some(1) },
    ] {
        let packet = forged(&mut bed, psn, 1, 0, part);
        bed.inject(packet);
        psn += 1;
        assert_eq!(bed.ended(1), [], "{part:?}");
    }
    let packet = forged(&mut bed, psn, 1, 0, fragment(8, 16));
    bed.inject(packet);
    assert_eq!(bed.ended(1), [(1, Status::Success)]);
}

#[test]
fn a_queue_pair_that_is_reset_begins_flows_that_nobody_knows() {
    let mut bed = Fixture::new(Service::Srd);
    for round in 1..4 {
        bed.receive(round, vec![bed.sge(1, 0, 64)]);
        let sges = vec![bed.sge(0, 0, 8)];
        assert_eq!(run(&mut bed, SEND, sges), Status::Success);
        assert_eq!(bed.ended(1), [(round, Status::Success)]);
        bed.modify(0, State::Reset);
        let attributes = bed.attributes[0];
        assert_eq!(attributes.sq_psn, PSNS[0]);
        bed.net.bring_up(0, 0, State::ReadyToSend, attributes);
    }
}

#[test]
fn states_stop_and_flush() {
    let mut bed = Fixture::new(Service::Srd);
    let sges = vec![bed.sge(0, 0, 8)];
    bed.modify(0, State::SendQueueDrain);
    bed.settle();
    assert_eq!(bed.events(0), [crate::transport::QpEvent::SendQueueDrained]);
    post(&mut bed, 1, SEND, sges.clone());
    assert_eq!(bed.ended(0), []);
    bed.receive(1, vec![bed.sge(1, 0, 64)]);
    bed.modify(0, State::ReadyToSend);
    assert_eq!(bed.ended(0), [(1, Status::Success)]);
    post(&mut bed, 2, SEND, sges.clone());
    post(&mut bed, 3, SEND, sges);
    for _ in 0..3 {
        bed.net.step();
    }
    bed.modify(0, State::Error);
    let flushed = Status::WorkRequestFlushed;
    assert_eq!(bed.ended(0), [(2, flushed), (3, flushed)]);
}

#[test]
fn inline_bytes_are_those_of_the_post() {
    let mut bed = Fixture::new(Service::Srd);
    bed.receive(1, vec![bed.sge(1, 0, 1024)]);
    let bytes: Vec<u8> = (0..600_u32).map(|number| number as u8).collect();
    let request = SendRequest {
        wr_id: 3,
        operation: SendOperation::Srd { to: target(&bed), operation: SEND },
        payload: Payload::Inline(bytes.clone()),
        signaled: false,
        solicited: false,
        fenced: false,
    };
    bed.net.post_send(0, 0, request);
    assert_eq!(bed.ended(0), [(3, Status::Success)]);
    assert!(bed.bytes(1, 0, 600) == bytes);
}
