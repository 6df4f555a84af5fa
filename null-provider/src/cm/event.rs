//! Reading and acknowledging events.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use ibverbs_sys as ffi;

use super::call::{finish, pause, Access};
use super::channel::{Queued, Request};
use super::id::IdData;
use super::kernel::{Connection, Peer, Stage};
use super::values::{CmArgs, CmEvent};
use crate::controls::{lock, notify, wait_until, Guard, State};
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};

/// How much room for private data an event has.
const PRIVATE_DATA_LEN: usize = 256;

/// What the status becomes when librdmacm itself fails to process an event.
const FAILED: c_int = -1;

/// What counts an event that was read.
pub(crate) struct Reported {
    id: usize,
    group: Option<u32>,
}

/// The next event of a channel.
fn next(mut state: Guard, address: usize) -> Result<(Guard, Queued), (Guard, c_int)> {
    let Some(channel) = state.event_channel(address) else { return Err((state, libc::EBADF)) };
    let blocks = !channel.is_nonblocking();
    if blocks {
        channel.readers += 1;
        let arrived = |state: &State| match state.objects.get(&address).map(|found| &found.data) {
            Some(Data::EventChannel(channel)) => !channel.is_empty(),
            _ => true,
        };
        (state, _) = wait_until(state, arrived);
    }
    let Some(channel) = state.event_channel(address) else { return Err((state, libc::EBADF)) };
    if blocks {
        channel.readers -= 1;
    }
    match channel.pop() {
        Some(queued) => Ok((state, queued)),
        None if blocks => {
            state.violation("GetCmEvent: it would wait for ever".to_owned());
            Err((state, libc::EIO))
        }
        None => Err((state, libc::EAGAIN)),
    }
}

pub(super) unsafe extern "C" fn get_cm_event(
    channel: *mut ffi::rdma_event_channel,
    to: *mut *mut ffi::rdma_cm_event,
) -> c_int {
    let mut state = lock();
    let address = channel as usize;
    state.cm_call(Verb::GetCmEvent, address, CmArgs::None);
    if to.is_null() || !state.expect_live(Verb::GetCmEvent, address, Kind::EventChannel) {
        return finish(Err(libc::EINVAL));
    }
    if let Err(code) = state.failure(Verb::GetCmEvent) {
        return finish(Err(code));
    }
    loop {
        let queued = match next(state, address) {
            Ok((guard, queued)) => {
                state = guard;
                queued
            }
            Err((_, code)) => return finish(Err(code)),
        };
        let event;
        (state, event) = process(state, queued);
        if let Some(event) = event {
            // SAFETY: it is not null, and points to a pointer (rdma_get_cm_event(3)).
            unsafe { to.write(event) };
            return 0;
        }
    }
}

/// Does what librdmacm does with an event before it hands it out. `None` if it does not hand it out.
fn process(mut state: Guard, queued: Queued) -> (Guard, Option<*mut ffi::rdma_cm_event>) {
    let Queued { id: address, event, request, group } = queued;
    let Some(id) = state.cm_id(address) else { return (state, None) };
    if let Some(group) = group {
        let Some(group) = id.groups.iter_mut().find(|found| found.number == group) else {
            state.violation("GetCmEvent: the event is of a group that is gone".to_owned());
            return (state, None);
        };
        group.reported += 1;
    }
    id.reported += 1;
    let access = match event.event {
        ffi::RDMA_CM_EVENT_ADDR_RESOLVED
        | ffi::RDMA_CM_EVENT_ROUTE_RESOLVED
        | ffi::RDMA_CM_EVENT_CONNECT_RESPONSE => Access::Write,
        _ => Access::Read,
    };
    state.expect_no_qp(Verb::GetCmEvent, address);
    state.enter(Verb::GetCmEvent, address, access);
    let mut state = pause(state, Verb::GetCmEvent);
    let len = event.private_data.len();
    let block = Block::new(size_of::<ffi::rdma_cm_event>() + PRIVATE_DATA_LEN);
    let mut private_data = [0_u8; PRIVATE_DATA_LEN];
    private_data[..len].copy_from_slice(&event.private_data);
    block.write_prefix(size_of::<ffi::rdma_cm_event>(), &private_data);
    let data = match len {
        0 => std::ptr::null(),
        _ => block.ptr().wrapping_add(size_of::<ffi::rdma_cm_event>()).cast_const(),
    };
    let source = Source { address, group, request, data };
    let raw = make(&mut state, &event, source);
    state.leave(address, access);
    let Some(mut raw) = raw else {
        if let Some(id) = state.cm_id(address) {
            id.reported -= 1;
        }
        notify();
        return (state, None);
    };
    state.edit_id(raw.id as usize);
    if let Some(edit) = &state.config.cm.edit_event {
        edit(&mut raw);
    }
    block.write_prefix(0, &raw);
    let to = block.ptr().cast();
    state.insert(block, 0, Vec::new(), Data::CmEvent(Reported { id: address, group }));
    (state, Some(to))
}

/// What an event is about, and where its private data lies.
struct Source {
    address: usize,
    group: Option<u32>,
    request: Option<Request>,
    data: *const u8,
}

