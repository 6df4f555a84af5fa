//! Awaiting completions on tokio.

use std::future::Future;
use std::time::Duration;

use ibverbs::{AsyncCompletionQueue, Completions, Error, QueuePair, Rc, RecvRequest};
use ibverbs_tests::{
    pattern, post_recv, submit, test_context, wait_one, Ability, Bed, Mem, DEADLINE, PORT,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Long enough to be sure that nothing happens.
const SILENCE: Duration = Duration::from_millis(50);

/// A runtime with several threads.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs the future in a runtime of one thread, or of several; fails if it takes too long.
fn run<T>(threads: bool, future: impl Future<Output = T>) -> T {
    let runtime = match threads {
        true => runtime(),
        false => Builder::new_current_thread().enable_all().build().unwrap(),
    };
    runtime.block_on(async { timeout(DEADLINE, future).await.expect("it did not end in time") })
}

/// A queue pair that is connected to itself, with one queue for everything.
fn loopback(bed: &Bed) -> (QueuePair<Rc>, AsyncCompletionQueue) {
    let cq = bed.ctx().create_cq(64).build_async().unwrap();
    let builder = bed.pd().create_qp::<Rc>(cq.queue(), cq.queue(), PORT).unwrap();
    let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let endpoint = qp.endpoint().unwrap();
    (qp.handshake(endpoint).unwrap(), cq)
}

/// Posts a signaled write of no bytes: the shortest way to a completion.
#[track_caller]
fn complete(qp: &mut QueuePair<Rc>, mem: &Mem, wr_id: u64) {
    let remote = mem.remote();
    submit(qp, |batch| batch.op().signaled().write(wr_id, &[mem.slice(..0)], remote)).unwrap();
}

/// The identifiers in a poll.
fn ids(mut completions: Completions<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(wc) = completions.next() {
        wc.ok().unwrap();
        found.push(wc.wr_id());
    }
    found
}

/// Awaits so many completions.
async fn collect(cq: &mut AsyncCompletionQueue, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(ids(cq.completions().await.unwrap()));
    }
    found
}

#[test]
fn completions_are_awaited() {
    let bed = Bed::new();
    for threads in [false, true] {
        run(threads, async {
            let (mut qp, mut cq) = loopback(&bed);
            let mem = bed.mem(8);
            for round in 0..20 {
                (0..=round % 3).for_each(|n| complete(&mut qp, &mem, 10 * round + n));
                let found = collect(&mut cq, round as usize % 3 + 1).await;
                assert!(found.into_iter().eq(10 * round..=10 * round + round % 3));
            }
        });
    }
}

#[test]
fn nothing_is_ready_while_nothing_completes() {
    let bed = Bed::new();
    run(true, async {
        let (mut qp, mut cq) = loopback(&bed);
        let mem = bed.mem(8);
        for wr_id in 0..3 {
            assert!(timeout(SILENCE, cq.completions()).await.is_err());
            complete(&mut qp, &mem, wr_id);
            assert_eq!(collect(&mut cq, 1).await, [wr_id]);
        }
    });
}

#[test]
fn a_future_that_is_dropped_loses_nothing() {
    const COUNT: u64 = 100;
    let bed = Bed::new();
    run(true, async {
        let (mut qp, mut cq) = loopback(&bed);
        let mem = bed.mem(8);
        let (mut found, mut cancelled) = (Vec::new(), 0);
        for wr_id in 0..COUNT {
            complete(&mut qp, &mem, wr_id);
            // Cancelled at all sorts of moments: before it was polled, while it waits, when it is woken.
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_micros(wr_id * 37 % 1500)) => cancelled += 1,
                completions = cq.completions() => found.extend(ids(completions.unwrap())),
            }
            drop(cq.completions());
        }
        let rest = COUNT as usize - found.len();
        found.extend(collect(&mut cq, rest).await);
        assert!(found.into_iter().eq(0..COUNT), "{cancelled} cancelled");
        assert!(timeout(SILENCE, cq.completions()).await.is_err());
    });
}

#[test]
fn completions_that_are_left_in_the_poll_are_there_the_next_time() {
    let bed = Bed::new();
    run(false, async {
        let (mut qp, mut cq) = loopback(&bed);
        let mem = bed.mem(8);
        (0..10).for_each(|wr_id| complete(&mut qp, &mem, wr_id));
        for expected in 0..10 {
            let mut completions = cq.completions().await.unwrap();
            assert_eq!(completions.next().map(|wc| wc.wr_id()), Some(expected));
        }
        assert!(timeout(SILENCE, cq.completions()).await.is_err());
    });
}

