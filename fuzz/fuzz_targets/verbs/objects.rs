//! The objects of a program, and what it remembers of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr::{null_mut, NonNull};
use std::rc::Rc;

use ibverbs_sys as ffi;

/// Calls a verb.
macro_rules! verb {
    ($name:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: objects are alive as long as the table has them, and structures and lists are whole.
        unsafe { ibverbs_sys::$name($($argument),*) }
    };
}
pub(crate) use verb;

pub const PORT: u8 = 1;
pub const QKEY: u32 = 0x1111_1111;

pub struct Cq {
    pub raw: *mut ffi::ibv_cq,
    /// The fields that completions have, if there is the extended interface.
    pub fields: Option<u64>,
    pub room: Rc<Room>,
}

/// Whether everything that was posted fits into a completion queue.
pub struct Room {
    entries: Cell<u32>,
    posted: Cell<u32>,
}

impl Room {
    pub fn new(entries: u32) -> Rc<Room> {
        Rc::new(Room { entries: Cell::new(entries), posted: Cell::new(0) })
    }

    pub fn resize(&self, entries: u32) {
        self.entries.set(entries.min(self.entries.get()));
    }

    pub fn post(&self) {
        self.posted.set(self.posted.get() + 1);
    }

    /// Whether it cannot have overflown.
    pub fn is_enough(&self) -> bool {
        self.posted.get() <= self.entries.get()
    }
}

pub struct Qp {
    pub raw: *mut ffi::ibv_qp,
    pub number: u32,
    pub service: ffi::ibv_qp_type,
    /// Where sends and receives complete.
    pub rooms: [Rc<Room>; 2],
    pub signal_all: bool,
    pub shared: bool,
}

impl Qp {
    pub fn context(&self) -> *mut ffi::ibv_context {
        // SAFETY: the queue pair is alive, and the field is not written.
        unsafe { (*self.raw).context }
    }

    pub fn state(&self) -> ffi::ibv_qp_state {
        let (mut attr, mut init) = (ffi::ibv_qp_attr::default(), Default::default());
        assert_eq!(verb!(ibv_query_qp(self.raw, &mut attr, 0, &mut init)), 0);
        attr.qp_state
    }
}

pub struct Mr {
    pub raw: *mut ffi::ibv_mr,
    pub addr: u64,
    pub key: u32,
}

/// Everything there is.
#[derive(Default)]
pub struct Objects {
    pub contexts: Vec<*mut ffi::ibv_context>,
    pub pds: Vec<*mut ffi::ibv_pd>,
    pub mrs: Vec<Mr>,
    pub mws: Vec<*mut ffi::ibv_mw>,
    pub channels: Vec<*mut ffi::ibv_comp_channel>,
    pub cqs: Vec<Cq>,
    pub srqs: Vec<*mut ffi::ibv_srq>,
    pub qps: Vec<Qp>,
    pub ahs: Vec<*mut ffi::ibv_ah>,
    pub requests: Requests,
}

/// The requests that have not completed.
#[derive(Default)]
pub struct Requests {
    last: u64,
    outstanding: HashMap<u64, Request>,
}

struct Request {
    /// Of which queue pair; those in shared queues are of none.
    qp: Option<u32>,
    /// Whether it must complete when its queue pair fails.
    certain: bool,
    room: Option<Rc<Room>>,
}

impl Requests {
    pub fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// So many identifiers.
    pub fn next_ids(&mut self, count: usize) -> std::ops::RangeInclusive<u64> {
        let first = self.last + 1;
        self.last += count as u64;
        first..=self.last
    }

    /// The identifier that comes after so many others.
    pub fn after(&self, count: usize) -> u64 {
        self.last + 1 + count as u64
    }

