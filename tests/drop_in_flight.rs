//! Drops everything in random orders while work is in flight: transfers that the device carries out meanwhile, receives
//! that wait, batches and polls that are open or were forgotten. Nothing hangs, and nothing is left.
//!
//! It is the only test of its binary, because it counts what belongs to its process.

use std::any::Any;
use std::mem::forget;

use ibverbs::{
    AccessFlags, CompletionQueue, Context, Error, Payload, ProtectionDomain, QueuePair, Rc,
    RecvRequest, SharedReceiveQueue, SharedRegion, Ud, WindowType2,
};
use ibverbs_tests::{
    choose_provider, is_soft, kernel_objects, open_device_files, test_context, Ability, Bed,
    Numbers, PORT, QKEY,
};

/// So much that a transfer takes a while.
const LEN: usize = 128 << 10;
const HALF: usize = LEN / 2;

/// Makes a queue pair that is connected to itself, and has it receive, send, write and read.
fn connected(
    numbers: &mut Numbers,
    pd: &ProtectionDomain,
    [send_cq, recv_cq]: [&CompletionQueue; 2],
    srq: Option<&SharedReceiveQueue>,
    memory: &SharedRegion,
) -> QueuePair<Rc> {
    let mut builder = pd.create_qp::<Rc>(send_cq, recv_cq, PORT).unwrap();
    if let Some(srq) = srq {
        builder = builder.set_srq(srq);
    }
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    let halves = [memory.slice(..HALF), memory.slice(HALF..)];
    for id in 0..numbers.below(3) as u64 {
        match qp.post_recv_shared([RecvRequest::shared(id, &halves[1..])]) {
            Ok(()) | Err(Error::NoReceiveQueue) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let remote = memory.remote();
    let (there, back) = (remote.slice(HALF as u64..), remote.slice(..HALF as u64));
    let mut batch = qp.start_shared();
    for id in 0..1 + numbers.below(6) as u64 {
        let op = batch.op().signaled();
        match numbers.below(3) {
            0 => op.send(id, &[halves[0]]),
            1 => op.write(id, &[halves[0]], there),
            _ => op.read(id, &[halves[1]], back),
        }
    }
    match numbers.below(5) {
        0 => forget(batch),
        1 => drop(batch),
        _ => batch.submit().unwrap(),
    }
    if numbers.below(3) == 0 {
        let mut batch = qp.start_send();
        batch.op().send(9, Payload::EMPTY);
        forget(batch);
    }
    qp
}

/// Makes a datagram queue pair that sends to itself, along a handle that is dropped at some time.
fn datagrams(
    numbers: &mut Numbers,
    pd: &ProtectionDomain,
    [send_cq, recv_cq]: [&CompletionQueue; 2],
    memory: &SharedRegion,
) -> Vec<Box<dyn Any>> {
    let prepared = pd.create_qp::<Ud>(send_cq, recv_cq, PORT).unwrap().build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let ah = pd.create_ah(&prepared.address_of(&endpoint).unwrap()).unwrap();
    let mut qp: QueuePair<Ud> = prepared.activate(QKEY).unwrap();
    for id in 0..2 {
        qp.post_recv_shared([RecvRequest::shared(id, &[memory.slice(..HALF)])]).unwrap();
    }
    let mut batch = qp.start_shared();
    for id in 0..1 + numbers.below(3) as u64 {
        batch
            .to(&ah, endpoint.qp_num(), QKEY)
            .signaled()
            .send(id, &[memory.slice(HALF..HALF + 512)]);
    }
    batch.submit().unwrap();
    vec![Box::new(qp), Box::new(ah)]
}

/// Makes everything in a context, and lets some of it go. What it returns is to be dropped.
fn live(numbers: &mut Numbers, ctx: Context, windows: bool) -> Vec<Box<dyn Any>> {
    let pd = ctx.alloc_pd().unwrap();
    let channel = ctx.create_comp_channel().unwrap();
    let one = ctx.create_cq(32).set_comp_channel(&channel).build().unwrap();
    let two = ctx.create_cq(32).set_private_channel().build().unwrap();
    let srq = pd.create_srq(4).build().unwrap();
    let mut memory = pd.allocate_shared(2 * LEN, AccessFlags::PERMISSIVE).unwrap();
    let rest = memory.split_off(LEN);
    srq.post_recv_shared([RecvRequest::shared(1, &[memory.slice(..)])]).unwrap();
    one.req_notify(false).unwrap();
    let mut objects = datagrams(numbers, &pd, [&two, &one], &rest);
    for _ in 0..2 {
        let with = (numbers.below(2) == 0).then_some(&srq);
        let queues = [[&one, &two], [&two, &two]][numbers.below(2)];
        objects.push(Box::new(connected(numbers, &pd, queues, with, &memory)));
    }
    if windows {
        objects.push(Box::new(pd.alloc_window::<WindowType2>().unwrap()));
    }
    let raw = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    objects.extend([Box::new(memory) as Box<dyn Any>, Box::new(rest), Box::new(raw)]);
    objects.extend([Box::new(pd) as Box<dyn Any>, Box::new(ctx), Box::new(srq), Box::new(channel)]);
    // Some of it goes while a poll is open; queue pairs wait for its end, or for that of their queue if it is forgotten.
    {
        let mut completions = two.poll().unwrap();
        for _ in 0..numbers.below(4) {
            drop(objects.swap_remove(numbers.below(objects.len())));
        }
        if let Some(completions) = &mut completions {
            completions.next();
        }
        if numbers.below(2) == 0 {
            forget(completions);
        }
    }
    objects.extend([Box::new(one) as Box<dyn Any>, Box::new(two)]);
    objects
}

#[test]
fn everything_can_be_dropped_in_any_order_with_work_in_flight() {
    choose_provider();
    let nothing = open_device_files();
    let keeper = test_context();
    let windows = Bed::on(keeper.clone()).can(Ability::WindowsOfType2);
    let before = open_device_files();
    assert!(before > nothing, "an open device is an open file");
    let mut numbers = Numbers::seeded(7);
    for round in 0..if is_soft() { 400 } else { 60 } {
        // Of a context of its own, and of one that stays.
        let ctx = if round % 2 == 0 { test_context() } else { keeper.clone() };
        let objects = live(&mut numbers, ctx, windows);
        numbers.drop_all(objects);
        assert_eq!(open_device_files(), before, "round {round}");
    }
    match kernel_objects() {
        Some(found) => assert_eq!(found, [""; 0], "the kernel still has objects"),
        None => {
            eprintln!("not compared with the kernel's: it has none, or there is no `rdma` program")
        }
    }
    keeper.close().expect("nothing uses the context any more");
    assert_eq!(open_device_files(), nothing);
}