#[test]
fn polling_beside_it_loses_no_wake_up() {
    let bed = Bed::new();
    run(true, async {
        let (mut qp, mut cq) = loopback(&bed);
        let mem = bed.mem(8);
        for wr_id in 0..20 {
            // Armed, and then emptied by somebody else: an event is left over.
            assert!(timeout(Duration::from_micros(1), cq.completions()).await.is_err());
            complete(&mut qp, &mem, 100);
            wait_one(cq.queue(), 100).ok.unwrap();
            complete(&mut qp, &mem, wr_id);
            assert_eq!(collect(&mut cq, 1).await, [wr_id]);
        }
    });
}

#[test]
fn a_task_that_owns_one_runs_on_any_thread() {
    const COUNT: u64 = 50;
    let bed = Bed::new();
    run(true, async {
        // Two tasks that answer each other.
        let (client, mut server) = connected(&bed);
        let (calls, requests) = (bed.mem(128), bed.mem(128));
        for half in [0, 1] {
            receive(&mut server.0, &requests, half);
        }
        let server = tokio::spawn(serve(server, requests, COUNT));
        let client = tokio::spawn(call(client, calls, COUNT));
        client.await.unwrap();
        server.await.unwrap();
    });
}

type End = (QueuePair<Rc>, AsyncCompletionQueue);

/// Two queue pairs that are connected to each other, with a queue each.
fn connected(bed: &Bed) -> (End, End) {
    let prepare = || {
        let cq = bed.ctx().create_cq(64).build_async().unwrap();
        let builder = bed.pd().create_qp::<Rc>(cq.queue(), cq.queue(), PORT).unwrap();
        let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
        (qp.endpoint().unwrap(), qp, cq)
    };
    let ((a_endpoint, a, a_cq), (b_endpoint, b, b_cq)) = (prepare(), prepare());
    ((a.handshake(b_endpoint).unwrap(), a_cq), (b.handshake(a_endpoint).unwrap(), b_cq))
}

const SEND: u64 = 2;

/// Posts a receive into one half of the memory, which is its identifier.
#[track_caller]
fn receive(qp: &mut QueuePair<Rc>, mem: &Mem, half: u64) {
    let slice = [mem.slice(64 * half as usize..64 * (half as usize + 1))];
    post_recv(qp, [RecvRequest::new(half, &slice)]).unwrap();
}

/// Sends back what it receives, in turns into both halves of the memory.
async fn serve((mut qp, mut cq): End, mem: Mem, count: u64) {
    let (mut received, mut sent) = (0, 0);
    while sent < count {
        for wr_id in collect(&mut cq, 1).await {
            if wr_id == SEND {
                receive(&mut qp, &mem, sent % 2);
                sent += 1;
            } else {
                assert_eq!(wr_id, received % 2);
                let slice = [mem.slice(64 * wr_id as usize..64 * (wr_id as usize + 1))];
                submit(&mut qp, |batch| batch.op().signaled().send(SEND, &slice)).unwrap();
                received += 1;
            }
        }
        // On to another thread, perhaps.
        tokio::task::yield_now().await;
    }
}

