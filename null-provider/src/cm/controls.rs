//! How tests tell librdmacm what happens, and ask it what happened.

use ibverbs_sys as ffi;

use super::channel::{Queued, Request};
use super::kernel::Peer;
use super::values::{CmCall, CmEvent, CmRequest};
use crate::controls::{lock, Controls};

fn expect_to_fit(event: &CmEvent) {
    assert!(event.private_data.len() <= usize::from(u8::MAX), "private data that fit");
}

impl Controls {
    /// Something happens to an identifier of librdmacm, and is reported on its event channel. It is not if
    /// the identifier came with a connect request and was not accepted: the kernel keeps silent then.
    ///
    /// # Panics
    ///
    /// If there is no such identifier, or it has not joined the group that the event is about, or if there are
    /// more private data than an event has room for.
    pub fn cm_event(&self, id: *mut ffi::rdma_cm_id, event: CmEvent) {
        expect_to_fit(&event);
        let mut state = lock();
        let data = state.cm_id(id as usize).expect("an identifier that is alive");
        let group = match event.event {
            ffi::RDMA_CM_EVENT_MULTICAST_JOIN | ffi::RDMA_CM_EVENT_MULTICAST_ERROR => {
                Some(data.groups.get(event.group).expect("a group that was joined").number)
            }
            _ => None,
        };
        state.happen(id as usize, event, group);
    }

    /// A connect request arrives at a listener.
    ///
    /// # Panics
    ///
    /// If there is no such identifier, or if there are more private data than an event has room for.
    pub fn cm_request(&self, listener: *mut ffi::rdma_cm_id, request: CmRequest) {
        expect_to_fit(&request.event);
        let mut state = lock();
        assert!(state.cm_id(listener as usize).is_some(), "an identifier that is alive");
        let CmRequest { mut event, src, dst } = request;
        event.event = ffi::RDMA_CM_EVENT_CONNECT_REQUEST;
        let request = Some(Request { peer: Peer::Test, src, dst });
        state.push_event(Queued { id: listener as usize, event, request, group: None });
    }

    /// How many connect requests were refused because nobody had read them when their listener was
    /// destroyed, since the last [`reset`](Self::reset).
    pub fn cm_unread_requests(&self) -> usize {
        lock().cm.unread_requests
    }

    /// The calls that reached librdmacm since the last [`reset`](Self::reset) or `take_cm_calls`, with their
    /// arguments. They are among the calls that [`take_calls`](Self::take_calls) returns, too.
    pub fn take_cm_calls(&self) -> Vec<CmCall> {
        std::mem::take(&mut lock().cm.calls)
    }

    /// Pulls out a device, as librdmacm sees it: identifiers cannot get onto it any more, and its context is
    /// closed as soon as no identifier and no list of devices refers to it.
    ///
    /// # Panics
    ///
    /// If there is no device of this number.
    pub fn remove_cm_device(&self, number: usize) {
        lock().remove_cm_device(number);
    }
}
