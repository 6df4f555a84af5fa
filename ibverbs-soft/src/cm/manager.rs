//! The tables of the connection manager, and time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use super::connection::{time, Connection, Facts, State, Waiting};
use super::event::{Event, Notice};
use super::message::{About, Context, Message, MessageBytes, Rej};
use super::reason;
use crate::transport::Path;

/// The encoded time in which a peer answers, after which it is asked again: half a second.
pub(super) const RESPONSE_TIMEOUT: u8 = 17;
/// The encoded time after which a peer is told again, for the first time, that a connection ends: an eighth of a second. A kernel
/// forgets the connection as soon as half a second after its answer, and does not answer any more, so that it would be told in vain.
pub(super) const END_TIMEOUT: u8 = 15;
/// How often a peer is asked again: for eight seconds and a half, together.
pub(super) const RETRIES: u8 = 15;
/// The encoded time that a program may take for its answer: more than a minute.
pub(super) const SERVICE_TIMEOUT: u8 = 24;
/// The encoded time that packets of a connection may still be on their way when it has ended: half a second.
const TIME_WAIT: u8 = 17;

/// What was asked for makes no sense in the state that a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such connection, or it is not where that is possible.
    State,
    /// It is established already.
    Established,
}

/// Names a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(usize);

/// Somebody who takes requests.
#[derive(Clone, Debug)]
pub struct Listener<O> {
    /// The service that is offered: the port space, and the port in the lower 16 bits.
    pub service_id: u64,
    /// The address at which, if not at all.
    pub addr: Option<IpAddr>,
    /// Whether those who ask with addresses of IPv4 are meant.
    pub ipv4: bool,
    /// Whether those who ask with addresses of IPv6 are meant.
    pub ipv6: bool,
    /// Whether those who ask for a connection are meant.
    pub connections: bool,
    /// Whether those who ask for a queue pair of datagrams are meant.
    pub datagrams: bool,
    /// How many requests wait until they are read; more are passed over.
    pub backlog: usize,
    /// Who is to know of requests.
    pub owner: O,
}

/// What somebody asks for. Nothing else keeps a peer from asking for the one at a service that offers the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Connection,
    Datagrams,
}

impl<O> Listener<O> {
    fn takes(&self, asked: Asked, dest: IpAddr) -> bool {
        let is_of_family = if dest.is_ipv4() { self.ipv4 } else { self.ipv6 };
        let is_meant = match asked {
            Asked::Connection => self.connections,
            Asked::Datagrams => self.datagrams,
        };
        is_of_family && is_meant && self.addr.is_none_or(|addr| addr == dest)
    }
}

/// The connection manager of one device. `O` stands for who is told what happens.
#[derive(Debug)]
pub struct Manager<O> {
    pub(super) guid: u64,
    next_id: u32,
    next_transaction: u64,
    pub(super) connections: HashMap<u32, Connection<O>>,
    /// Those that peers have asked for, by their addresses and numbers: a request may come twice.
    by_request: HashMap<(IpAddr, u32), u32>,
    listeners: Slab<Listener<O>>,
    timers: BTreeSet<(Instant, u32)>,
    outgoing: VecDeque<(Path, Box<MessageBytes>)>,
    events: VecDeque<Notice<O>>,
}

impl<O: Clone> Manager<O> {
    /// That of a device with this GUID, with nothing in it. Its numbers follow from `first`, which is to be random: packets for a
    /// dead process do not fit the one that comes after it.
    pub fn new(guid: u64, first: u64) -> Manager<O> {
        Manager {
            guid,
            next_id: first as u32,
            next_transaction: first,
            connections: HashMap::new(),
            by_request: HashMap::new(),
            listeners: Slab::new(),
            timers: BTreeSet::new(),
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes requests from now on.
    pub fn listen(&mut self, listener: Listener<O>) -> ListenerId {
        ListenerId(self.listeners.insert(listener))
    }

    /// Takes none any more. Those that were not read are still there, without an owner or with one.
    pub fn stop_listening(&mut self, id: ListenerId) {
        if self.listeners.contains(id.0) {
            self.listeners.remove(id.0);
        }
        for connection in self.connections.values_mut() {
            connection.unread_at = connection.unread_at.filter(|at| *at != id);
        }
    }

    /// Says who is to know what happens to a connection.
    pub fn set_owner(&mut self, connection: u32, owner: O) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.owner = Some(owner);
        }
    }

