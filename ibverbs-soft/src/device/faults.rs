//! What is made to go wrong with a device.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use rustix::io::Errno;

use super::{AsyncEvent, AsyncQueue, Device, Result};
use crate::driver::Tape;
use crate::faults::{Link, LinkCounts};

impl Device {
    /// Tells this queue from now on what happens to the device and its port; `EIO` if the worst has happened.
    pub(crate) fn watch(&self, queue: &Arc<AsyncQueue>) -> Result<()> {
        self.lock()?.parts.watch(queue);
        Ok(())
    }

    pub(crate) fn set_link(&self, link: Link) -> Result<()> {
        self.lock_anyhow()?.set_link(link);
        Ok(())
    }

    pub(crate) fn link_counts(&self) -> Result<LinkCounts> {
        Ok(self.lock_anyhow()?.link_counts())
    }

    pub(crate) fn capture(&self, tape: Arc<Tape>) -> Result<()> {
        self.lock_anyhow()?.capture(tape);
        Ok(())
    }

    pub(crate) fn is_port_up(&self) -> Result<bool> {
        Ok(self.lock()?.is_port_up())
    }

    pub(crate) fn set_port(&self, is_up: bool) -> Result<()> {
        let mut engine = self.lock()?;
        if engine.set_port(is_up) {
            engine.parts.tell(AsyncEvent::Port { is_up });
        }
        Ok(())
    }

    pub(crate) fn fail_registrations(&self, count: u32, errno: Errno) -> Result<()> {
        self.lock_anyhow()?.parts.fail_registrations(count, errno);
        Ok(())
    }

    pub(crate) fn fail(&self) -> Result<()> {
        let mut engine = self.lock_anyhow()?;
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            engine.fail();
            engine.parts.tell(AsyncEvent::DeviceFatal);
        }
        Ok(())
    }
}
