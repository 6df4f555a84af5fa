//! Receives that are linked once and posted again and again, on SoftRoCE.

use ibverbs::{
    CanReceive, Error, QueuePair, Rc, RecvChain, RecvRequest, Result, SharedReceiveQueue, Transport,
};
use ibverbs_tests::{
    assert_silent, connect, pair, pair_with, pattern, prepare, prepare_on, submit, wait_one, Bed,
    Mem, Prepared, Side,
};

/// Posts a chain whose slices are of the queue pair's own bed.
fn post<T: Transport, S: CanReceive>(
    qp: &mut QueuePair<T, S>,
    chain: &mut RecvChain,
) -> Result<()> {
    // SAFETY: in this package, slices come from a `Mem`. Its bed keeps it registered for longer than
    // the queue pair lives, and there are no references to its bytes.
    unsafe { qp.post_chain(chain) }
}

fn post_srq(srq: &SharedReceiveQueue, chain: &mut RecvChain) -> Result<()> {
    // SAFETY: as above.
    unsafe { srq.post_chain(chain) }
}

const PART: usize = 64;

/// A chain of receives with these many scatter entries each, which follow one another in the memory, each in a
/// part of its own; receive `n` has the identifier `n`.
fn chain_of(mem: &Mem, entries: &[usize]) -> RecvChain {
    let mut part = 0;
    let slices: Vec<Vec<_>> = entries
        .iter()
        .map(|&count| {
            let mut next = || {
                part += 1;
                mem.slice((part - 1) * PART..part * PART)
            };
            (0..count).map(|_| next()).collect()
        })
        .collect();
    let requests = slices.iter().zip(0..).map(|(slices, id)| RecvRequest::new(id, slices));
    // The lists are copied: they are gone when this returns.
    RecvChain::new(requests)
}

/// Sends as many messages as `entries` says, which fill the receives of its chain one by one.
#[track_caller]
fn fill(a: &mut Side, b: &Side, mem: &Mem, entries: &[usize], seed: u64) {
    let from = a.bed.mem(PART * 8);
    let mut part = 0;
    for (id, &count) in entries.iter().enumerate() {
        let data = pattern(count * PART, seed + id as u64);
        from.write(0, &data);
        let slice = from.slice(..data.len());
        submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[slice])).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, id as u64).len as usize, data.len());
        assert_eq!(mem.read(part * PART..(part + count) * PART), data);
        part += count;
    }
}

#[test]
fn a_chain_is_posted_again_and_again() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(64 * PART);
    let entries = [1, 4, 0, 2, 3, 1, 0, 4];
    let mut chain = chain_of(&mem, &entries);
    assert_eq!((chain.len(), chain.is_empty()), (8, false));
    for round in 0..40 {
        post(&mut b.qp, &mut chain).unwrap();
        fill(&mut a, &b, &mem, &entries, round * 100);
    }
    assert_silent(&b.recv_cq);
}

#[test]
fn a_chain_is_posted_before_it_was_used_up() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(64 * PART);
    let entries = [1, 2, 3];
    let mut chain = chain_of(&mem, &entries);
    for _ in 0..4 {
        post(&mut b.qp, &mut chain).unwrap();
    }
    for round in 0..4 {
        fill(&mut a, &b, &mem, &entries, round);
    }
    assert_silent(&b.recv_cq);
}

#[test]
fn an_empty_chain_posts_nothing() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let srq = bed.pd().create_srq(1).build().unwrap();
    let mem = bed.mem(PART);
    let mut empty = RecvChain::new([]);
    assert_eq!((empty.len(), empty.is_empty()), (0, true));
    for _ in 0..3 {
        post(&mut b.qp, &mut empty).unwrap();
        post_srq(&srq, &mut empty).unwrap();
    }
    post(&mut b.qp, &mut chain_of(&mem, &[1])).unwrap();
    fill(&mut a, &b, &mem, &[1], 1);
    assert_silent(&b.recv_cq);
}

#[test]
fn a_chain_with_a_list_that_is_too_long_is_refused_as_a_whole() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_recv_sge(2));
    let srq = bed.pd().create_srq(8).set_max_sge(2).build().unwrap();
    let mem = bed.mem(64 * PART);
    let granted = b.qp.capacity().max_recv_sge as usize;
    for place in 0..3 {
        let mut entries = [1; 3];
        entries[place] = granted + 1;
        let mut chain = chain_of(&mem, &entries);
        for result in [post(&mut b.qp, &mut chain), post_srq(&srq, &mut chain)] {
            let error = result.unwrap_err();
            let expected = matches!(error, Error::TooManyScatterEntries { queue: "receive", entries, .. }
                if entries == granted + 1);
            assert!(expected, "{error}");
        }
    }
    post(&mut b.qp, &mut chain_of(&mem, &[granted, 1])).unwrap();
    fill(&mut a, &b, &mem, &[granted, 1], 1);
    assert_silent(&b.recv_cq);
}

