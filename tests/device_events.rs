//! Asynchronous events of a device, its ports and its queues; and what becomes of traffic when the port
//! goes down.
//!
//! The port that goes down is that of another device than the one under test, and only if its network
//! interface is a dummy one: see [`Link`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibverbs::{
    AckTimeout, Context, EventSource, EventType, PortState, QpState, QueuePair, QueuePairAttr,
    QueuePairAttrMask as Mask, Rc, RecvRequest, SharedReceiveQueue, WcStatus,
};
use ibverbs_tests::{
    connect, eventually, is_readable, kernel_version, pair, pair_with, prepare, prepare_on, submit,
    test_context, wait, wait_event, wait_ok, wait_one, within_deadline, Bed, Link, Mem, Side,
    DEADLINE, PORT,
};

/// Long enough for an event that is there to be found.
const MOMENT: Duration = Duration::from_millis(50);

/// Makes the queue pair raise an event of its own, and waits until the context can read one.
#[track_caller]
fn raise(ctx: &Context, qp: &mut QueuePair<Rc>) {
    let attr = QueuePairAttr::new().set_state(QpState::SQD).set_sqd_async_notify(true);
    qp.modify(&attr).unwrap();
    eventually("the context has an event", || has_event(ctx));
}

fn has_event(ctx: &Context) -> bool {
    is_readable(&ctx.async_event_fd().unwrap())
}

/// Writes eight bytes.
fn write(side: &mut Side, mem: &Mem, wr_id: u64) -> ibverbs::Result<()> {
    let (from, to) = (mem.slice(..8), mem.remote().slice(8..16));
    submit(&mut side.qp, |batch| batch.op().signaled().write(wr_id, &[from], to))
}

/// Two queue pairs that soon give up on a peer that does not answer.
fn impatient_pair(bed: &Bed) -> (Side, Side) {
    let timeout = AckTimeout::at_least(Duration::from_millis(30));
    pair_with(bed, |builder| builder.set_timeout(timeout).set_retry_count(2))
}

/// A sender, and a receiver that takes its receives from the shared queue.
fn pair_on(bed: &Bed, srq: &SharedReceiveQueue) -> (Side, Side) {
    connect(prepare(bed, |builder| builder), prepare_on(bed, srq))
}

fn post_shared(srq: &SharedReceiveQueue, mem: &Mem, count: u64) {
    let slices = [mem.slice(8..)];
    let requests: Vec<_> = (0..count).map(|wr_id| RecvRequest::new(wr_id, &slices)).collect();
    // SAFETY: the memory belongs to a bed, which keeps it registered for longer than its queues live, and
    // there are no references to its bytes.
    unsafe { srq.post_recv(requests) }.unwrap();
}

/// Sends a message and waits for it on both sides.
#[track_caller]
fn send(a: &mut Side, b: &Side, mem: &Mem, wr_id: u64) {
    let from = mem.slice(..8);
    submit(&mut a.qp, |batch| batch.op().signaled().send(wr_id, &[from])).unwrap();
    wait_ok(&a.send_cq, 1);
    wait_ok(&b.recv_cq, 1);
}

#[test]
fn nothing_happens_for_a_while() {
    let ctx = test_context();
    assert_eq!(ctx.poll_async_event().unwrap(), None);
    let start = Instant::now();
    assert_eq!(ctx.wait_async_event(Some(MOMENT)).unwrap(), None);
    assert!(start.elapsed() >= MOMENT);
    assert_eq!(ctx.wait_async_event(Some(Duration::ZERO)).unwrap(), None);
    assert!(!has_event(&ctx));
}

