//! Completion channels and their events.

use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_void};
use std::io::{pipe, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use ibverbs_sys as ffi;

use crate::controls::{lock, notify, wait_for_cq, wait_until, Guard, State};
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};
use crate::{null, set_errno};

/// What the provider knows of a completion channel.
pub(crate) struct Channel {
    /// Has a byte for each event that was ever raised and not read: as with the kernel's descriptor, an
    /// event may be gone when what was readable is read.
    reader: PipeReader,
    writer: PipeWriter,
    /// The completion queues of the events.
    events: VecDeque<usize>,
    /// The queue whose event is being taken: providers count the event now, without a lock.
    taking: Option<usize>,
}

impl Channel {
    fn is_nonblocking(&self) -> bool {
        // SAFETY: the descriptor is open, and this command takes no argument (fcntl(2)).
        let flags = unsafe { libc::fcntl(self.reader.as_raw_fd(), libc::F_GETFL) };
        flags & libc::O_NONBLOCK != 0
    }

    /// The queue of the next event, or `None` if reading would have to wait.
    fn next(&mut self) -> Option<usize> {
        let event = self.events.pop_front();
        if event.is_some() || self.is_nonblocking() {
            // What it returns does not matter: the queue tells whether there is an event.
            let _ = self.reader.read(&mut [0]);
        }
        event
    }
}

/// The event that a completion queue was armed for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Armed {
    #[default]
    No,
    Solicited,
    Next,
}

/// The events of a completion queue.
#[derive(Default)]
pub(crate) struct CqEvents {
    channel: Option<usize>,
    armed: Armed,
    /// How many were read, and acknowledged.
    read: u64,
    acknowledged: u64,
}

impl CqEvents {
    pub(crate) fn on(channel: Option<usize>) -> CqEvents {
        CqEvents { channel, ..CqEvents::default() }
    }
}

impl State {
    fn channel(&mut self, address: usize) -> Option<&mut Channel> {
        match self.objects.get_mut(&address).map(|object| &mut object.data) {
            Some(Data::CompChannel(channel)) => Some(channel),
            _ => None,
        }
    }

    /// Raises the event of a completion queue in which something completed, if it is armed for it.
    pub(crate) fn raise(&mut self, cq: usize, solicited: bool) {
        let Some(data) = self.cq(cq) else { return };
        let wanted = match data.events.armed {
            Armed::No => false,
            Armed::Solicited => solicited,
            Armed::Next => true,
        };
        if !wanted {
            return;
        }
        data.events.armed = Armed::No;
        let Some(channel) = data.events.channel else { return };
        if let Some(channel) = self.channel(channel) {
            channel.events.push_back(cq);
            channel.writer.write_all(&[0]).expect("a pipe has room for some bytes");
        }
    }
}

/// Before a completion queue is freed: drops its events that nobody has read, and waits until the others are
/// acknowledged. That they never are is a violation.
pub(crate) fn settle_cq(mut state: Guard, address: usize) -> Guard {
    let channel = state.cq(address).and_then(|cq| cq.events.channel);
    if let Some(channel) = channel.and_then(|channel| state.channel(channel)) {
        channel.events.retain(|event| *event != address);
    }
    let settled = |state: &State| match state.objects.get(&address).map(|object| &object.data) {
        Some(Data::Cq(cq)) => cq.events.acknowledged == cq.events.read,
        _ => true,
    };
    let (mut state, settled) = wait_until(state, settled);
    if !settled {
        state.violation("DestroyCq: an event of the queue is not acknowledged".to_owned());
    }
    state
}

pub(crate) unsafe extern "C" fn create_comp_channel(
    context: *mut ffi::ibv_context,
) -> *mut ffi::ibv_comp_channel {
    let mut state = lock();
    let address = context as usize;
    state.call(Verb::CreateCompChannel, address);
    if !state.expect_live(Verb::CreateCompChannel, address, Kind::Context) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::CreateCompChannel) {
        return null(code);
    }
    let Ok((reader, writer)) = pipe() else { return null(libc::EMFILE) };
    let channel = ffi::ibv_comp_channel { context, fd: reader.as_raw_fd(), refcnt: 0 };
    let block = Block::new(size_of_val(&channel));
    block.write_prefix(0, &channel);
    let raw = block.ptr().cast();
    let data = Channel { reader, writer, events: VecDeque::new(), taking: None };
    state.insert(block, 0, vec![address], Data::CompChannel(data));
    raw
}

