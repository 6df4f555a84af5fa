//! Verbs in any order, right and wrong, as far as the manual pages leave it to the library to refuse them.
//!
//! Objects are only used while they are alive, and pointers point to what they say; everything else is tried.
#![no_main]

mod create;
mod input;
mod machine;
mod memory;
mod objects;
mod post;

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Once;

use ibverbs_sys as ffi;
use libfuzzer_sys::fuzz_target;

use input::Input;
use machine::Machine;
use objects::verb;

/// A context that keeps the device open.
static HELD: AtomicPtr<ffi::ibv_context> = AtomicPtr::new(null_mut());

fuzz_target!(|input: Input| {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let options = ibverbs_soft::Options::from_env().expect("the variables are right");
        let provider = ibverbs_soft::provider(ibverbs_soft::Options { devices: 2, ..options });
        // SAFETY: the provider's functions do what their manual pages say.
        unsafe { ffi::provider::install(provider) }.expect("no verb was called before");
        // So that not every input has to start it.
        HELD.store(open(0), Ordering::Relaxed);
    });
    // A leak detector looks for it where it is read from.
    assert!(!HELD.load(Ordering::Relaxed).is_null());
    let mut machine = Machine::default();
    for call in input.start.calls().into_iter().chain(input.calls) {
        machine.carry_out(call);
    }
    machine.finish();
    assert!(memory::is_intact());
});

/// Opens the device with this place in the list.
fn open(number: usize) -> *mut ffi::ibv_context {
    let mut len = 0;
    let list = verb!(ibv_get_device_list(&mut len));
    assert!(number < len as usize);
    let place = list.wrapping_add(number);
    // SAFETY: there are more devices than `number`.
    let device = unsafe { place.read() };
    let context = verb!(ibv_open_device(device));
    verb!(ibv_free_device_list(list));
    context
}
