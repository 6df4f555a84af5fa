//! What every call on an identifier begins and ends with.

use std::ffi::c_int;
use std::thread;

use ibverbs_sys as ffi;

use super::values::{CmArgs, CmCall};
use crate::controls::{lock, Guard, State};
use crate::record::{Kind, Verb};
use crate::set_errno;

/// What a call does to the memory of an identifier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Nothing, until nobody else uses it.
    Wait,
}

/// How many calls use an identifier at the moment.
#[derive(Default)]
pub(super) struct InUse {
    reading: usize,
    writing: usize,
}

impl InUse {
    pub(super) fn is_idle(&self) -> bool {
        self.reading + self.writing == 0
    }
}

impl State {
    pub(super) fn cm_call(&mut self, verb: Verb, object: usize, args: CmArgs) {
        self.call(verb, object);
        self.cm.calls.push(CmCall { verb, object, args });
    }

    /// A call begins to use an identifier.
    pub(super) fn enter(&mut self, verb: Verb, address: usize, access: Access) {
        let Some(id) = self.cm_id(address) else { return };
        let races = match access {
            Access::Read => id.in_use.writing > 0,
            Access::Write => !id.in_use.is_idle(),
            Access::Wait => false,
        };
        match access {
            Access::Read => id.in_use.reading += 1,
            Access::Write => id.in_use.writing += 1,
            Access::Wait => {}
        }
        if id.dying {
            self.violation(format!("{verb:?}: the identifier is being destroyed"));
        } else if races {
            self.violation(format!(
                "{verb:?}: two threads use the identifier at once, and one of them writes into it"
            ));
        }
    }

    /// It ends to use it.
    pub(super) fn leave(&mut self, address: usize, access: Access) {
        let Some(id) = self.cm_id(address) else { return };
        match access {
            Access::Read => id.in_use.reading -= 1,
            Access::Write => id.in_use.writing -= 1,
            Access::Wait => {}
        }
    }

    /// Lets the test change what the program sees of an identifier.
    pub(super) fn edit_id(&mut self, address: usize) {
        let raw = self.pointer::<ffi::rdma_cm_id>(address);
        let Some(edit) = &self.config.cm.edit_id else { return };
        if !raw.is_null() {
            // SAFETY: the identifier is alive, and written into under the lock of the provider.
            edit(unsafe { &mut *raw });
        }
    }

    /// Whether librdmacm has a device for an identifier, in whose memory it looks without asking; if not, that
    /// is a violation.
    pub(super) fn expect_device(&mut self, verb: Verb, address: usize) -> Option<usize> {
        let device = self.cm_id(address).and_then(|id| id.known_device);
        if device.is_none() {
            self.violation(format!("{verb:?}: null pointer, the identifier has no device"));
        }
        device
    }

    /// That the program has left the members alone which tell librdmacm to do more than it is asked for.
    pub(super) fn expect_no_qp(&mut self, verb: Verb, address: usize) {
        let raw = self.pointer::<ffi::rdma_cm_id>(address);
        // SAFETY: the identifier is alive, as the caller has seen.
        if !unsafe { (*raw).qp }.is_null() {
            self.violation(format!("{verb:?}: the identifier has a queue pair"));
        }
    }
}

/// Lets other threads run while a call uses something without a lock.
pub(super) fn pause(state: Guard, verb: Verb) -> Guard {
    let during = state.config.cm.during.clone();
    drop(state);
    match during {
        Some(during) => during(verb),
        None => thread::yield_now(),
    }
    lock()
}

/// What the C function returns.
pub(super) fn finish(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => {
            set_errno(code);
            -1
        }
    }
}

/// A call on an identifier, which fails before it has done anything if it is to fail.
pub(super) fn on_id(
    verb: Verb,
    id: *mut ffi::rdma_cm_id,
    access: Access,
    args: CmArgs,
    work: impl FnOnce(&mut State) -> Result<(), c_int>,
) -> c_int {
    begun_on_id(verb, id, access, args, |state| {
        state.failure(verb)?;
        work(state)
    })
}

/// A call on an identifier that does not stop half-way because it is to fail.
pub(super) fn begun_on_id(
    verb: Verb,
    id: *mut ffi::rdma_cm_id,
    access: Access,
    args: CmArgs,
    work: impl FnOnce(&mut State) -> Result<(), c_int>,
) -> c_int {
    let address = id as usize;
    let mut state = lock();
    state.cm_call(verb, address, args);
    if !state.expect_live(verb, address, Kind::CmId) {
        return finish(Err(libc::EINVAL));
    }
    state.expect_no_qp(verb, address);
    state.enter(verb, address, access);
    let mut state = pause(state, verb);
    if !state.expect_live(verb, address, Kind::CmId) {
        return finish(Err(libc::EINVAL));
    }
    let result = work(&mut state);
    state.leave(address, access);
    if access == Access::Write {
        state.edit_id(address);
    }
    finish(result)
}
