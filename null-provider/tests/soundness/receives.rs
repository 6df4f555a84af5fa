//! Rule 13, and the receive side of rule 6: the caller knows which receives the device has.

use ibverbs::{AccessFlags, Error, LocalMemorySlice, RecvRequest};
use null_provider::{PostLimit, Verb};

use crate::common::{connected, null, parts, poll_all, post, Null, Parts};

/// The identifiers of the requests that the provider took.
fn taken(null: &Null) -> Vec<u64> {
    null.take_requests().iter().map(|request| request.wr_id).collect()
}

fn requests(slices: &[LocalMemorySlice]) -> [RecvRequest<'_>; 5] {
    [0, 1, 2, 3, 4].map(|wr_id| RecvRequest::new(wr_id, slices))
}

#[test]
fn a_batch_that_is_taken_in_part_tells_how_much() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let slices = [region.slice(..)];
    let mut qp = connected(&pd, &cq);
    for accept in 0..6 {
        let limit = PostLimit { accept, code: libc::ENOMEM, set_bad_wr: true };
        null.configure(|config| config.recv_limit = Some(limit));
        let result = post(&mut qp, requests(&slices));
        assert_eq!(taken(&null), (0..accept.min(5) as u64).collect::<Vec<_>>());
        if accept >= 5 {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENOMEM));
        match error {
            Error::PostReceive { accepted, requested, .. } => {
                assert_eq!((accepted, requested), (accept, 5));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_provider_that_does_not_say_which_request_it_refused_may_have_taken_all() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    // Some providers have failure codes of their own, which are no error numbers.
    for (code, expected) in [(libc::EINVAL, libc::EINVAL), (-2, libc::EIO)] {
        let limit = PostLimit { accept: 0, code, set_bad_wr: false };
        null.configure(|config| config.recv_limit = Some(limit));
        let error = post(&mut qp, requests(&[])).unwrap_err();
        assert_eq!(error.os_error(), Some(expected));
        assert!(matches!(error, Error::PostReceive { accepted: 5, requested: 5, .. }));
    }
    assert_eq!(taken(&null), []);
}

#[test]
fn too_many_scatter_entries_are_refused_before_the_provider_sees_any() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let three = [region.slice(..); 3];
    let mut qp = connected(&pd, &cq);
    for place in 0..3 {
        let mut requests = [RecvRequest::new(1, &three[..1]); 3];
        requests[place] = RecvRequest::new(2, &three);
        match post(&mut qp, &mut requests[..]) {
            Err(Error::TooManyScatterEntries { queue, entries, granted }) => {
                assert_eq!((queue, entries, granted), ("receive", 3, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(null.count(Verb::PostRecv), 0);
}

#[test]
fn no_requests_are_no_call() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    post(&mut qp, []).unwrap();
    assert_eq!(null.count(Verb::PostRecv), 0);
}

#[test]
fn requests_can_be_posted_again_in_another_order() {
    let null = null();
    null.configure(|config| config.complete_receives = true);
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut requests = requests(&[]);
    post(&mut qp, &mut requests[..]).unwrap();
    requests.reverse();
    post(&mut qp, &mut requests[1..3]).unwrap();
    post(&mut qp, vec![requests[4]]).unwrap();
    assert_eq!(taken(&null), [0, 1, 2, 3, 4, 3, 2, 0]);
    assert_eq!(poll_all(&cq), [0, 1, 2, 3, 4, 3, 2, 0]);
}

/// Shows another slice each time it is asked.
struct Fickle<'a> {
    good: [RecvRequest<'a>; 1],
    bad: [RecvRequest<'a>; 1],
    asked: bool,
}

impl<'a> AsMut<[RecvRequest<'a>]> for Fickle<'a> {
    fn as_mut(&mut self) -> &mut [RecvRequest<'a>] {
        match std::mem::replace(&mut self.asked, true) {
            false => &mut self.good,
            true => &mut self.bad,
        }
    }
}

#[test]
fn a_container_that_shows_something_else_the_second_time_is_asked_once() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let three = [region.slice(..); 3];
    let mut qp = connected(&pd, &cq);
    let good = [RecvRequest::new(1, &three[..1])];
    let bad = [RecvRequest::new(2, &three)];
    post(&mut qp, Fickle { good, bad, asked: false }).unwrap();
    assert_eq!(taken(&null), [1]);
}