/// What the program sees of an event, by its type. `None` if it does not get to see it.
fn make(state: &mut State, event: &CmEvent, source: Source) -> Option<ffi::rdma_cm_event> {
    let Source { address, group, request, data } = source;
    let id = state.pointer::<ffi::rdma_cm_id>(address);
    let is_ud = state.cm_id(address)?.is_ud();
    let mut raw =
        ffi::rdma_cm_event { id, event: event.event, status: event.status, ..Default::default() };
    let len = event.private_data.len();
    let mut conn = ffi::rdma_cm_event__bindgen_ty_1::default();
    conn.conn = event.conn.raw(data, len);
    let mut datagrams = ffi::rdma_cm_event__bindgen_ty_1::default();
    datagrams.ud = ffi::rdma_ud_param {
        private_data: data.cast(),
        private_data_len: len as u8,
        ah_attr: event.datagrams.ah_attr,
        qp_num: event.datagrams.qp_num,
        qkey: event.datagrams.qkey,
    };
    let by_type = if is_ud { datagrams } else { conn };
    let mut failed = |failed: bool, becomes| {
        if failed {
            (raw.event, raw.status) = (becomes, FAILED);
        }
    };
    match event.event {
        ffi::RDMA_CM_EVENT_ADDR_RESOLVED => {
            let queried = state.query_id(address);
            let has_device = state.cm_id(address)?.known_device.is_some();
            failed(queried.is_err() || !has_device, ffi::RDMA_CM_EVENT_ADDR_ERROR);
        }
        ffi::RDMA_CM_EVENT_ROUTE_RESOLVED => {
            state.expect_device(Verb::GetCmEvent, address);
            let queried = state.query_path(address);
            failed(queried.is_err(), ffi::RDMA_CM_EVENT_ROUTE_ERROR);
        }
        ffi::RDMA_CM_EVENT_CONNECT_REQUEST => {
            raw.param = by_type;
            raw.listen_id = id;
            raw.id = accept_id(state, address, event, request?)?;
        }
        ffi::RDMA_CM_EVENT_CONNECT_RESPONSE => {
            raw.param = conn;
            state.cm_id(address)?.remote_ece = event.ece;
        }
        ffi::RDMA_CM_EVENT_REJECTED | ffi::RDMA_CM_EVENT_DISCONNECTED => raw.param = conn,
        ffi::RDMA_CM_EVENT_MULTICAST_JOIN | ffi::RDMA_CM_EVENT_MULTICAST_ERROR => {
            let mut groups = state.cm_id(address)?.groups.iter();
            let found = groups.find(|found| Some(found.number) == group)?;
            if event.event == ffi::RDMA_CM_EVENT_MULTICAST_JOIN {
                raw.param = datagrams;
                // A join that has failed becomes one whose queue pair was not attached: here there is none.
                raw.status = 0;
            }
            raw.param.ud.private_data = found.context.load(Ordering::Relaxed);
        }
        ffi::RDMA_CM_EVENT_USER => raw.param.arg = event.arg,
        ffi::RDMA_CM_EVENT_ADDRINFO_RESOLVED | ffi::RDMA_CM_EVENT_ADDRINFO_ERROR => {}
        _ => raw.param = by_type,
    }
    Some(raw)
}

/// The identifier of a connect request. `None` if librdmacm cannot learn about it, and rejects it.
fn accept_id(
    state: &mut State,
    listener: usize,
    event: &CmEvent,
    request: Request,
) -> Option<*mut ffi::rdma_cm_id> {
    let raw = state.pointer::<ffi::rdma_cm_id>(listener);
    // SAFETY: the listener is alive.
    let ffi::rdma_cm_id { channel, context, ps, qp_type, .. } = unsafe { raw.read() };
    let raw = ffi::rdma_cm_id { channel, context, ps, qp_type, ..Default::default() };
    let Request { peer, src, dst } = request;
    let id = IdData {
        stage: Stage::Connecting,
        connection: Connection::RequestReceived,
        peer,
        is_of_request: true,
        device: Some(state.device_of(src)),
        src: Some(src),
        dst: Some(dst),
        conn: event.conn,
        remote_qp_num: event.conn.qp_num,
        remote_ece: event.ece,
        ..IdData::default()
    };
    let address = state.insert_id(raw, id);
    if let Some(client) = state.client_of(address) {
        client.peer = Peer::Id(address);
    }
    if state.query_id(address).is_err() || state.query_path(address).is_err() {
        state.end_id(address);
        state.remove_id(address);
        return None;
    }
    Some(state.pointer(address))
}

pub(super) unsafe extern "C" fn ack_cm_event(event: *mut ffi::rdma_cm_event) -> c_int {
    let mut state = lock();
    let address = event as usize;
    state.cm_call(Verb::AckCmEvent, address, CmArgs::None);
    if event.is_null() || !state.expect_live(Verb::AckCmEvent, address, Kind::CmEvent) {
        return finish(Err(libc::EINVAL));
    }
    if let Err(code) = state.failure(Verb::AckCmEvent) {
        return finish(Err(code));
    }
    let Some(Data::CmEvent(Reported { id, group })) =
        state.objects.remove(&address).map(|object| object.data)
    else {
        return finish(Err(libc::EINVAL));
    };
    let Some(id) = state.cm_id(id) else {
        state.violation("AckCmEvent: the identifier of the event is gone".to_owned());
        return 0;
    };
    id.reported -= 1;
    if let Some(number) = group {
        match id.groups.iter_mut().find(|group| group.number == number) {
            Some(group) => group.reported -= 1,
            None => state.violation("AckCmEvent: the group of the event is gone".to_owned()),
        }
    }
    notify();
    0
}
