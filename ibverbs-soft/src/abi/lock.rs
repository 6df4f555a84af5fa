//! The lock that a program holds from one call to another: from `start_poll` to `end_poll`, from `wr_start` to `wr_complete`.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;

use rustix::io::Errno;

use crate::device::{Device, Result};

/// A lock without an owner: whoever wants it spins for a moment, and then gives way to other threads.
#[derive(Default)]
pub(super) struct SpinLock(AtomicBool);

impl SpinLock {
    /// How often it is looked at before other threads come first.
    const SPINS: u32 = 100;

    /// Takes the lock. `EIO` instead of waiting where the device is dead, for its holder may not have come along.
    pub(super) fn acquire(&self, device: &Device) -> Result<()> {
        let mut spins = 0;
        while self.0.swap(true, Ordering::Acquire) {
            while self.0.load(Ordering::Relaxed) {
                if device.is_dead() {
                    return Err(Errno::IO);
                }
                if spins < Self::SPINS {
                    spins += 1;
                    spin_loop();
                } else {
                    yield_now();
                }
            }
        }
        Ok(())
    }

    pub(super) fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}
