//! A connection manager, and the programs that use it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ibverbs_soft::cm::{
    filled_up, Accept, Answer, Connect, Event, Find, Listener, ListenerId, Manager, Message,
    MessageBytes, Notice, Peer,
};
use ibverbs_soft::transport::Path;

use crate::input::{AnyPeer, Call};
use crate::record::{Record, Role};

/// More often than a message is repeated, with what comes before and after that.
const REPEATS: usize = 20;
/// Longer than it takes until a peer that does not answer is given up, and the time to wait is over.
const LONG: Duration = Duration::from_secs(60);

/// Who takes requests, under an owner of its own.
struct Listening {
    id: ListenerId,
    owner: u32,
    backlog: usize,
}

pub struct Node {
    pub manager: Manager<u32>,
    listening: Vec<Listening>,
    /// The connections, with what is known of them.
    records: BTreeMap<u32, Record>,
    /// Their numbers, in the order in which they came.
    ids: Vec<u32>,
    next_owner: u32,
}

impl Node {
    pub fn new(guid: u64, first: u64) -> Node {
        Node {
            manager: Manager::new(guid, first),
            listening: Vec::new(),
            records: BTreeMap::new(),
            ids: Vec::new(),
            next_owner: 0,
        }
    }

    /// The number of one of the connections that there are or were.
    pub fn id(&self, which: u8) -> Option<u32> {
        let which = usize::from(which).checked_rem(self.ids.len())?;
        Some(self.ids[which])
    }

    fn new_owner(&mut self) -> u32 {
        self.next_owner += 1;
        self.next_owner
    }

    fn insert(&mut self, id: u32, record: Record) {
        let before = self.records.insert(id, record);
        assert!(before.is_none(), "one number for two: {before:?}");
        self.ids.push(id);
    }

    /// Listens, as an owner that is put in.
    pub fn listen(&mut self, listener: Listener<()>) {
        let owner = self.new_owner();
        let Listener { service_id, addr, ipv4, ipv6, connections, datagrams, backlog, owner: () } =
            listener;
        let listener =
            Listener { service_id, addr, ipv4, ipv6, connections, datagrams, backlog, owner };
        let id = self.manager.listen(listener);
        self.listening.push(Listening { id, owner, backlog });
    }

    pub fn stop_listening(&mut self, which: usize) {
        let Listening { id, owner, .. } = self.listening.remove(which);
        self.manager.stop_listening(id);
        for record in self.records.values_mut() {
            record.unread_at = record.unread_at.filter(|at| *at != owner);
        }
    }

    pub fn listeners(&self) -> usize {
        self.listening.len()
    }

    pub fn connect(&mut self, now: Instant, connect: Connect) {
        let owner = self.new_owner();
        let id = self.manager.connect(now, connect, owner);
        self.insert(id, Record::new(owner, Role::Client));
    }

    pub fn find(&mut self, now: Instant, find: Find) {
        let owner = self.new_owner();
        let id = self.manager.find(now, find, owner);
        self.insert(id, Record::new(owner, Role::Asker));
    }

    pub fn call(&mut self, now: Instant, id: u32, call: Call) {
        let manager = &mut self.manager;
        let before = manager.state(id);
        let result = match call {
            Call::Accept(peer) => manager.accept(now, id, acceptance(peer)),
            Call::Confirm => manager.confirm(id),
            Call::Reject { reason } => {
                manager.reject(id, reason, filled_up(b"not today").expect("it fits"))
            }
            Call::Answer { status } => {
                let private_data = filled_up(b"here").expect("it fits");
                manager.answer(id, Answer { status, qpn: 7, qkey: 8, private_data })
            }
            Call::Disconnect => {
                manager.disconnect(now, id);
                Ok(())
            }
            Call::NoticeData => manager.notice_data(id),
            Call::MarkRead => {
                manager.mark_read(id);
                Ok(())
            }
            Call::Destroy => {
                manager.destroy(now, id);
                Ok(())
            }
        };
        let record = self.records.get_mut(&id).expect("it is known");
        record.call(call, before, result.is_ok());
    }

    /// Takes what the manager has to say after it was asked for one thing, and how many things it tells programs: at most as many
    /// messages as are expected, and events that fit.
    pub fn collect(&mut self, expected: usize) -> (Vec<(Path, Box<MessageBytes>)>, usize) {
        let mut messages = Vec::new();
        while let Some((path, bytes)) = self.manager.poll_transmit() {
            assert!(messages.len() < expected, "it goes on sending: {:?}", Message::parse(&*bytes));
            let (context, message) = Message::parse(&*bytes).expect("it is one");
            assert_eq!(message.emit(context), bytes);
            messages.push((path, bytes));
        }
        assert!(!self.manager.has_transmit());
        let mut events = 0;
        while let Some(notice) = self.manager.poll_event() {
            assert!(events < expected, "it goes on telling: {notice:?}");
            events += 1;
            self.hear(notice);
        }
        for (id, record) in &self.records {
            let state = self.manager.state(*id);
            record.check(state);
            assert_eq!(self.manager.facts(*id).is_some(), state.is_some());
        }
        (messages, events)
    }

    fn hear(&mut self, notice: Notice<u32>) {
        let Notice { owner, connection: id, event } = notice;
        let Event::Requested(requested) = event else {
            let record = self.records.get_mut(&id).expect("it is known");
            assert_eq!(record.owner, owner);
            return record.hear(&event);
        };
        let listening = self.listening.iter().find(|it| it.owner == owner);
        let backlog = listening.expect("it listens").backlog;
        let role = if requested.peer.is_some() { Role::Server } else { Role::Answerer };
        let mut record = Record::new(self.new_owner(), role);
        record.unread_at = Some(owner);
        self.manager.set_owner(id, record.owner);
        self.insert(id, record);
        let unread = self.records.values().filter(|it| it.unread_at == Some(owner)).count();
        assert!(unread <= backlog, "{unread} requests are unread, instead of {backlog}");
    }

    /// How many messages and events there may be at once when time passes: one of each connection.
    pub fn expected_of_time(&self) -> usize {
        self.ids.len()
    }

    /// Lets all times pass, while no message arrives.
    pub fn run_out(&mut self, mut now: Instant) -> Instant {
        let (start, expected) = (now, self.expected_of_time());
        let mut steps = 0;
        while let Some(due) = self.manager.next_timeout() {
            assert!(steps < REPEATS * expected, "it never ends");
            steps += 1;
            now = now.max(due);
            self.manager.handle_timeout(now);
            self.collect(expected);
        }
        assert!(now - start < LONG, "it takes {:?}", now - start);
        for (id, record) in &self.records {
            record.check_at_rest(self.manager.state(*id));
        }
        now
    }

    /// Destroys everything that there is, one by one or as at the end of the process.
    pub fn destroy_all(&mut self, now: Instant, at_once: bool) {
        if at_once {
            self.manager.finish(now);
        }
        for (id, record) in &mut self.records {
            if !record.destroyed {
                record.destroy();
                if !at_once {
                    self.manager.destroy(now, *id);
                }
            }
        }
        self.collect(self.expected_of_time());
    }
}

fn acceptance(peer: AnyPeer) -> Accept {
    let local = Peer::from(peer);
    let private_data = filled_up(b"welcome").expect("it fits");
    Accept { local, starting_psn: local.vendor_id, private_data }
}