    /// A request was taken: in which of the two queues, and whether it must complete if it is not carried out.
    pub fn posted(&mut self, id: u64, qp: &Qp, queue: usize) {
        let room = &qp.rooms[queue];
        room.post();
        let request = Request { qp: Some(qp.number), certain: true, room: Some(room.clone()) };
        self.outstanding.insert(id, request);
    }

    /// A receive was put into a shared queue.
    pub fn shared(&mut self, id: u64) {
        self.outstanding.insert(id, Request { qp: None, certain: false, room: None });
    }

    /// Completions come once, and only of what was posted.
    pub fn completed(&mut self, id: u64) {
        assert!(self.outstanding.remove(&id).is_some(), "an unexpected completion of {id}");
    }

    /// Those of a queue pair may or may not complete from now on.
    pub fn doubt(&mut self, qp: u32) {
        for request in self.outstanding.values_mut().filter(|request| request.qp == Some(qp)) {
            request.certain = false;
        }
    }

    /// One that is not signaled completes with an error only.
    pub fn silent(&mut self, id: u64) {
        if let Some(request) = self.outstanding.get_mut(&id) {
            request.certain = false;
        }
    }

    /// A queue pair has failed, and everything was polled.
    pub fn assert_none_of(&self, qp: u32) {
        for (id, request) in &self.outstanding {
            let certain = request.certain && request.qp == Some(qp);
            let fits = request.room.as_ref().is_some_and(|room| room.is_enough());
            assert!(!certain || !fits, "request {id} of queue pair {qp:#x} has not completed");
        }
    }
}

/// The object at a place, counted around.
pub fn pick<T>(objects: &[T], place: u8) -> Option<&T> {
    objects.get(usize::from(place).checked_rem(objects.len())?)
}

/// Destroys the object at a place, if there is one, with the verb that does that: the object, unless it is in use.
pub fn destroy<T>(
    objects: &mut Vec<T>,
    place: u8,
    destroy: impl FnOnce(&T) -> c_int,
) -> Option<Option<T>> {
    let place = usize::from(place).checked_rem(objects.len())?;
    match destroy(&objects[place]) {
        0 => Some(Some(objects.swap_remove(place))),
        libc::EBUSY => Some(None),
        code => panic!("cannot be destroyed: {code}"),
    }
}

/// The address of an object, if it was created; else there is an error number.
pub fn created<T>(object: *mut T) -> Option<*mut T> {
    if object.is_null() {
        let errno = std::io::Error::last_os_error().raw_os_error();
        let known = [
            libc::EINVAL,
            libc::EOPNOTSUPP,
            libc::EFAULT,
            libc::ENOMEM,
            libc::EPROTONOSUPPORT,
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::EADDRNOTAVAIL,
            libc::ENOENT,
        ];
        assert!(errno.is_some_and(|errno| known.contains(&errno)), "{errno:?}");
    }
    NonNull::new(object).map(NonNull::as_ptr)
}

/// Takes the events that there are, and acknowledges them.
pub fn take_cq_event(channel: *mut ffi::ibv_comp_channel) -> bool {
    let (mut cq, mut context) = (null_mut(), null_mut());
    let taken = verb!(ibv_get_cq_event(channel, &mut cq, &mut context)) == 0;
    if taken {
        verb!(ibv_ack_cq_events(cq, 1));
    }
    taken
}

pub fn take_async_event(context: *mut ffi::ibv_context) -> bool {
    let mut event = ffi::ibv_async_event {
        element: ffi::ibv_async_event__bindgen_ty_1 { port_num: 0 },
        event_type: 0,
    };
    let taken = verb!(ibv_get_async_event(context, &mut event)) == 0;
    if taken {
        assert!(!verb!(ibv_event_type_str(event.event_type)).is_null());
        verb!(ibv_ack_async_event(&mut event));
    }
    taken
}

/// Lets reads of a descriptor fail instead of waiting.
pub fn do_not_wait(fd: c_int) {
    // SAFETY: the descriptor is open, and flags are all that is changed.
    assert_ne!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, -1);
}