    /// Takes note that a request was read, so that it does not count in its listener's backlog any more.
    pub fn mark_read(&mut self, connection: u32) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.unread_at = None;
        }
    }

    /// Where a connection is.
    pub fn state(&self, connection: u32) -> Option<State> {
        self.connections.get(&connection).map(|it| it.state)
    }

    /// What the queue pair of a connection is to be told.
    pub fn facts(&self, connection: u32) -> Option<&Facts> {
        self.connections.get(&connection).map(|it| &it.facts)
    }

    /// The next message that is to be sent.
    pub fn poll_transmit(&mut self) -> Option<(Path, Box<MessageBytes>)> {
        self.outgoing.pop_front()
    }

    /// Whether there is a message to be sent.
    pub fn has_transmit(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The next thing that somebody is to know.
    pub fn poll_event(&mut self) -> Option<Notice<O>> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Manager::handle_timeout) is to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(_, id)) = self.timers.first().filter(|(time, _)| *time <= now) {
            self.expire(now, id);
            self.set_timer(id);
        }
    }

    fn expire(&mut self, now: Instant, id: u32) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        if let Some(waiting) = &mut it.waiting {
            if let Some(left) = waiting.left.checked_sub(1) {
                let longer = (2 * waiting.interval).min(time(RESPONSE_TIMEOUT));
                waiting.interval = waiting.interval.max(longer);
                (waiting.left, waiting.until) = (left, now + waiting.interval);
                self.outgoing.push_back((it.path, waiting.message.clone()));
                return;
            }
            it.waiting = None;
            match it.state {
                State::DreqSent => {
                    self.tell(id, Event::Disconnected { is_known: false });
                    self.wait_out(now, id);
                }
                _ => {
                    it.state = State::Closed;
                    self.tell(id, Event::Unreachable);
                }
            }
        } else {
            it.ends = None;
            it.state = State::Closed;
            match it.owner {
                Some(_) => self.tell(id, Event::TimeWaitOver),
                None => self.remove(id),
            }
        }
    }

    /// Lets a peer know what it can, at the end of the process.
    pub fn finish(&mut self, now: Instant) {
        let ids: Vec<u32> = self.connections.keys().copied().collect();
        for id in ids {
            let has_owner = self.connections.get(&id).is_some_and(|it| it.owner.is_some());
            if has_owner {
                self.destroy(now, id);
            }
        }
    }

    /// A number that no connection has.
    pub(super) fn new_id(&mut self) -> u32 {
        // Odd, so that all numbers come before one comes again.
        const STEP: u32 = 0x9e37_79b1;
        loop {
            self.next_id = self.next_id.wrapping_add(STEP);
            if self.next_id != 0 && !self.connections.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    pub(super) fn new_context(&mut self, modifier: u32) -> Context {
        self.next_transaction = self.next_transaction.wrapping_add(1);
        Context { transaction: self.next_transaction, modifier }
    }

    /// Takes in a connection, under its number.
    pub(super) fn insert(&mut self, connection: Connection<O>) {
        let id = connection.local_id;
        if matches!(connection.state, State::ReqReceived | State::SidrReceived) {
            self.by_request.insert((connection.path.dest, connection.remote_id), id);
        }
        self.connections.insert(id, connection);
        self.set_timer(id);
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, id: u32) {
        let Some(it) = self.connections.remove(&id) else { return };
        if let Some(timer) = it.timer {
            self.timers.remove(&(timer, id));
        }
        let request = (it.path.dest, it.remote_id);
        if self.by_request.get(&request) == Some(&id) {
            self.by_request.remove(&request);
        }
    }

    /// The connection that this request has begun, if it has come before.
    pub(super) fn requested_by(&self, peer: IpAddr, remote_id: u32) -> Option<u32> {
        self.by_request.get(&(peer, remote_id)).copied()
    }

    /// Whether somebody offers a service; and who takes such requests at this address.
    pub(super) fn listener(
        &self,
        asked: Asked,
        service_id: u64,
        dest: Option<IpAddr>,
    ) -> (bool, Option<(ListenerId, &Listener<O>)>) {
        let mut of_service =
            self.listeners.iter().filter(|(_, it)| it.service_id == service_id).peekable();
        let any = of_service.peek().is_some();
        let found = dest.and_then(|dest| of_service.find(|(_, it)| it.takes(asked, dest)));
        (any, found.map(|(id, it)| (ListenerId(id), it)))
    }

    /// How many requests wait to be read at a listener.
    pub(super) fn unread(&self, id: ListenerId) -> usize {
        self.connections.values().filter(|it| it.unread_at == Some(id)).count()
    }

    /// Sees to it that a connection is looked at when it wants to.
    pub(super) fn set_timer(&mut self, id: u32) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        let next = it.next_timeout();
        if it.timer == next {
            return;
        }
        if let Some(timer) = std::mem::replace(&mut it.timer, next) {
            self.timers.remove(&(timer, id));
        }
        if let Some(next) = next {
            self.timers.insert((next, id));
        }
    }

    /// Tells the owner of a connection, if it has one.
    pub(super) fn tell(&mut self, connection: u32, event: Event) {
        let owner = self.connections.get(&connection).and_then(|it| it.owner.clone());
        if let Some(owner) = owner {
            self.events.push_back(Notice { owner, connection, event });
        }
    }

    /// Tells of a request the owner of the listener.
    pub(super) fn tell_of_request(&mut self, owner: O, connection: u32, event: Event) {
        self.events.push_back(Notice { owner, connection, event });
    }

    pub(super) fn send_bytes(&mut self, path: Path, bytes: Box<MessageBytes>) {
        self.outgoing.push_back((path, bytes));
    }

    /// Sends a message that is not answered, and does so again when the peer repeats what it answers.
    pub(super) fn send(&mut self, id: u32, message: &Message) {
        if let Some(it) = self.connections.get_mut(&id) {
            let bytes = message.emit(it.context);
            it.waiting = None;
            it.answer = Some(bytes.clone());
            self.outgoing.push_back((it.path, bytes));
        }
        self.set_timer(id);
    }

    /// Sends a message until it is answered: again after this time, and if that is shorter than others, then at longer intervals.
    pub(super) fn send_and_wait(
        &mut self,
        now: Instant,
        id: u32,
        message: &Message,
        interval: Duration,
    ) {
        if let Some(it) = self.connections.get_mut(&id) {
            let bytes = message.emit(it.context);
            it.ends = None;
            it.waiting = Some(Waiting {
                message: bytes.clone(),
                until: now + interval,
                interval,
                left: RETRIES,
            });
            self.outgoing.push_back((it.path, bytes));
        }
        self.set_timer(id);
    }

    /// Sends what was answered before.
    pub(super) fn answer_again(&mut self, id: u32) {
        if let Some(it) = self.connections.get(&id) {
            if let Some(answer) = it.answer.clone() {
                self.outgoing.push_back((it.path, answer));
            }
        }
    }

    /// The connection has ended: waits until no packet of it is on its way any more.
    pub(super) fn wait_out(&mut self, now: Instant, id: u32) {
        if let Some(it) = self.connections.get_mut(&id) {
            it.state = State::TimeWait;
            it.waiting = None;
            it.ends = Some(now + time(TIME_WAIT));
        }
        self.set_timer(id);
    }

    /// The connection has come to nothing.
    pub(super) fn close(&mut self, id: u32) {
        if let Some(it) = self.connections.get_mut(&id) {
            it.state = State::Closed;
            it.waiting = None;
            it.ends = None;
        }
        self.set_timer(id);
    }

    /// Rejects a connection.
    pub(super) fn send_rejection(
        &mut self,
        id: u32,
        about: About,
        reason: u16,
        private_data: [u8; Rej::PRIVATE_DATA],
    ) {
        let Some(it) = self.connections.get(&id) else { return };
        let (local_id, remote_id) = (it.local_id, it.remote_id);
        let guid = (reason == reason::TIMEOUT).then_some(self.guid);
        let rej = Rej { local_id, remote_id, about, reason, guid, private_data };
        self.send(id, &Message::Rej(Box::new(rej)));
    }
}
