//! The events of identifiers, and the channels that they come on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::CmId;
use crate::error::{Error, Result};
use crate::ffi;
use crate::rdmacm::{CmEvent, EventChannel};
use crate::readiness::deadline;

impl CmId {
    /// Takes the next event of this identifier: `None` if there is none. It never waits.
    ///
    /// The event is acknowledged already (`rdma_ack_cm_event`). The identifier of a
    /// [connection request](CmEvent::take_request) gets a channel of its own; if there are no file descriptors for
    /// one, the request is rejected and the error returned.
    ///
    /// # Errors
    ///
    /// - [`Error::SharedEventChannel`] if the identifier shares its channel with others.
    /// - [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_get_cm_event")]
    #[doc(alias = "rdma_ack_cm_event")]
    pub fn poll_cm_event(&mut self) -> Result<Option<CmEvent>> {
        let event = self.own_channel()?.poll_cm_event()?;
        event.map(separate).transpose()
    }

    /// Waits for the next event of this identifier: `None` if none came within `timeout`. Without a timeout it
    /// waits for as long as it takes.
    ///
    /// # Errors
    ///
    /// Those of [`poll_cm_event`](Self::poll_cm_event).
    #[doc(alias = "rdma_get_cm_event")]
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<CmEvent>> {
        self.wait_until(deadline(timeout))
    }

    pub(in crate::rdmacm) fn wait_until(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<CmEvent>> {
        let event = self.own_channel()?.wait_until(deadline)?;
        event.map(separate).transpose()
    }

    pub(in crate::rdmacm) fn own_channel(&self) -> Result<&EventChannel> {
        if self.inner.owns_channel {
            Ok(&self.inner.channel)
        } else {
            Err(Error::SharedEventChannel)
        }
    }

    /// Moves the identifier to another channel, together with its events that were not taken yet.
    ///
    /// A loop that waits for the channel already does not learn of those: poll the channel once after this.
    ///
    /// Connection requests that wait at a listening identifier are lost, and their peers rejected when the old channel
    /// is closed: move it before it listens.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_migrate_id")]
    pub fn migrate(&mut self, channel: &EventChannel) -> Result<()> {
        self.move_to(channel.clone(), false)
    }

    /// Moves the identifier to a channel of its own, together with its events that were not taken yet, as
    /// [`migrate`](Self::migrate) does.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::create`], and [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_migrate_id")]
    pub fn migrate_to_own_channel(&mut self) -> Result<()> {
        if self.inner.owns_channel {
            return Ok(());
        }
        self.move_to(EventChannel::create()?, true)
    }

    fn move_to(&mut self, channel: EventChannel, owns_channel: bool) -> Result<()> {
        let inner = &mut *self.inner;
        if !channel.is(&inner.channel) {
            // Whoever takes the turns of two channels takes them in one order.
            let (old, new) = (inner.channel.handle().clone(), channel.handle().clone());
            let (first, second) =
                if old.as_raw() < new.as_raw() { (&old, &new) } else { (&new, &old) };
            let (_first, _second) = (first.turn(), second.turn());
            let Some(raw) = inner.raw else {
                return Err(Error::from_code("rdma_migrate_id", libc::ENODEV));
            };
            // SAFETY: the identifier and the channel are alive, and it is this thread's turn on both channels, so
            // that no event of the identifier is taken meanwhile. Each that was is acknowledged, so that this
            // does not wait.
            let code = unsafe { ffi::rdma_migrate_id(raw.as_ptr(), new.as_raw()) };
            if code != 0 {
                return Err(Error::last_os_error("rdma_migrate_id"));
            }
            inner.channel = channel;
        }
        inner.owns_channel = owns_channel;
        Ok(())
    }
}

/// Gives the identifier of a connection request a channel of its own.
fn separate(mut event: CmEvent) -> Result<CmEvent> {
    if let Some(request) = event.request_mut() {
        request.migrate_to_own_channel()?;
    }
    Ok(event)
}

/// For `epoll` and the like: the descriptor of its channel. Do not read it, but call
/// [`CmId::poll_cm_event`] until that returns `None`. It is non-blocking (`O_NONBLOCK`), and must stay so.
impl AsFd for CmId {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.channel.as_fd()
    }
}

impl AsRawFd for CmId {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
