//! The lock of a device, which nobody holds while packets are sent or received.
//!
//! Whoever gives it back sends what has been made under it. Only one at a time does so, so that packets stay in order: what others
//! make meanwhile is sent by that one, too. In the same way, one at a time receives.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::io::Errno;

use super::engine::{Engine, Turn, Wait, LOOKS_PER_CALL};
use super::{Datagram, Report, Socket, Wake};
use crate::device::Parts;

/// How often who gives the lock back sends what others have made meanwhile.
const SENDS_PER_CALL: usize = 4;

/// A device's engine, what it sends and receives with, and what wakes its thread.
pub(crate) struct Driver {
    engine: Mutex<Engine>,
    socket: Arc<Socket>,
    wake: Arc<Wake>,
}

impl Driver {
    pub(crate) fn new(engine: Engine, wake: Wake) -> Driver {
        let socket = Arc::clone(engine.socket());
        Driver { engine: Mutex::new(engine), socket, wake: Arc::new(wake) }
    }

    pub(crate) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { driver: self, engine: Some(self.engine()) }
    }

    /// Nothing if somebody has the lock.
    ///
    /// # Errors
    ///
    /// If somebody has panicked who had it.
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>, PoisonError<()>> {
        match self.engine.try_lock() {
            Ok(engine) => Ok(Some(Locked { driver: self, engine: Some(engine) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(PoisonError::new(())),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine, locked.
pub(crate) struct Locked<'d> {
    driver: &'d Driver,
    /// Always there, but while packets are sent or received.
    engine: Option<MutexGuard<'d, Engine>>,
}

impl Deref for Locked<'_> {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        self.engine.as_deref().expect(LOCKED)
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Engine {
        self.engine.as_deref_mut().expect(LOCKED)
    }
}

const LOCKED: &str = "the engine is locked";

impl Locked<'_> {
    /// Does something without the lock.
    fn unlocked<R>(&mut self, what: impl FnOnce(&Socket) -> R) -> R {
        let wakes = self.take_wake_up();
        self.engine = None;
        if wakes {
            self.driver.wake.wake();
        }
        let result = what(&self.driver.socket);
        self.engine = Some(self.driver.engine());
        result
    }

    /// Sends what there is, unless somebody does so. If others make more and more, it is for the engine's thread.
    fn send(&mut self) {
        self.send_by(Socket::send);
    }

    /// The same, by what takes datagrams out of the queue that it can send.
    fn send_by(
        &mut self,
        mut send: impl FnMut(&Socket, &mut VecDeque<Datagram>, &mut Report) -> Result<(), Errno>,
    ) {
        for _ in 0..SENDS_PER_CALL {
            let Some(mut datagrams) = self.begin_sending() else { return };
            let mut report = Report::default();
            let sent = self.unlocked(|socket| send(socket, &mut datagrams, &mut report));
            self.end_sending(datagrams, report);
            if sent.is_err() {
                return;
            }
        }
        self.leave_sending();
    }

    /// Receives, unless somebody does so; returns how many datagrams there were.
    fn receive(&mut self) -> usize {
        let Some(mut receiver) = self.begin_receiving() else { return 0 };
        let (listeners, unread) = (self.listeners(), self.wants_unread());
        let count = self.unlocked(|socket| receiver.receive(socket, &listeners, unread));
        self.end_receiving(receiver);
        count
    }

    /// Sends what has waited, then receives and answers, until there is nothing more on the socket or `is_enough`.
    pub(crate) fn look(&mut self, mut is_enough: impl FnMut(&mut Parts) -> bool) {
        self.begin_look();
        for _ in 0..LOOKS_PER_CALL {
            if is_enough(&mut self.parts) {
                break;
            }
            self.send();
            if self.receive() == 0 {
                break;
            }
            self.note_find();
        }
        let now = self.parts.now();
        self.settle(now);
    }

    /// What the engine's thread does when it is awake: everything that is due. Returns what it waits for then, or nothing if it ends.
    pub(super) fn turn(&mut self) -> Option<Wait> {
        let Turn { listens, ends } = self.begin_turn();
        let listens = listens && self.can_receive();
        if listens {
            self.receive();
        }
        let now = self.parts.now();
        self.make_rest(now);
        if ends {
            self.leave_early();
        }
        self.send();
        if ends {
            return None;
        }
        Some(self.end_turn(listens))
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // It is not there if sending or receiving has panicked. (If something else has, all goes on.)
        if self.engine.is_none() {
            return;
        }
        self.send();
        if self.take_wake_up() {
            self.engine = None;
            self.driver.wake.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Instant;

    use super::*;
    use crate::cm::{Context, Dreq, Message};
    use crate::driver::Cm;
    use crate::options::Loopback;
    use crate::wire::test_packets::path;

    /// Makes something that is to be sent: the answer to a peer's message about a connection that there is not.
    fn make(engine: &mut Engine) {
        let from_peer = path("127.0.0.255", &engine.socket().addr().to_string());
        let end = Message::Dreq(Dreq { local_id: 1, remote_id: 2, remote_qpn: 3 });
        let bytes = end.emit(Context::default());
        engine.cm.manager.handle_message(Instant::now(), &from_peer, &*bytes);
        engine.move_packets();
    }

    fn driver() -> Driver {
        let (socket, cm) = (Socket::bind_anywhere(), Cm::new(0, 7));
        let engine = Engine::new(socket, Ipv6Addr::LOCALHOST, Loopback::Wire, cm).unwrap();
        Driver::new(engine, Wake::new().unwrap())
    }

    #[test]
    fn who_gives_the_lock_back_sends_a_few_times_and_leaves_the_rest_to_the_thread() {
        let driver = driver();
        let mut engine = driver.lock();
        make(&mut engine);
        let mut times = 0;
        engine.send_by(|_, datagrams, _| {
            assert_eq!(datagrams.len(), 1);
            datagrams.clear();
            // Somebody else has the lock meanwhile.
            make(&mut driver.engine());
            times += 1;
            assert!(times <= SENDS_PER_CALL, "it goes on sending what others make");
            Ok(())
        });
        assert_eq!(times, SENDS_PER_CALL);
        assert!(!engine.has_sent());
        assert!(engine.take_wake_up(), "nobody sends the rest");
    }

    #[test]
    fn who_has_sent_everything_wakes_nobody() {
        let driver = driver();
        let mut engine = driver.lock();
        make(&mut engine);
        engine.send();
        assert!(engine.has_sent());
        assert!(!engine.take_wake_up());
    }
}
