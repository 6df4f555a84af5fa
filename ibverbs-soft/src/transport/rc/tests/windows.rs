//! Requests that bind and withdraw the keys of memory windows.

use super::*;
use crate::transport::{Bind, Host, Through};

fn bind(side: &Side, old_rkey: u32, rkey: u32) -> Bind {
    Bind { old_rkey, rkey, region: Some(side.key), addr: side.addr, len: 1024, access: ALL }
}

/// A window that the queue pair of B has bound: its key.
fn lent(bed: &mut Bed) -> u32 {
    let key = bed.b().host.alloc_window();
    let bind = bind(bed.b(), key, key + 1);
    bed.post(B, request(90, SendOperation::Bind(bind), &[]));
    bed.settle();
    let done = bed.b().full_completions();
    assert_eq!((done[0].wr_id, done[0].status, done[0].kind), (90, OK, CompletionKind::Bind));
    key + 1
}

fn withdraw(wr_id: u64, rkey: u32, sges: &[Sge]) -> SendRequest {
    request(wr_id, SendOperation::SendWithInvalidate { rkey }, sges)
}

fn write(bed: &mut Bed, wr_id: u64, rkey: u32) -> SendRequest {
    let (from, addr) = (bed.a().sge(0, 8), bed.b().addr);
    request(wr_id, SendOperation::Write { addr, rkey, imm: None }, &[from])
}

/// What B has done to windows.
fn withdrawn(bed: &mut Bed) -> Vec<u32> {
    bed.b().look();
    let key = |record: &Record| match record {
        Record::Invalidate(key) => Some(*key),
        _ => None,
    };
    bed.b().log.iter().filter_map(key).collect()
}

#[test]
fn a_send_withdraws_the_key_with_its_last_packet_and_the_receiver_is_told() {
    let mut bed = Bed::new();
    let key = lent(&mut bed);
    let (from, to) = (bed.a().sge(0, 2 * MTU + 5), bed.b().sge(2048, 1024));
    bed.b().recv(1, &[to]);
    let written = write(&mut bed, 2, key);
    bed.post(A, written);
    bed.post(A, withdraw(3, key, &[from]));
    let mut packets = bed.sent(A);
    let last = packets.pop().unwrap();
    assert!(
        matches!(last.operation, Operation::Send { position: Position::Last, invalidate: Some(it), .. } if it == key)
    );
    bed.deliver_all(B, packets);
    assert_eq!(withdrawn(&mut bed), []);
    // It may come twice.
    bed.deliver_all(B, [last.clone(), last]);
    bed.settle();
    assert_eq!(withdrawn(&mut bed), [key]);
    assert_eq!(bed.a().completions(), [(2, OK), (3, OK)]);
    let received = bed.b().full_completions();
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].status, received[0].kind), (OK, CompletionKind::Recv));
    assert_eq!((received[0].invalidated, received[0].len), (Some(key), 2 * MTU + 5));
    let late = write(&mut bed, 4, key);
    bed.post(A, late);
    bed.settle();
    assert_eq!(bed.a().completions(), [(4, Status::RemoteAccess)]);
}

#[test]
fn a_send_that_withdraws_what_it_cannot_fails_on_both_sides() {
    for which in ["a region", "no key", "withdrawn already", "of another queue pair"] {
        let mut bed = Bed::new();
        let key = lent(&mut bed);
        let key = match which {
            "a region" => bed.b().key,
            "no key" => 0,
            "withdrawn already" => {
                let through = bed.b().qp.config().through();
                bed.b().host.invalidate(through, key).unwrap();
                key
            }
            _ => {
                let other = bed.b().host.alloc_window();
                let bind = bind(bed.b(), other, other + 1);
                let through = Through { pd: PD, qp_num: 0x77 };
                bed.b().host.bind_window(through, &bind).unwrap();
                other + 1
            }
        };
        bed.b().look();
        let before = withdrawn(&mut bed);
        bed.b().recv(1, &[]);
        bed.b().recv(2, &[]);
        bed.post(A, withdraw(3, key, &[]));
        bed.post(A, send(4, &[]));
        bed.settle();
        let expected = [(3, Status::RemoteInvalidRequest), (4, FLUSHED)];
        assert_eq!(bed.a().completions(), expected, "{which}");
        let expected = [(1, Status::RemoteInvalidRequest), (2, FLUSHED)];
        assert_eq!(bed.b().completions(), expected, "{which}");
        assert_eq!(withdrawn(&mut bed), before, "{which}");
        assert_eq!((bed.state(A), bed.state(B)), (State::Error, State::Error));
    }
}

