//! Asynchronous events.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::io::{pipe, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

use ibverbs_sys as ffi;

use crate::controls::{lock, notify, wait_until, Guard, State};
use crate::record::{Kind, Verb};
use crate::set_errno;

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A queue pair, completion queue, shared receive queue or work queue. The event points to it, whatever it is.
    Object(*mut c_void),
    /// The number of a port, or any.
    Number(c_int),
}

// SAFETY: the pointer is handed out as it came, and never followed.
unsafe impl Send for Element {}

/// The events of a context.
pub(crate) struct Events {
    /// Has a byte for each event that was ever put into the queue and not read: as with the kernel's
    /// descriptor, an event may be gone when what was readable is read.
    reader: PipeReader,
    /// Gone when there will be no more.
    writer: Option<PipeWriter>,
    queue: VecDeque<(ffi::ibv_event_type, Element)>,
    /// Whether a thread is where mlx5 writes into its context without a lock.
    in_hook: bool,
}

impl Events {
    pub(crate) fn new() -> std::io::Result<Events> {
        let (reader, writer) = pipe()?;
        Ok(Events { reader, writer: Some(writer), queue: VecDeque::new(), in_hook: false })
    }

    pub(crate) fn fd(&self) -> c_int {
        self.reader.as_raw_fd()
    }

    pub(crate) fn raise(&mut self, event_type: ffi::ibv_event_type, element: Element) {
        self.queue.push_back((event_type, element));
        let writer = self.writer.as_mut().expect("the events were not ended");
        writer.write_all(&[0]).expect("a pipe has room for some bytes");
    }

    pub(crate) fn end(&mut self) {
        self.writer = None;
    }

    /// The next event, or `None` if reading would have to wait.
    fn next(&mut self) -> Option<(ffi::ibv_event_type, Element)> {
        let event = self.queue.pop_front();
        if event.is_some() || self.is_nonblocking() {
            // What it returns does not matter: the queue tells whether there is an event.
            let _ = self.reader.read(&mut [0]);
        }
        event
    }

    fn is_nonblocking(&self) -> bool {
        // SAFETY: the descriptor is open, and this command takes no argument (fcntl(2)).
        let flags = unsafe { libc::fcntl(self.fd(), libc::F_GETFL) };
        flags & libc::O_NONBLOCK != 0
    }
}

/// Before an object is freed: drops the events of it that nobody has read, and waits until the others are
/// acknowledged. That they never are is a violation.
pub(crate) fn settle(mut state: Guard, verb: Verb, address: usize) -> Guard {
    for events in state.all_events() {
        events.queue.retain(
            |(_, element)| !matches!(element, Element::Object(object) if object.addr() == address),
        );
    }
    let is_acknowledged = |state: &State| !state.unacknowledged.contains(&address);
    let (mut state, acknowledged) = wait_until(state, is_acknowledged);
    if !acknowledged {
        state.violation(format!("{verb:?}: an event of the object is not acknowledged"));
    }
    state
}

pub(crate) unsafe extern "C" fn get_async_event(
    context: *mut ffi::ibv_context,
    event: *mut ffi::ibv_async_event,
) -> c_int {
    let mut state = lock();
    let address = context as usize;
    state.call(Verb::GetAsyncEvent, address);
    if !state.expect_live(Verb::GetAsyncEvent, address, Kind::Context) {
        set_errno(libc::EINVAL);
        return -1;
    }
    if let Err(code) = state.failure(Verb::GetAsyncEvent) {
        set_errno(code);
        return -1;
    }
    let Some(events) = state.events(address) else {
        set_errno(libc::EBADF);
        return -1;
    };
    let Some((event_type, element)) = events.next() else {
        let mut code = libc::EAGAIN;
        if !events.is_nonblocking() {
            state.violation("GetAsyncEvent: it would wait for ever".to_owned());
            code = libc::EIO;
        }
        set_errno(code);
        return -1;
    };
    // SAFETY: it points to an event (ibv_get_async_event(3)); numbers and pointers need no initialisation
    // to be written.
    let event = unsafe { &mut *event };
    event.event_type = event_type;
    match element {
        Element::Object(object) => {
            if names_object(event_type) {
                state.unacknowledged.push(object.addr());
            }
            // All pointers of the union have one size and place.
            event.element.qp = object.cast();
        }
        Element::Number(number) => event.element.port_num = number,
    }
    run_hook(state, address);
    0
}

/// Does what a provider's own `async_event` does, which libibverbs calls with each event.
fn run_hook(mut state: Guard, context: usize) {
    let is_first = |state: &mut State| {
        state.events(context).is_some_and(|events| !std::mem::replace(&mut events.in_hook, true))
    };
    if !is_first(&mut state) {
        state.violation("GetAsyncEvent: two threads at once write into the context".to_owned());
    }
    drop(state);
    std::thread::yield_now();
    if let Some(events) = lock().events(context) {
        events.in_hook = false;
    }
}

pub(crate) unsafe extern "C" fn ack_async_event(event: *mut ffi::ibv_async_event) {
    let mut state = lock();
    // SAFETY: it points to an event that `get_async_event` wrote (ibv_ack_async_event(3)).
    let event = unsafe { &mut *event };
    let mut object = 0;
    if names_object(event.event_type) {
        // SAFETY: for an event of this type, the pointer was written.
        object = unsafe { event.element.qp } as usize;
        match state.unacknowledged.iter().position(|&address| address == object) {
            Some(place) => drop(state.unacknowledged.swap_remove(place)),
            None => state.violation("AckAsyncEvent: there is no such event".to_owned()),
        }
    }
    state.call(Verb::AckAsyncEvent, object);
    if let Some(edit) = &state.config.edit_acknowledged {
        edit(event);
    }
    notify();
}

/// Whether the element of such an event is a pointer.
fn names_object(event_type: ffi::ibv_event_type) -> bool {
    matches!(
        event_type,
        ffi::IBV_EVENT_CQ_ERR
            | ffi::IBV_EVENT_QP_FATAL
            | ffi::IBV_EVENT_QP_REQ_ERR
            | ffi::IBV_EVENT_QP_ACCESS_ERR
            | ffi::IBV_EVENT_COMM_EST
            | ffi::IBV_EVENT_SQ_DRAINED
            | ffi::IBV_EVENT_PATH_MIG
            | ffi::IBV_EVENT_PATH_MIG_ERR
            | ffi::IBV_EVENT_SRQ_ERR
            | ffi::IBV_EVENT_SRQ_LIMIT_REACHED
            | ffi::IBV_EVENT_QP_LAST_WQE_REACHED
            | ffi::IBV_EVENT_WQ_FATAL
    )
}
