//! Asynchronous events.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use super::context::shared;
use super::cq::Cq;
use super::minus_one;
use super::object::{by_token, object};
use super::port::PORT;
use super::qp::Qp;
use super::srq::Srq;
use crate::device::{AsyncEvent, Result};
use crate::transport::QpEvent;

pub(super) unsafe extern "C" fn get_async_event(
    context: *mut ffi::ibv_context,
    event: *mut ffi::ibv_async_event,
) -> c_int {
    // SAFETY: as ibv_get_async_event(3) demands.
    minus_one(unsafe { get(context, event) })
}

/// # Safety
///
/// The device is open, and there is room for an event.
unsafe fn get(context: *mut ffi::ibv_context, to: *mut ffi::ibv_async_event) -> Result<()> {
    // SAFETY: by the caller's promise.
    let taken = unsafe { shared(context) }.async_queue.take()?;
    let mut event = ffi::ibv_async_event::default();
    match taken {
        AsyncEvent::Qp(token, kind) => {
            event.event_type = qp_event(kind);
            event.element.qp = by_token::<Qp>(token).cast();
        }
        AsyncEvent::CqError(token) => {
            event.event_type = ffi::IBV_EVENT_CQ_ERR;
            event.element.cq = by_token::<Cq>(token).cast();
        }
        AsyncEvent::SrqLimit(token) => {
            event.event_type = ffi::IBV_EVENT_SRQ_LIMIT_REACHED;
            event.element.srq = by_token::<Srq>(token);
        }
        AsyncEvent::Port { is_up } => {
            event.event_type =
                if is_up { ffi::IBV_EVENT_PORT_ACTIVE } else { ffi::IBV_EVENT_PORT_ERR };
            event.element.port_num = PORT.into();
        }
        AsyncEvent::DeviceFatal => event.event_type = ffi::IBV_EVENT_DEVICE_FATAL,
    }
    // SAFETY: by the caller's promise.
    unsafe { to.write(event) };
    Ok(())
}

fn qp_event(event: QpEvent) -> ffi::ibv_event_type {
    match event {
        QpEvent::Fatal => ffi::IBV_EVENT_QP_FATAL,
        QpEvent::RequestError => ffi::IBV_EVENT_QP_REQ_ERR,
        QpEvent::AccessError => ffi::IBV_EVENT_QP_ACCESS_ERR,
        QpEvent::CommunicationEstablished => ffi::IBV_EVENT_COMM_EST,
        QpEvent::SendQueueDrained => ffi::IBV_EVENT_SQ_DRAINED,
        QpEvent::LastRequestReached => ffi::IBV_EVENT_QP_LAST_WQE_REACHED,
    }
}

/// Destroying an object waits until its events are acknowledged: it is alive here.
pub(super) unsafe extern "C" fn ack_async_event(event: *mut ffi::ibv_async_event) {
    // SAFETY: it is an event that `get_async_event` wrote (ibv_ack_async_event(3)).
    let ffi::ibv_async_event { element, event_type } = unsafe { event.read() };
    match event_type {
        ffi::IBV_EVENT_CQ_ERR => {
            // SAFETY: this member was written for an event of this type.
            let cq = unsafe { element.cq };
            // SAFETY: the queue is alive, as said above.
            unsafe { object::<Cq>(cq.cast()) }.async_events.add(1);
        }
        ffi::IBV_EVENT_SRQ_LIMIT_REACHED => {
            // SAFETY: this member was written for an event of this type.
            let srq = unsafe { element.srq };
            // SAFETY: the queue is alive, as said above.
            unsafe { object::<Srq>(srq) }.async_events.add(1);
        }
        ffi::IBV_EVENT_DEVICE_FATAL | ffi::IBV_EVENT_PORT_ACTIVE | ffi::IBV_EVENT_PORT_ERR => {}
        // All others that are written are about queue pairs.
        _ => {
            // SAFETY: this member was written for an event of such a type.
            let qp = unsafe { element.qp };
            // SAFETY: the queue pair is alive, as said above.
            unsafe { object::<Qp>(qp.cast()) }.async_events.add(1);
        }
    }
}