#[test]
fn the_port_goes_down_and_comes_back() {
    let Some(link) = Link::beside() else { return };
    // Every context of the device is told.
    let contexts = [link.ctx().clone(), link.ctx().device().open().unwrap()];
    link.down();
    for ctx in &contexts {
        let event = wait_event(ctx, EventType::PORT_ERR);
        assert_eq!(event.source(), EventSource::Port(PORT));
        assert_eq!(event.to_string(), "port 1 went down (PORT_ERR)");
        assert_eq!(ctx.query_port(PORT).unwrap().state(), PortState::DOWN);
    }
    link.up();
    for ctx in &contexts {
        let event = wait_event(ctx, EventType::PORT_ACTIVE);
        assert_eq!(event.source(), EventSource::Port(PORT));
        assert_eq!(ctx.query_port(PORT).unwrap().state(), PortState::ACTIVE);
    }
}

#[test]
fn an_address_that_comes_is_an_event() {
    let Some(link) = Link::beside() else { return };
    let ctx = link.ctx();
    link.down();
    wait_event(ctx, EventType::PORT_ERR);
    while ctx.poll_async_event().unwrap().is_some() {}
    link.up();
    assert_eq!(wait_event(ctx, EventType::GID_CHANGE).source(), EventSource::Port(PORT));
}

#[test]
fn requests_on_a_port_that_is_down_fail_and_new_connections_work() {
    let Some(link) = Link::beside() else { return };
    let bed = Bed::on(link.ctx().clone());
    let mem = bed.mem(16);
    let (mut a, b) = impatient_pair(&bed);
    for wr_id in 0..5 {
        write(&mut a, &mem, wr_id).unwrap();
    }
    wait_ok(&a.send_cq, 5);
    link.down();
    wait_event(link.ctx(), EventType::PORT_ERR);
    for wr_id in 5..10 {
        write(&mut a, &mem, wr_id).unwrap();
    }
    // All of them come back, in order.
    let failed = wait(&a.send_cq, 5);
    assert!(failed.iter().map(|wc| wc.wr_id).eq(5..10), "{failed:?}");
    for wc in &failed {
        // SoftRoCE finds no route; a device that sends into the void waits for an acknowledgement.
        let expected = [WcStatus::WR_FLUSH_ERR, WcStatus::RETRY_EXC_ERR, WcStatus::LOC_QP_OP_ERR];
        assert!(expected.contains(&wc.status()), "{failed:?}");
    }
    assert_eq!(a.qp.query(Mask::STATE).unwrap().state(), Some(QpState::ERR));
    link.up();
    // The connection stays broken.
    write(&mut a, &mem, 10).unwrap();
    assert_eq!(wait_one(&a.send_cq, 10).status(), WcStatus::WR_FLUSH_ERR);
    drop((a, b));
    let (mut a, _b) = pair(&bed);
    write(&mut a, &mem, 11).unwrap();
    wait_ok(&a.send_cq, 1);
}