#[test]
fn a_chain_that_is_taken_in_part_tells_how_much_and_can_be_posted_again() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_recv_wr(8));
    let srq = bed.pd().create_srq(8).build().unwrap();
    let mem = bed.mem(64 * PART);
    let mut chain = chain_of(&mem, &[1; 5]);
    let mut whole = 0;
    let error = loop {
        match post(&mut b.qp, &mut chain) {
            Ok(()) => whole += 1,
            Err(error) => break error,
        }
    };
    let Error::PostReceive { accepted, requested: 5, .. } = error else { panic!("{error}") };
    assert!(accepted < 5 && whole * 5 + accepted >= 8, "{whole} and {accepted}");
    for _ in 0..whole {
        fill(&mut a, &b, &mem, &[1; 5], 1);
    }
    fill(&mut a, &b, &mem, &[1; 5][..accepted], 2);
    assert_silent(&b.recv_cq);
    post(&mut b.qp, &mut chain).unwrap();
    fill(&mut a, &b, &mem, &[1; 5], 3);

    let depth = srq.query().unwrap().max_wr as usize;
    let mut chain = chain_of(&mem, &vec![1; depth + 2]);
    let error = post_srq(&srq, &mut chain).unwrap_err();
    assert!(matches!(error, Error::PostReceive { accepted, .. } if accepted == depth), "{error}");
}

#[test]
fn a_chain_can_be_moved_between_posts_and_to_another_thread() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(64 * PART);
    let entries = [1, 3, 2];
    // The vector grows, so that the chains in it move.
    let mut chains = Vec::new();
    for _ in 0..20 {
        chains.push(chain_of(&mem, &entries));
        let chain = chains.first_mut().expect("one was pushed");
        post(&mut b.qp, chain).unwrap();
        fill(&mut a, &b, &mem, &entries, 1);
    }
    let mut boxed = Box::new(chains.swap_remove(7));
    post(&mut b.qp, &mut boxed).unwrap();
    fill(&mut a, &b, &mem, &entries, 2);
    let thread = std::thread::spawn(move || {
        let mut chain = *boxed;
        post(&mut b.qp, &mut chain).unwrap();
        // The device has its own copy of what was posted.
        drop(chain);
        b
    });
    let b = thread.join().unwrap();
    fill(&mut a, &b, &mem, &entries, 3);
    assert_silent(&b.recv_cq);
}

#[test]
fn one_chain_serves_queue_pairs_and_shared_queues() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let srq = bed.pd().create_srq(8).set_max_sge(3).build().unwrap();
    let sender = prepare(&bed, |builder| builder);
    let (mut c, d) = connect(sender, prepare_on(&bed, &srq));
    let mem = bed.mem(64 * PART);
    let entries = [2, 3];
    let mut chain = chain_of(&mem, &entries);
    for round in 0..3 {
        post(&mut b.qp, &mut chain).unwrap();
        post_srq(&srq, &mut chain).unwrap();
        fill(&mut a, &b, &mem, &entries, 2 * round);
        fill(&mut c, &d, &mem, &entries, 2 * round + 1);
    }
}

#[test]
fn a_chain_is_posted_before_the_peer_can_send() {
    let bed = Bed::new();
    let [a, b] = [(); 2].map(|()| prepare::<Rc>(&bed, |builder| builder.set_max_recv_sge(2)));
    let (of_a, of_b) = (a.qp.endpoint().unwrap(), b.qp.endpoint().unwrap());
    let mem = bed.mem(64 * PART);
    let mut chain = chain_of(&mem, &[1, 2]);
    let Prepared { qp, send_cq, recv_cq, .. } = b;
    let mut init = qp.init().unwrap();
    post(&mut init, &mut chain).unwrap();
    let mut rtr = init.ready_to_receive(of_a).unwrap();
    post(&mut rtr, &mut chain).unwrap();
    let b = Side { qp: rtr.ready_to_send().unwrap(), send_cq, recv_cq, bed: bed.clone() };
    let Prepared { qp, send_cq, recv_cq, bed } = a;
    let mut a = Side { qp: qp.handshake(of_b).unwrap(), send_cq, recv_cq, bed };
    for seed in 0..2 {
        fill(&mut a, &b, &mem, &[1, 2], seed);
    }
    assert_silent(&b.recv_cq);
}
