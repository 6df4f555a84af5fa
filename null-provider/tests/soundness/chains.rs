//! Receives that are linked once: what their pointers lead to stays where it is.

use ibverbs::{
    AccessFlags, Error, LocalMemorySlice, QueuePair, Rc, RecvChain, RecvRequest, Result,
};
use null_provider::{Payload, Request, Verb};

use crate::common::{connected, null, parts, Parts};

fn post(qp: &mut QueuePair<Rc>, chain: &mut RecvChain) -> Result<()> {
    // SAFETY: the null provider never touches the memory of a scatter entry.
    unsafe { qp.post_chain(chain) }
}

/// What these receives look like to the provider.
fn described(receives: &[(u64, &[LocalMemorySlice])]) -> Vec<(u64, Payload)> {
    let scatter = |slices: &[LocalMemorySlice]| {
        let entries = slices.iter().map(|slice| (slice.addr(), slice.len(), slice.lkey()));
        Payload::Scatter(entries.collect())
    };
    receives.iter().map(|(wr_id, slices)| (*wr_id, scatter(slices))).collect()
}

fn seen(requests: Vec<Request>) -> Vec<(u64, Payload)> {
    requests.into_iter().map(|request| (request.wr_id, request.payload)).collect()
}

#[test]
fn a_chain_is_what_it_was_made_of_however_often_and_wherever_it_is_posted() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    let slices: Vec<_> = (0..8).map(|n| region.slice(n * 8..(n + 1) * 8)).collect();
    let receives: [(u64, &[LocalMemorySlice]); 5] =
        [(7, &slices[..2]), (8, &[]), (9, &slices[2..3]), (7, &slices[3..5]), (10, &[])];
    for len in 0..=receives.len() {
        let mut chain = RecvChain::new(
            receives[..len].iter().map(|(id, slices)| RecvRequest::new(*id, slices)),
        );
        assert_eq!((chain.len(), chain.is_empty()), (len, len == 0));
        let expected = described(&receives[..len]);
        for _ in 0..3 {
            post(&mut qp, &mut chain).unwrap();
            assert_eq!(seen(null.take_requests()), expected);
        }
        let mut moved = Box::new(chain);
        post(&mut qp, &mut moved).unwrap();
        let thread = std::thread::spawn(move || {
            let mut chains = vec![*moved];
            chains.reserve(100);
            post(&mut qp, &mut chains[0]).unwrap();
            qp
        });
        qp = thread.join().unwrap();
        assert_eq!(seen(null.take_requests()), [&expected[..], &expected[..]].concat());
    }
}

#[test]
fn the_lists_of_a_chain_are_copies() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    let mut slices = vec![region.slice(..8), region.slice(8..16)];
    let before = slices.clone();
    let mut chain = RecvChain::new([RecvRequest::new(1, &slices)]);
    slices.fill(region.slice(..1));
    drop(slices);
    post(&mut qp, &mut chain).unwrap();
    assert_eq!(seen(null.take_requests()), described(&[(1, &before)]));
}

#[test]
fn a_request_that_was_linked_before_is_linked_anew() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut requests = [1, 2, 3].map(|id| RecvRequest::new(id, &[]));
    crate::common::post(&mut qp, &mut requests[..]).unwrap();
    null.take_requests();
    // Each of them still has a pointer to the next one of its array.
    let mut chain = RecvChain::new([requests[2], requests[0]]);
    drop(Box::new(requests));
    post(&mut qp, &mut chain).unwrap();
    assert_eq!(seen(null.take_requests()), described(&[(3, &[]), (1, &[])]));
}

#[test]
fn a_chain_with_a_list_that_is_too_long_is_refused_before_the_provider_sees_it() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let three = [region.slice(..); 3];
    let mut qp = connected(&pd, &cq);
    for place in 0..3 {
        let mut requests = [RecvRequest::new(1, &three[..1]); 3];
        requests[place] = RecvRequest::new(2, &three);
        match post(&mut qp, &mut RecvChain::new(requests)) {
            Err(Error::TooManyScatterEntries { queue, entries, granted }) => {
                assert_eq!((queue, entries, granted), ("receive", 3, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    post(&mut qp, &mut RecvChain::new([])).unwrap();
    assert_eq!(null.count(Verb::PostRecv), 0);
}

#[test]
fn a_chain_that_is_taken_in_part_tells_how_much() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut chain = RecvChain::new([1, 2, 3].map(|id| RecvRequest::new(id, &[])));
    for accept in 0..3 {
        let limit = null_provider::PostLimit { accept, code: libc::ENOMEM, set_bad_wr: true };
        null.configure(|config| config.recv_limit = Some(limit));
        match post(&mut qp, &mut chain) {
            Err(Error::PostReceive { verb: "ibv_post_recv", accepted, requested: 3, .. }) => {
                assert_eq!(accepted, accept);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(null.take_requests().len(), accept);
    }
}