#[test]
fn a_stream_of_requests_ends_with_an_error_when_the_port_goes_down() {
    let Some(link) = Link::beside() else { return };
    let bed = Bed::on(link.ctx().clone());
    let (mut a, b) = impatient_pair(&bed);
    let mem = bed.mem(16);
    let done = Arc::new(AtomicUsize::new(0));
    let counter = done.clone();
    let stream = std::thread::spawn(move || {
        for wr_id in 0.. {
            write(&mut a, &mem, wr_id).unwrap();
            let wc = wait_one(&a.send_cq, wr_id);
            if wc.ok.is_err() {
                return wc;
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!("the port never went down");
    });
    eventually("the requests flow", || done.load(Ordering::Relaxed) > 20);
    link.down();
    let last = stream.join().unwrap();
    assert_ne!(last.status(), WcStatus::SUCCESS);
    drop(b);
}

#[test]
fn a_completion_queue_that_overflows_says_so() {
    let bed = Bed::new();
    let cq = bed.ctx().create_cq(1).set_context(4).build().unwrap();
    let mem = bed.mem(16);
    let peer = prepare::<Rc>(&bed, |builder| builder);
    let mut a = prepare::<Rc>(&bed, |builder| builder);
    // The same, but for the queue that overflows.
    let builder = bed.pd().create_qp::<Rc>(&cq, &a.recv_cq, PORT).unwrap();
    a.qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let (mut a, b) = connect(a, peer);
    let mut wr_id = 0;
    eventually("the completion queue overflows", || {
        // The send queue may be full, and stay so.
        if write(&mut a, &mem, wr_id).is_ok() {
            wr_id += 1;
        }
        has_event(bed.ctx())
    });
    let event = wait_event(bed.ctx(), EventType::CQ_ERR);
    assert_eq!(event.source(), EventSource::Cq { context: 4 });
    assert!(event.to_string().starts_with("completion queue "), "{event}");
    // What fitted can be polled, and everything can be destroyed.
    let mut found = 0;
    while let Some(mut completions) = cq.poll().unwrap() {
        while completions.next().is_some() {
            found += 1;
        }
    }
    assert!(found > 0 && found < wr_id, "{found} of {wr_id}");
    a.qp.close().unwrap();
    cq.close().unwrap();
    drop(b);
    // Others did not notice.
    let (mut a, _b) = pair(&bed);
    write(&mut a, &mem, 1).unwrap();
    wait_ok(&a.send_cq, 1);
}

#[test]
fn an_event_of_a_queue_pair_tells_which() {
    let bed = Bed::new();
    let ctx = bed.ctx();
    for context in [0, 7, u64::MAX] {
        let (mut a, _b) = pair_with::<Rc>(&bed, |builder| builder.set_context(context));
        raise(ctx, &mut a.qp);
        let event = wait_event(ctx, EventType::SQ_DRAINED);
        let qp_num = a.qp.qp_num();
        assert_eq!(event.source(), EventSource::Qp { qp_num, context });
        assert!(event.to_string().contains(&format!("queue pair {qp_num} ")), "{event}");
        // It is acknowledged: destroying would wait for that.
        within_deadline(|| a.qp.close().unwrap());
    }
}

#[test]
fn a_peer_without_the_right_may_be_an_event() {
    let bed = Bed::new();
    let mem = bed.mem(16);
    let (mut a, b) = pair_with::<Rc>(&bed, |builder| builder.set_context(3));
    let mut remote = mem.remote().slice(8..16);
    remote.rkey ^= 0x5500;
    let from = mem.slice(..8);
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[from], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).status(), WcStatus::REM_ACCESS_ERR);
    // SoftRoCE raises an event from about Linux 7 on.
    if let Some(event) = bed.ctx().wait_async_event(Some(MOMENT)).unwrap() {
        let qp_num = b.qp.qp_num();
        assert_eq!(event.event_type(), EventType::QP_ACCESS_ERR);
        assert_eq!(event.source(), EventSource::Qp { qp_num, context: 3 });
    }
}

#[test]
fn a_shared_receive_queue_that_runs_low_says_so_once() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(16).set_context(6).build().unwrap();
    let (mut a, b) = pair_on(&bed, &srq);
    let mem = bed.mem(16);
    post_shared(&srq, &mem, 8);
    srq.set_limit(6).unwrap();
    for wr_id in 0..2 {
        send(&mut a, &b, &mem, wr_id);
    }
    assert_eq!(bed.ctx().wait_async_event(Some(MOMENT)).unwrap(), None, "there are six receives");
    for wr_id in 2..5 {
        send(&mut a, &b, &mem, wr_id);
    }
    let event = wait_event(bed.ctx(), EventType::SRQ_LIMIT_REACHED);
    assert_eq!(event.source(), EventSource::Srq { context: 6 });
    // It disarmed the limit.
    assert_eq!(bed.ctx().wait_async_event(Some(MOMENT)).unwrap(), None);
    assert_eq!(srq.query().unwrap().limit, 0);
}