pub(crate) unsafe extern "C" fn destroy_comp_channel(channel: *mut ffi::ibv_comp_channel) -> c_int {
    let mut state = lock();
    let address = channel as usize;
    if let Err(code) = state.may_destroy(Verb::DestroyCompChannel, address, Kind::CompChannel) {
        return code;
    }
    state.remove(address);
    0
}

pub(crate) unsafe extern "C" fn get_cq_event(
    channel: *mut ffi::ibv_comp_channel,
    to_cq: *mut *mut ffi::ibv_cq,
    to_context: *mut *mut c_void,
) -> c_int {
    let fail = |code| {
        set_errno(code);
        -1
    };
    let mut state = lock();
    let address = channel as usize;
    state.call(Verb::GetCqEvent, address);
    if !state.expect_live(Verb::GetCqEvent, address, Kind::CompChannel) {
        return fail(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::GetCqEvent) {
        return fail(code);
    }
    let Some(data) = state.channel(address) else { return fail(libc::EINVAL) };
    let Some(event) = data.next() else {
        if !data.is_nonblocking() {
            state.violation("GetCqEvent: it would wait for ever".to_owned());
        }
        return fail(libc::EAGAIN);
    };
    data.taking = Some(event);
    if let Some(cq) = state.cq(event) {
        cq.events.read += 1;
    }
    if state.config.slow_events {
        // Long enough for another thread to come in between.
        drop(state);
        thread::sleep(Duration::from_millis(1));
        state = lock();
    }
    if let Some(channel) = state.channel(address) {
        channel.taking = None;
    }
    if !state.expect_live(Verb::GetCqEvent, event, Kind::Cq) {
        return fail(libc::EINVAL);
    }
    let cq: *mut ffi::ibv_cq = state.pointer(event);
    // SAFETY: the queue is alive, as was checked above.
    let context = unsafe { (*cq).cq_context };
    // SAFETY: it points to a pointer (ibv_get_cq_event(3)).
    unsafe { to_cq.write(cq) };
    // SAFETY: as above.
    unsafe { to_context.write(context) };
    0
}

pub(crate) unsafe extern "C" fn ack_cq_events(cq: *mut ffi::ibv_cq, count: c_uint) {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::AckCqEvents, address);
    if !state.expect_live(Verb::AckCqEvents, address, Kind::Cq) {
        return;
    }
    let Some(cq) = state.cq(address) else { return };
    cq.events.acknowledged += u64::from(count);
    if cq.events.acknowledged > cq.events.read {
        state.violation("AckCqEvents: more than were read".to_owned());
    }
    notify();
}

pub(crate) unsafe extern "C" fn req_notify_cq(
    cq: *mut ffi::ibv_cq,
    solicited_only: c_int,
) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::ReqNotifyCq, address);
    if !state.expect_live(Verb::ReqNotifyCq, address, Kind::Cq) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::ReqNotifyCq) {
        return code;
    }
    // As irdma does.
    let (mut state, free) = wait_for_cq(state, Verb::ReqNotifyCq, address);
    if !free {
        return libc::EDEADLK;
    }
    let Some(channel) = state.cq(address).and_then(|cq| cq.events.channel) else {
        state.violation("ReqNotifyCq: the queue has no channel".to_owned());
        return libc::EINVAL;
    };
    let late = state.config.completes_before_arming.take();
    if let Some(completion) = late {
        state.complete(address, completion);
    }
    let Some(cq) = state.cq(address) else { return libc::EINVAL };
    // What is asked for already is not taken back.
    match (cq.events.armed, solicited_only) {
        (Armed::Next, _) => {}
        (_, 0) => cq.events.armed = Armed::Next,
        _ => cq.events.armed = Armed::Solicited,
    }
    if state.channel(channel).is_some_and(|channel| channel.taking == Some(address)) {
        state.violation("ReqNotifyCq: an event of the queue is being taken".to_owned());
    }
    0
}
