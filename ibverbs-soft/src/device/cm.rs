//! Where the connection manager tells programs what has happened.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::events::{Events, HasToken};
use super::{Device, Result};
use crate::cm::{Event, Manager, Requested};
use crate::driver::Locked;

/// An event, and what it is about.
#[derive(Debug)]
pub(crate) struct CmEvent {
    pub(crate) about: Arc<CmOwner>,
    pub(crate) what: Happened,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The address was resolved.
    AddrResolved,
    /// The address cannot be resolved: a negative error number.
    AddrError(i32),
    /// The route was resolved.
    RouteResolved,
    /// Somebody asks for a connection, of which `owner` is to know.
    Requested { device: usize, connection: u32, owner: Arc<CmOwner>, requested: Box<Requested> },
    /// A multicast group was joined: which of the memberships of an identifier.
    Joined(u64),
    /// Something else that has to do with a peer.
    Cm(Event),
    /// What a program has written itself: the status and the argument.
    User(i32, u64),
    /// Names were resolved.
    NamesResolved,
}

impl HasToken for CmEvent {
    fn token(&self) -> usize {
        CmOwner::token(&self.about)
    }
}

/// The queue of an event channel, with a descriptor and taking as those of completion channels.
#[derive(Debug)]
pub(crate) struct CmChannel {
    events: Events<CmEvent>,
    /// Who has it makes what he has taken known to the program.
    taking: Mutex<()>,
}

impl CmChannel {
    pub(crate) fn new() -> Result<CmChannel> {
        Ok(CmChannel { events: Events::new()?, taking: Mutex::new(()) })
    }

    pub(crate) fn as_raw_fd(&self) -> i32 {
        self.events.as_raw_fd()
    }

    /// Takes an event: blocks on the descriptor as its flags say. What belongs to it is done while the guard is there: the next event
    /// finds it done.
    pub(crate) fn take(&self) -> Result<(CmEvent, MutexGuard<'_, ()>)> {
        self.events.take_within(|| self.taking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes back the events about an owner that nobody has taken, and says how many of it were taken.
    pub(crate) fn take_back(&self, owner: &Arc<CmOwner>) -> (u32, Vec<CmEvent>) {
        self.events.take_back(CmOwner::token(owner))
    }

    /// Whether it is that of a parent of this process.
    pub(crate) fn is_dead(&self) -> bool {
        self.events.is_dead()
    }

    pub(crate) fn push(&self, event: CmEvent) {
        self.events.push(event);
    }
}

/// Who is told what happens: an identifier.
pub(crate) struct CmOwner {
    channel: Mutex<Arc<CmChannel>>,
    /// The address of the identifier; 0 until there is one.
    id: AtomicUsize,
}

impl fmt::Debug for CmOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CmOwner").field("id", &self.id).finish_non_exhaustive()
    }
}

impl CmOwner {
    pub(crate) fn new(channel: Arc<CmChannel>) -> Arc<CmOwner> {
        Arc::new(CmOwner { channel: Mutex::new(channel), id: AtomicUsize::new(0) })
    }

    fn token(this: &Arc<CmOwner>) -> usize {
        Arc::as_ptr(this) as usize
    }

    /// The identifier.
    pub(crate) fn id(&self) -> usize {
        self.id.load(Ordering::Acquire)
    }

    pub(crate) fn set_id(&self, id: usize) {
        self.id.store(id, Ordering::Release);
    }

    /// Where its events go.
    pub(crate) fn channel(&self) -> Arc<CmChannel> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<CmChannel>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, event: CmEvent) {
        self.lock().push(event);
    }

    /// Tells of a request, and says who owns it: that one's events come behind this one, wherever it is moved.
    pub(crate) fn push_request(
        self: &Arc<CmOwner>,
        device: usize,
        connection: u32,
        requested: Box<Requested>,
    ) -> Arc<CmOwner> {
        let channel = self.lock();
        let owner = CmOwner::new(Arc::clone(&channel));
        let what = Happened::Requested { device, connection, owner: Arc::clone(&owner), requested };
        channel.push(CmEvent { about: Arc::clone(self), what });
        owner
    }

    /// Takes back the event of a membership; says whether nobody had taken it.
    pub(crate) fn take_back_join(self: &Arc<CmOwner>, membership: u64) -> bool {
        let is_its = |event: &CmEvent| {
            Arc::ptr_eq(&event.about, self)
                && matches!(event.what, Happened::Joined(it) if it == membership)
        };
        !self.lock().events.take_back_those(is_its).is_empty()
    }

    /// Moves to another channel, with the events that nobody has taken, and with the owners of requests among them. Says how many
    /// were taken from the old one.
    pub(crate) fn migrate(self: &Arc<CmOwner>, to: Arc<CmChannel>) -> u32 {
        let mut channel = self.lock();
        if Arc::ptr_eq(&channel, &to) {
            return 0;
        }
        let (taken, events) = channel.take_back(self);
        for event in events {
            match &event.what {
                Happened::Requested { owner, .. } => {
                    let owner = Arc::clone(owner);
                    owner.migrate_behind(event, &to);
                }
                _ => to.push(event),
            }
        }
        *channel = to;
        taken
    }

    /// Moves the owner of a request to another channel, behind the event that tells of it. None of its events was taken: that one
    /// comes first.
    fn migrate_behind(self: &Arc<CmOwner>, request: CmEvent, to: &Arc<CmChannel>) {
        let mut channel = self.lock();
        let (_, events) = channel.take_back(self);
        to.push(request);
        for event in events {
            to.push(event);
        }
        *channel = Arc::clone(to);
    }
}

impl Device {
    /// Does something with the connection manager, and sends what there is to send then.
    pub(crate) fn with_cm<R>(
        &self,
        change: impl FnOnce(&mut Manager<Arc<CmOwner>>, Instant) -> R,
    ) -> Result<R> {
        Ok(change_cm(self.lock()?, change))
    }

    /// The same if the device has failed: for those who take away what is left, and must not be told of it any more.
    pub(crate) fn with_cm_anyhow<R>(
        &self,
        change: impl FnOnce(&mut Manager<Arc<CmOwner>>, Instant) -> R,
    ) -> Result<R> {
        Ok(change_cm(self.lock_anyhow()?, change))
    }
}

fn change_cm<R>(
    mut engine: Locked<'_>,
    change: impl FnOnce(&mut Manager<Arc<CmOwner>>, Instant) -> R,
) -> R {
    let now = engine.parts.tick();
    let result = change(&mut engine.cm.manager, now);
    engine.cm.tell();
    engine.move_packets();
    result
}
