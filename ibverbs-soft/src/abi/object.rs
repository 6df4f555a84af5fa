//! Objects as C sees them: a pointer to a structure, with what this crate knows of it behind.

use std::mem::MaybeUninit;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::device::Result;

/// An object that C knows by a pointer to `Raw`.
///
/// # Safety
///
/// The type is `repr(C)`, and its first field is an `UnsafeCell<Raw>`: C reads and writes there whenever it likes. Everything else
/// in it may be used by several threads through shared references.
pub(super) unsafe trait Object: Sized {
    /// What C sees.
    type Raw;
}

/// The object behind a pointer of C.
///
/// # Safety
///
/// The pointer came from [`Place::fill`] for an object of this type, which is not [taken](reclaim) before the reference is
/// gone.
pub(super) unsafe fn object<'a, T: Object>(raw: *mut T::Raw) -> &'a T {
    // SAFETY: it points to a whole `T`, which is shared from now on, all by the caller's promise.
    unsafe { &*raw.cast::<T>() }
}

/// Takes an object from C, which must not use the pointer any more.
///
/// # Safety
///
/// As [`object`], and there are no references to it.
pub(super) unsafe fn reclaim<T: Object>(raw: *mut T::Raw) -> Box<T> {
    // SAFETY: the pointer came from `Box::into_raw`, by the caller's promise.
    unsafe { Box::from_raw(raw.cast::<T>()) }
}

/// Where an object will be: its address is its token before it exists.
pub(super) struct Place<T>(Box<MaybeUninit<T>>);

impl<T: Object> Place<T> {
    pub(super) fn new() -> Place<T> {
        Place(Box::new_uninit())
    }

    /// The token that stands for the object where the device tells of it.
    pub(super) fn token(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Puts the object there, and gives it to C.
    pub(super) fn fill(self, object: T) -> *mut T::Raw {
        let place = Box::into_raw(self.0).cast::<T>();
        // SAFETY: it points to memory for a `T`, which nobody else knows.
        unsafe { place.write(object) };
        place.cast()
    }
}

/// The object that has this token.
pub(super) fn by_token<T: Object>(token: usize) -> *mut T::Raw {
    token as *mut T::Raw
}

/// How many events of an object were acknowledged.
#[derive(Default)]
pub(super) struct Acknowledged {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Acknowledged {
    pub(super) fn add(&self, count: u32) {
        let mut total = locked(&self.count);
        *total = total.wrapping_add(count);
        self.changed.notify_all();
    }

    /// Waits until so many are acknowledged, as destroying does. That it may be more is the program's fault, and no reason to wait for
    /// ever.
    pub(super) fn wait(&self, taken: u32) {
        let mut total = locked(&self.count);
        while (taken.wrapping_sub(*total) as i32) > 0 {
            total = self.changed.wait(total).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Locks a mutex whose holders do not leave anything half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left to do of a destruction: in a child of the process, where the device is dead, nobody uses anything any more.
pub(super) fn unless_dead(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::IO) => Ok(()),
        result => result,
    }
}