#[test]
fn a_queue_pair_that_takes_no_more_shared_receives_says_so() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(16).build().unwrap();
    let (a, mut b) = pair_on(&bed, &srq);
    let mem = bed.mem(16);
    post_shared(&srq, &mem, 2);
    b.qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
    if bed.is_softroce() && kernel_version() < (6, 12) {
        return; // SoftRoCE did not raise it in Linux 6.1, and does in 6.12.
    }
    let event = wait_event(bed.ctx(), EventType::QP_LAST_WQE_REACHED);
    let qp_num = b.qp.qp_num();
    assert_eq!(event.source(), EventSource::Qp { qp_num, context: 0 });
    drop(a);
}

#[test]
fn an_event_goes_to_the_context_of_its_queue_pair() {
    let bed = Bed::new();
    let other = bed.ctx().device().open().unwrap();
    assert_eq!(other.poll_async_event().unwrap(), None);
    let (mut a, _b) = pair(&bed);
    raise(bed.ctx(), &mut a.qp);
    assert_eq!(other.wait_async_event(Some(MOMENT)).unwrap(), None);
    // Another handle of the context serves as well.
    wait_event(&bed.ctx().clone(), EventType::SQ_DRAINED);
    assert_eq!(bed.ctx().poll_async_event().unwrap(), None);
}

#[test]
fn an_unread_event_goes_with_its_queue_pair() {
    let bed = Bed::new();
    let (mut a, _b) = pair(&bed);
    raise(bed.ctx(), &mut a.qp);
    let ctx = bed.ctx().clone();
    within_deadline(move || {
        a.qp.close().unwrap();
        // A blocking read would not return.
        assert_eq!(ctx.poll_async_event().unwrap(), None);
        assert_eq!(ctx.wait_async_event(Some(MOMENT)).unwrap(), None);
    });
}

#[test]
fn everything_is_closed_with_unread_events_in_any_order() {
    for order in 0..3 {
        let bed = Bed::new();
        let (mut a, b) = pair(&bed);
        raise(bed.ctx(), &mut a.qp);
        let ctx = bed.ctx().clone();
        within_deadline(move || {
            let mut things: [Box<dyn std::any::Any>; 3] =
                [Box::new(ctx), Box::new((a, b)), Box::new(bed)];
            things.rotate_left(order);
            things.into_iter().for_each(drop);
        });
    }
}

#[test]
fn queue_pairs_are_destroyed_while_threads_read_their_events() {
    const ROUNDS: usize = 20;
    let bed = Bed::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let end = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (ctx, seen, end) = (bed.ctx().clone(), seen.clone(), end.clone());
            std::thread::spawn(move || {
                while end.load(Ordering::Relaxed) == 0 {
                    let soon = Duration::from_millis(1);
                    let Some(event) = ctx.wait_async_event(Some(soon)).unwrap() else { continue };
                    assert_eq!(event.event_type(), EventType::SQ_DRAINED);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let writer = std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            let (mut a, _b) = pair(&bed);
            a.qp.modify(&QueuePairAttr::new().set_state(QpState::SQD)).unwrap();
        }
    });
    within_deadline(move || writer.join().unwrap());
    end.store(1, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert!(seen.load(Ordering::Relaxed) <= ROUNDS);
}

#[test]
fn a_task_awaits_events() {
    let bed = Bed::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut events = runtime.block_on(async { bed.ctx().async_events() }).unwrap();
    let (mut a, _b) = pair_with::<Rc>(&bed, |builder| builder.set_context(5));
    for _ in 0..2 {
        let silence = async { tokio::time::timeout(MOMENT, events.next()).await };
        assert!(runtime.block_on(silence).is_err());
    }
    let task = runtime.spawn(async move { events.next().await.unwrap() });
    a.qp.modify(&QueuePairAttr::new().set_state(QpState::SQD)).unwrap();
    let event = async { tokio::time::timeout(DEADLINE, task).await };
    let event = runtime.block_on(event).expect("no event came").unwrap();
    let qp_num = a.qp.qp_num();
    assert_eq!(event.source(), EventSource::Qp { qp_num, context: 5 });
}