#[test]
fn what_is_done_here_completes_in_its_turn() {
    let mut bed = Bed::new();
    let key = bed.a().host.alloc_window();
    let bind = bind(bed.a(), key, key + 1);
    bed.b().recv(1, &[]);
    bed.b().recv(2, &[]);
    bed.post(A, unsignaled(send(3, &[])));
    bed.post(A, request(4, SendOperation::Bind(bind), &[]));
    bed.post(A, request(5, SendOperation::LocalInvalidate { rkey: key + 1 }, &[]));
    bed.post(A, send(6, &[]));
    let packets = bed.sent(A);
    // The first message asks for the acknowledgement that the bind waits for.
    assert_eq!(packets.len(), 2);
    assert!(packets[0].bth.ack_request);
    bed.a().look();
    assert!(bed.a().log.contains(&Record::Invalidate(key + 1)), "it waits for nothing");
    assert_eq!(bed.a().completions(), []);
    // All of it is sent again, and nothing is done again.
    let timeout = TIMEOUT * 5;
    bed.pass(A, timeout);
    let again = bed.sent(A);
    assert_eq!(indices(A, &again), [0, 1]);
    bed.deliver(B, again[0].clone());
    let answers = bed.sent_at_once(B);
    bed.deliver_all(A, answers);
    assert_eq!(bed.a().completions(), [(4, OK), (5, OK)]);
    bed.deliver(B, again[1].clone());
    bed.settle();
    assert_eq!(bed.a().completions(), [(6, OK)]);
    // One at the end does not leave what is before it unacknowledged.
    bed.b().recv(7, &[]);
    bed.post(A, unsignaled(send(8, &[])));
    bed.post(A, request(9, SendOperation::LocalInvalidate { rkey: 1 }, &[]));
    bed.settle();
    assert_eq!(bed.a().completions(), [(9, Status::WindowBind)]);
    assert_eq!(bed.state(A), State::Error);
}

#[test]
fn a_fence_holds_up_what_is_done_here_until_reads_are_done() {
    for fenced in [false, true] {
        let mut bed = Bed::new();
        let key = bed.a().host.alloc_window();
        let bind = bind(bed.a(), key, key + 1);
        let (into, addr, rkey) = (bed.a().sge(0, 8), bed.b().addr, bed.b().key);
        bed.post(A, unsignaled(request(1, SendOperation::Read { addr, rkey }, &[into])));
        let request = request(2, SendOperation::Bind(bind), &[]);
        bed.post(A, SendRequest { fenced, ..request });
        let read = bed.sent(A);
        bed.a().look();
        assert_eq!(bed.a().log.contains(&Record::Bind(key + 1)), !fenced);
        assert_eq!(bed.a().completions(), []);
        bed.deliver_all(B, read);
        bed.settle();
        assert_eq!(bed.a().completions(), [(2, OK)]);
        assert!(bed.a().log.contains(&Record::Bind(key + 1)));
    }
}

#[test]
fn what_cannot_be_done_here_fails_in_its_turn_and_what_is_after_it_is_not_done() {
    let mut bed = Bed::new();
    let key = bed.a().host.alloc_window();
    let (wrong, right) = (bind(bed.a(), key + 9, key + 1), bind(bed.a(), key, key + 1));
    bed.b().recv(1, &[]);
    bed.post(A, unsignaled(send(2, &[])));
    bed.post(A, request(3, SendOperation::Bind(wrong), &[]));
    bed.post(A, request(4, SendOperation::Bind(right), &[]));
    bed.post(A, send(5, &[]));
    let packets = bed.sent(A);
    assert_eq!((packets.len(), bed.a().completions().len()), (1, 0));
    bed.deliver_all(B, packets);
    bed.settle();
    assert_eq!(bed.a().completions(), [(3, Status::WindowBind), (4, FLUSHED), (5, FLUSHED)]);
    assert_eq!(bed.b().completions(), [(1, OK)]);
    assert!(!bed.a().log.contains(&Record::Bind(key + 1)));
}

#[test]
fn nothing_is_bound_while_the_queue_drains() {
    let mut bed = Bed::new();
    let key = bed.a().host.alloc_window();
    let bind = bind(bed.a(), key, key + 1);
    bed.b().recv(1, &[]);
    bed.post(A, send(2, &[]));
    let packets = bed.sent(A);
    bed.post(A, request(3, SendOperation::Bind(bind), &[]));
    bed.modify(A, State::SendQueueDrain, |_| ());
    assert!(bed.sent(A).is_empty());
    bed.deliver_all(B, packets);
    bed.settle();
    assert_eq!(bed.a().events(), [QpEvent::SendQueueDrained]);
    assert_eq!(bed.a().completions(), [(2, OK)]);
    bed.modify(A, State::ReadyToSend, |_| ());
    bed.settle();
    assert_eq!(bed.a().completions(), [(3, OK)]);
}