/// Sends from one half of the memory, and checks what comes back in the other.
async fn call((mut qp, mut cq): End, mem: Mem, count: u64) {
    for round in 0..count {
        let message = pattern(64, round);
        mem.write(0, &message);
        receive(&mut qp, &mem, 1);
        submit(&mut qp, |batch| batch.op().signaled().send(SEND, &[mem.slice(..64)])).unwrap();
        let mut found = collect(&mut cq, 2).await;
        found.sort_unstable();
        assert_eq!(found, [1, SEND]);
        assert!(mem.read(64..) == message, "round {round}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn many_tasks_have_queues_of_their_own() {
    let bed = Bed::new();
    run(true, async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (mut qp, mut cq) = loopback(&bed);
                let mem = bed.mem(8);
                tokio::spawn(async move {
                    for wr_id in 0..20 {
                        complete(&mut qp, &mem, wr_id);
                        assert_eq!(collect(&mut cq, 1).await, [wr_id]);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_queue_leaves_the_runtime_and_can_still_be_waited_for() {
    let bed = Bed::new();
    let (mut qp, cq) = run(true, async {
        let (qp, mut cq) = loopback(&bed);
        assert!(timeout(SILENCE, cq.completions()).await.is_err());
        (qp, cq.into_inner())
    });
    let mem = bed.mem(8);
    complete(&mut qp, &mem, 1);
    assert_eq!(ids(cq.wait(Some(DEADLINE)).unwrap().expect("no completion")), [1]);
    qp.close().unwrap();
    cq.close().unwrap();
}

#[test]
fn a_runtime_that_is_gone_is_an_error() {
    let bed = Bed::new();
    let first = runtime();
    let (_qp, mut cq) = {
        let _guard = first.enter();
        loopback(&bed)
    };
    drop(first);
    let result = runtime().block_on(async { cq.completions().await.map(drop) });
    assert!(matches!(result, Err(Error::Verb { verb: "epoll_wait", .. })), "{result:?}");
    // The queue itself is fine.
    assert!(cq.into_inner().wait(Some(SILENCE)).unwrap().is_none());
}

#[test]
fn a_queue_to_await_has_a_channel_of_its_own() {
    let ctx = test_context();
    run(false, async {
        let channel = ctx.create_comp_channel().unwrap();
        let result = ctx.create_cq(1).set_comp_channel(&channel).build_async();
        assert!(matches!(result, Err(Error::TwoCompletionChannels)), "{result:?}");
        let cq = ctx.create_cq(1).set_private_channel().set_context(7).build_async().unwrap();
        assert_eq!(cq.queue().context_value(), 7);
        assert!(format!("{cq:?}").contains("context_value: 7"), "{cq:?}");
    });
}

#[test]
fn a_forgotten_poll_is_an_error() {
    let bed = Bed::new();
    run(false, async {
        let (mut qp, mut cq) = loopback(&bed);
        complete(&mut qp, &bed.mem(8), 1);
        std::mem::forget(cq.completions().await.unwrap());
        let error = cq.completions().await.map(drop).unwrap_err();
        assert!(matches!(error, Error::PollInProgress), "{error}");
    });
}

#[test]
fn a_queue_of_solicited_completions_sleeps_through_the_others() {
    let bed = Bed::new();
    run(true, async {
        let builder = bed.ctx().create_cq(64).set_solicited_only(true);
        let mut cq = builder.build_async().unwrap();
        let sends = bed.ctx().create_cq(64).build().unwrap();
        let builder = bed.pd().create_qp::<Rc>(&sends, cq.queue(), PORT).unwrap();
        let qp = builder.set_gid_index(bed.gid_index()).set_max_inline_data(8).build().unwrap();
        let endpoint = qp.endpoint().unwrap();
        let mut qp = qp.handshake(endpoint).unwrap();
        let mem = bed.mem(8);
        let to = [mem.slice(..)];
        post_recv(&mut qp, [RecvRequest::new(1, &to), RecvRequest::new(2, &to)]).unwrap();
        let plain = async {
            submit(&mut qp, |batch| batch.op().signaled().send(3, b"plain")).unwrap();
            assert_eq!(wait_one(&sends, 3).ok, Ok(()));
            tokio::time::sleep(2 * SILENCE).await;
        };
        tokio::select! {
            // It is polled first, so that the queue is armed when the message comes.
            biased;
            found = cq.completions() => panic!("{:?} has woken it", ids(found.unwrap())),
            () = plain => {}
        }
        submit(&mut qp, |batch| batch.op().signaled().solicited().send(4, b"please")).unwrap();
        assert_eq!(wait_one(&sends, 4).ok, Ok(()));
        assert_eq!(collect(&mut cq, 2).await, [1, 2]);
    });
}

#[test]
fn an_awaited_queue_is_resized() {
    let Some(bed) = Bed::with([Ability::QueueResizing]) else { return };
    run(true, async {
        let (mut qp, mut cq) = loopback(&bed);
        let mem = bed.mem(8);
        complete(&mut qp, &mem, 1);
        cq.resize(200).unwrap();
        assert!(cq.queue().capacity() >= 200);
        complete(&mut qp, &mem, 2);
        assert_eq!(collect(&mut cq, 2).await, [1, 2]);
    });
}
