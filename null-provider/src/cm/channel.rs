//! Event channels.

use std::collections::VecDeque;
use std::io::{pipe, PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use ibverbs_sys as ffi;

use super::kernel::Peer;
use super::values::{CmArgs, CmEvent};
use crate::controls::{lock, notify, State};
use crate::null;
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};

/// What is known of an event channel.
pub(crate) struct EventChannel {
    /// Has a byte for each event in the queue: as with the kernel's descriptor, it is readable if and only
    /// if there are events.
    reader: PipeReader,
    writer: PipeWriter,
    queue: VecDeque<Queued>,
    /// How many threads are inside `rdma_get_cm_event`.
    pub(super) readers: usize,
}

/// An event that nobody has read.
pub(super) struct Queued {
    /// The identifier that counts it: the listener, for a connect request.
    pub(super) id: usize,
    pub(super) event: CmEvent,
    /// What a connect request comes from.
    pub(super) request: Option<Request>,
    /// The number of the multicast group that it is about.
    pub(super) group: Option<u32>,
}

/// What a connect request comes from.
pub(super) struct Request {
    pub(super) peer: Peer,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
}

impl EventChannel {
    pub(super) fn is_nonblocking(&self) -> bool {
        // SAFETY: the descriptor is open, and this command takes no argument (fcntl(2)).
        let flags = unsafe { libc::fcntl(self.reader.as_raw_fd(), libc::F_GETFL) };
        flags & libc::O_NONBLOCK != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, queued: Queued) {
        self.queue.push_back(queued);
        self.writer.write_all(&[0]).expect("a pipe has room for some bytes");
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.drain(1);
        Some(queued)
    }

    /// Takes the events out that this holds for.
    fn take(&mut self, holds: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let all = std::mem::take(&mut self.queue);
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(holds);
        self.queue = kept.into();
        self.drain(taken.len());
        taken
    }

    fn drain(&mut self, events: usize) {
        for _ in 0..events {
            self.reader.read_exact(&mut [0]).expect("there is a byte for each event");
        }
    }
}

impl State {
    pub(super) fn event_channel(&mut self, address: usize) -> Option<&mut EventChannel> {
        match self.objects.get_mut(&address).map(|object| &mut object.data) {
            Some(Data::EventChannel(channel)) => Some(channel),
            _ => None,
        }
    }

    /// Queues an event where its identifier reports.
    pub(super) fn push_event(&mut self, queued: Queued) {
        let channel = self.cm_id(queued.id).map(|id| id.channel);
        if let Some(channel) = channel.and_then(|channel| self.event_channel(channel)) {
            channel.push(queued);
            notify();
        }
    }

    /// Takes out of the queue what this holds for, of the events that nobody has read of an identifier.
    pub(super) fn take_events(
        &mut self,
        id: usize,
        holds: impl Fn(&Queued) -> bool,
    ) -> Vec<Queued> {
        let channel = self.cm_id(id).map(|id| id.channel);
        let channel = channel.and_then(|channel| self.event_channel(channel));
        channel.map_or_else(Vec::new, |channel| {
            channel.take(|queued| queued.id == id && holds(queued))
        })
    }

    /// All requests that nobody has read.
    pub(super) fn requests(&mut self) -> impl Iterator<Item = &mut Request> {
        let channels = self.objects.values_mut().filter_map(|object| match &mut object.data {
            Data::EventChannel(channel) => Some(channel),
            _ => None,
        });
        let queued = channels.flat_map(|channel| channel.queue.iter_mut());
        queued.filter_map(|queued| queued.request.as_mut())
    }
}

pub(super) unsafe extern "C" fn create_event_channel() -> *mut ffi::rdma_event_channel {
    let mut state = lock();
    state.cm_call(Verb::CreateEventChannel, 0, CmArgs::None);
    if let Err(code) = state.failure(Verb::CreateEventChannel) {
        return null(code);
    }
    let Ok((reader, writer)) = pipe() else { return null(libc::EMFILE) };
    let channel = ffi::rdma_event_channel { fd: reader.as_raw_fd() };
    let block = Block::new(size_of_val(&channel));
    block.write_prefix(0, &channel);
    let raw = block.ptr().cast();
    let data = EventChannel { reader, writer, queue: VecDeque::new(), readers: 0 };
    state.insert(block, 0, Vec::new(), Data::EventChannel(data));
    raw
}

pub(super) unsafe extern "C" fn destroy_event_channel(channel: *mut ffi::rdma_event_channel) {
    let mut state = lock();
    let address = channel as usize;
    state.cm_call(Verb::DestroyEventChannel, address, CmArgs::None);
    if !state.expect_live(Verb::DestroyEventChannel, address, Kind::EventChannel) {
        return;
    }
    if state.event_channel(address).is_some_and(|channel| channel.readers > 0) {
        state.violation("DestroyEventChannel: a thread reads an event of the channel".to_owned());
        return;
    }
    if !state.expect_unused(Verb::DestroyEventChannel, address) {
        return;
    }
    state.remove(address);
}
