//! What programs make go wrong.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::{Link, LinkCounts};
use crate::device::Device;
use crate::driver::Tape;

/// What can be made to go wrong with an open device.
///
/// It is about the device, whoever has it open. What was set stays until it is set otherwise, or until the last context of the
/// device is closed: whoever opens it then has a device with which nothing is wrong. A handle does not keep it open.
#[derive(Clone, Debug)]
pub struct Faults(Weak<Device>);

impl Faults {
    /// The device with this place in the list, if the process has it open.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such device, or it is not open.
    pub fn of_device(index: usize) -> io::Result<Faults> {
        Ok(Faults(Arc::downgrade(&Device::opened(index)?)))
    }

    fn device(&self) -> io::Result<Arc<Device>> {
        Ok(self.0.upgrade().ok_or(Errno::NODEV)?)
    }

    /// From here on, the device's packets go through this link.
    ///
    /// # Errors
    ///
    /// Those of [`Link::check`], and `ENODEV` if the device is closed.
    pub fn set_link(&self, link: Link) -> io::Result<()> {
        link.check()?;
        Ok(self.device()?.set_link(link)?)
    }

    /// What links have done to the device's packets since it was opened.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is closed.
    pub fn link_counts(&self) -> io::Result<LinkCounts> {
        Ok(self.device()?.link_counts()?)
    }

    /// Takes the port down, as if its cable was pulled: no packet is sent or received, `ibv_query_port` says so, and every context
    /// gets the event `IBV_EVENT_PORT_ERR`. Nothing happens if it is down.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is closed, `EIO` after [`fail_device`](Self::fail_device).
    pub fn port_down(&self) -> io::Result<()> {
        Ok(self.device()?.set_port(false)?)
    }

    /// Brings the port up again: `IBV_EVENT_PORT_ACTIVE`. Nothing happens if it is up.
    ///
    /// # Errors
    ///
    /// Those of [`port_down`](Self::port_down).
    pub fn port_up(&self) -> io::Result<()> {
        Ok(self.device()?.set_port(true)?)
    }

    /// Lets the next `count` registrations of memory fail with this error number, which would have succeeded. With 0, none.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is no error number, which is from 1 to 4095, and `ENODEV` if the device is closed.
    pub fn fail_registrations(&self, count: u32, errno: i32) -> io::Result<()> {
        if !(1..=4095).contains(&errno) {
            let message = format!("the error number is {errno}, but it can be from 1 to 4095");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.device()?.fail_registrations(count, Errno::from_raw_os_error(errno))?)
    }

    /// Lets the device fail for good: every context gets the event `IBV_EVENT_DEVICE_FATAL`, all queue pairs go to the error state,
    /// where their work is flushed, and no packet is sent or received. Verbs answer `EIO`, but for those that poll, arm and
    /// destroy. A device that is opened after all its contexts were closed works again.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is closed.
    pub fn fail_device(&self) -> io::Result<()> {
        Ok(self.device()?.fail()?)
    }

    /// Captures the device's packets in this file, which is made, or made empty: in the format of libpcap, with the headers of IP
    /// and UDP.
    ///
    /// A packet is captured between the link and the network: one that the link loses is not in it, one that it doubles is twice, and one
    /// that it corrupts is so. One to the device itself is there once.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or another capture is being written to it; `ENODEV` if the device is closed.
    pub fn capture(&self, path: &Path) -> io::Result<Capture> {
        let device = self.device()?;
        // It ends if the device does not take it.
        let capture = Capture { tape: Tape::begin(path)? };
        device.capture(Arc::clone(&capture.tape))?;
        Ok(capture)
    }
}

/// A capture. It ends when this is dropped, or with [`finish`](Self::finish).
#[derive(Debug)]
pub struct Capture {
    tape: Arc<Tape>,
}

impl Capture {
    /// Ends the capture when everything of it is in the file. Returns how many packets are.
    ///
    /// # Errors
    ///
    /// If not everything could be written.
    pub fn finish(self) -> io::Result<u64> {
        self.tape.close()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Whoever wants to know has called `finish`.
        let _ = self.tape.close();
    }
}
