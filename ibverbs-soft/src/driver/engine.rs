//! Queue pairs, and how packets get to and from them.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::groups::{Groups, MULTICAST_QPN};
use super::line::{Line, Queues};
use super::receive::Receiver;
use super::{Cm, Datagram, Dropped, Socket};
use crate::cm;
use crate::device::{Numbered, Owner, Parts, Result};
use crate::options::Loopback;
use crate::random::Random;
use crate::transport::{refuse, Config, Path, QueuePair, Transmit};
use crate::wire::{Bth, Packet, Service};

mod faults;
mod handover;
mod turns;

#[cfg(test)]
mod tests;

use turns::Sleep;
pub(super) use turns::{Turn, Wait, LOOKS_PER_CALL};

/// How many packets a call moves at most; the engine moves the rest.
const PACKETS_PER_CALL: usize = 256;

/// How many packets a queue pair sends before it is another's turn.
const PACKETS_PER_TURN: usize = 32;

/// A queue pair, and what is known of it.
#[derive(Debug)]
struct Slot {
    qp: QueuePair,
    /// For when it stands among the timers: not later than it wants.
    timer: Option<Instant>,
    /// Whether it stands among those that may have something to send.
    is_ready: bool,
    /// Whether it stands among those that may owe an acknowledgement.
    owes: bool,
}

/// Everything of a device that its lock protects.
pub(crate) struct Engine {
    pub(crate) parts: Parts,
    qps: Numbered<Slot, 24, 14>,
    pub(crate) cm: Cm,
    socket: Arc<Socket>,
    groups: Groups,
    /// An address that only the device itself can send to.
    link_local: IpAddr,
    loopback: Loopback,
    timers: BTreeSet<(Instant, u32)>,
    /// Queue pairs that may have something to send.
    ready: VecDeque<u32>,
    /// Queue pairs to which something has come over the wire, and which may owe an acknowledgement that can wait.
    owing: Vec<u32>,
    queues: Queues,
    /// The queue pairs that have got such packets: they need not wait with their acknowledgements.
    looped_to: Vec<u32>,
    /// What packets go through, while that makes a difference.
    line: Option<Box<Line>>,
    /// Empty polls since the engine's last turn.
    polls: u32,
    /// Looks at the socket in vain since the last that was not.
    vain_looks: u32,
    sleep: Sleep,
    /// Whether the device is about to be closed.
    stops: bool,
    /// How often the engine's thread has had a turn.
    #[cfg(test)]
    pub(crate) turns: u64,
    random: Random,
    /// Whether the engine's thread is to be woken.
    wakes: bool,
    /// Whether somebody sends.
    is_sending: bool,
    /// Whether the socket was full.
    is_stuck: bool,
    /// Room for what is sent next.
    spare: VecDeque<Datagram>,
    /// None while somebody receives.
    receiver: Option<Box<Receiver>>,
    /// Whether the engine's thread waits until somebody has received.
    wants_receiver: bool,
}

impl Engine {
    pub(crate) fn new(
        socket: Socket,
        link_local: Ipv6Addr,
        loopback: Loopback,
        cm: Cm,
    ) -> io::Result<Engine> {
        Ok(Engine {
            parts: Parts::new(),
            qps: Numbered::new(),
            cm,
            socket: Arc::new(socket),
            groups: Groups::new()?,
            link_local: link_local.into(),
            loopback,
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            owing: Vec::new(),
            queues: Queues::default(),
            looped_to: Vec::new(),
            line: None,
            polls: 0,
            vain_looks: 0,
            sleep: Sleep::No,
            stops: false,
            #[cfg(test)]
            turns: 0,
            random: Random::new(),
            wakes: false,
            is_sending: false,
            is_stuck: false,
            spare: VecDeque::new(),
            receiver: Some(Receiver::new()?),
            wants_receiver: false,
        })
    }

    pub(crate) fn dropped(&self) -> Dropped {
        self.queues.dropped
    }

    pub(crate) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// A descriptor that can be read when a packet for a multicast group is there.
    pub(crate) fn group_packets(&self) -> &Arc<OwnedFd> {
        self.groups.readable()
    }

    /// Makes a queue pair, with a number of its own.
    pub(crate) fn create_qp(&mut self, config: Config, owner: Owner) -> Result<u32> {
        // 0 and 1 are the special queue pairs of management, and all ones is for multicast.
        let is_reserved = |number| number <= 1 || number == MULTICAST_QPN;
        self.parts.check_qp(&config)?;
        let nonce = self.random.next() as u32;
        let make = |qp_num| Slot {
            qp: QueuePair::new(Config { qp_num, ..config }, nonce),
            timer: None,
            is_ready: false,
            owes: false,
        };
        let qp_num = self.qps.insert(is_reserved, make).ok_or(Errno::NOMEM)?;
        self.parts.add_qp(&Config { qp_num, ..config }, owner)?;
        Ok(qp_num)
    }

    /// Attaches a queue pair to a multicast group; once more is as once.
    pub(crate) fn attach(&mut self, qp_num: u32, group: IpAddr) -> Result<()> {
        self.qp(qp_num)?;
        self.groups.attach(qp_num, group, &self.socket)
    }

    /// Detaches a queue pair from a multicast group; `EINVAL` if it is not attached.
    pub(crate) fn detach(&mut self, qp_num: u32, group: IpAddr) -> Result<()> {
        self.groups.detach(qp_num, group)
    }

    /// Has the device in a multicast group, whatever is attached, until it leaves as often.
    pub(crate) fn join(&mut self, group: IpAddr) -> Result<()> {
        self.groups.join(group, &self.socket)
    }

    /// Undoes one `join`; `EINVAL` if there is none.
    pub(crate) fn leave(&mut self, group: IpAddr) -> Result<()> {
        self.groups.leave(group)
    }

    /// Ends a queue pair, also one that is attached to multicast groups.
    pub(crate) fn abandon_qp(&mut self, qp_num: u32) -> Result<()> {
        self.groups.detach_from_all(qp_num)?;
        self.destroy_qp(qp_num)
    }

    /// Ends a queue pair, when it has sent the acknowledgements that it owes; `EBUSY` while it is attached to a multicast group.
    pub(crate) fn destroy_qp(&mut self, qp_num: u32) -> Result<()> {
        if self.groups.has(qp_num) {
            return Err(Errno::BUSY);
        }
        self.qp(qp_num)?.hasten_acks();
        let (now, ways) = (self.parts.tick(), self.ways());
        // Also if so much waits to be sent that no more would be made.
        for _ in 0..PACKETS_PER_TURN {
            let (qp, parts) = self.qp_and_parts(qp_num)?;
            let Some(transmit) = qp.poll_transmit(now, parts) else { break };
            let way = ways.of(&transmit.path);
            self.queues.put(now, transmit, way, &mut self.line);
        }
        self.move_packets_of(qp_num);
        let slot = self.qps.remove(qp_num).ok_or(Errno::INVAL)?;
        if let Some(timer) = slot.timer {
            self.timers.remove(&(timer, qp_num));
        }
        self.parts.remove_qp(slot.qp.config())
    }

    pub(crate) fn qp(&mut self, qp_num: u32) -> Result<&mut QueuePair> {
        self.qps.get_mut(qp_num).map(|slot| &mut slot.qp).ok_or(Errno::INVAL)
    }

    /// A queue pair, and what is around it.
    pub(crate) fn qp_and_parts(&mut self, qp_num: u32) -> Result<(&mut QueuePair, &mut Parts)> {
        let slot = self.qps.get_mut(qp_num).ok_or(Errno::INVAL)?;
        Ok((&mut slot.qp, &mut self.parts))
    }

    /// Moves packets after a queue pair was changed at the time of the last tick.
    pub(crate) fn move_packets_of(&mut self, qp_num: u32) {
        self.touch(qp_num);
        self.move_packets();
    }

    /// Moves packets after something was changed at the time of the last tick.
    pub(crate) fn move_packets(&mut self) {
        let now = self.parts.now();
        self.work(now);
        self.settle(now);
    }

    /// Notes that a queue pair may have something to send, or a new time to wait for.
    fn touch(&mut self, qp_num: u32) {
        if let Some(slot) = self.qps.get_mut(qp_num) {
            if !slot.is_ready {
                slot.is_ready = true;
                self.ready.push_back(qp_num);
            }
        }
    }

    /// Moves packets until nothing is left that can be moved now, or until it is enough for one call. Acknowledgements that can wait
    /// do so, if they go over the wire.
    fn work(&mut self, now: Instant) {
        let mut budget = PACKETS_PER_CALL;
        while budget > 0 {
            self.transmit(now, &mut budget);
            self.handle_looped(now, &mut budget);
            let has_more = !self.ready.is_empty() || self.cm.manager.has_transmit();
            let is_full = self.is_full();
            let is_quiet = self.queues.looped.is_empty() && (!has_more || is_full);
            if is_quiet && (is_full || !self.hasten_looped()) {
                break;
            }
        }
    }

    /// Whether so much waits to be sent that no more is made.
    fn is_full(&self) -> bool {
        self.queues.outgoing.len() >= PACKETS_PER_CALL
    }

    /// Lets queue pairs make their packets, in turn.
    fn transmit(&mut self, now: Instant, budget: &mut usize) {
        let ways = self.ways();
        while let Some(transmit) = self.cm.poll_transmit() {
            self.put_unless_crowded(now, transmit);
        }
        while *budget > 0 && !self.is_full() {
            let Some(qp_num) = self.ready.pop_front() else { break };
            let Some(slot) = self.qps.get_mut(qp_num) else { continue };
            slot.is_ready = false;
            let mut turn = PACKETS_PER_TURN.min(*budget);
            *budget -= turn;
            // An acknowledgement that can wait goes with what is sent anyway: behind it, so that it keeps nothing waiting.
            let mut may_hasten = slot.owes;
            while turn > 0 {
                let Some(transmit) = slot.qp.poll_transmit(now, &mut self.parts) else { break };
                turn -= 1;
                if std::mem::take(&mut may_hasten) {
                    slot.qp.hasten_acks();
                }
                let way = ways.of(&transmit.path);
                self.queues.put(now, transmit, way, &mut self.line);
            }
            *budget += turn;
            if turn == 0 {
                self.touch(qp_num);
            }
            self.set_timer(qp_num);
        }
    }

    fn ways(&self) -> Ways {
        let own = (self.loopback == Loopback::Memory).then(|| self.socket.addr());
        Ways { own, link_local: self.link_local }
    }

    /// Lets queue pairs have the packets that go to the device itself.
    fn handle_looped(&mut self, now: Instant, budget: &mut usize) {
        while *budget > 0 {
            let Some((path, packet)) = self.queues.looped.pop_front() else { break };
            *budget -= 1;
            if let Some(qp_num) = self.dispatch(now, &path, packet) {
                if self.looped_to.last() != Some(&qp_num) {
                    self.looped_to.push(qp_num);
                }
            }
        }
    }

    /// Lets those that got packets from the device itself acknowledge them. Returns whether there were any.
    fn hasten_looped(&mut self) -> bool {
        let mut looped_to = std::mem::take(&mut self.looped_to);
        let any = !looped_to.is_empty();
        for qp_num in looped_to.drain(..) {
            self.hasten(qp_num);
        }
        self.looped_to = looped_to;
        any
    }

    fn hasten(&mut self, qp_num: u32) {
        if let Ok(qp) = self.qp(qp_num) {
            qp.hasten_acks();
            self.touch(qp_num);
        }
    }

    /// Lets acknowledgements go that have waited.
    fn send_late_acks(&mut self, now: Instant) {
        if self.owing.is_empty() {
            return;
        }
        let mut owing = std::mem::take(&mut self.owing);
        for qp_num in owing.drain(..) {
            if let Some(slot) = self.qps.get_mut(qp_num) {
                slot.owes = false;
            }
            self.hasten(qp_num);
        }
        self.owing = owing;
        self.work(now);
    }

    /// Gives a packet to all that are attached to the group that it was sent to.
    fn dispatch_to_group(&mut self, now: Instant, path: &Path, packet: &Packet) {
        let group = path.dest;
        for place in 0..self.groups.size(group) {
            let Some(qp_num) = self.groups.member(group, place) else { continue };
            if let Some(slot) = self.qps.get_mut(qp_num) {
                slot.qp.handle_packet(now, path, packet.clone(), &mut self.parts);
            }
        }
    }

    /// Gives a packet to the queue pair that it is for; returns which that is. One for a group is for several, which have nothing to
    /// answer.
    fn dispatch(&mut self, now: Instant, path: &Path, packet: Packet) -> Option<u32> {
        let Bth { dest_qp, service, .. } = packet.bth;
        if dest_qp == MULTICAST_QPN && path.dest.is_multicast() && service == Service::Ud {
            self.dispatch_to_group(now, path, &packet);
            return None;
        }
        if path.dest.is_multicast() {
            self.queues.dropped.unknown_qp += 1;
            return None;
        }
        if dest_qp == cm::QP_NUM && self.cm.handle_packet(now, path, &packet) {
            return None;
        }
        let slot = self.qps.get_mut(dest_qp);
        let Some(slot) = slot.filter(|slot| slot.qp.takes_packets_of(service)) else {
            self.queues.dropped.unknown_qp += 1;
            self.refuse(now, path, &packet);
            return None;
        };
        slot.qp.handle_packet(now, path, packet, &mut self.parts);
        self.touch(dest_qp);
        Some(dest_qp)
    }

    /// Tells the sender of a reliable datagram that nobody takes it.
    fn refuse(&mut self, now: Instant, path: &Path, packet: &Packet) {
        let Some(transmit) = refuse(path, packet) else { return };
        self.put_unless_crowded(now, transmit);
    }

    /// Sends a packet that peers can make the device send, as many as they want: if the socket takes no more, it is lost, as it may be on the
    /// network, and peers ask again.
    fn put_unless_crowded(&mut self, now: Instant, transmit: Transmit) {
        if self.is_stuck && self.is_full() {
            self.queues.dropped.unsendable += 1;
            return;
        }
        let way = self.ways().of(&transmit.path);
        self.queues.put(now, transmit, way, &mut self.line);
    }

    /// Sees to it that a queue pair is looked at when it wants to. Times that move away, as they do with each packet, are left for
    /// when the old ones come.
    fn set_timer(&mut self, qp_num: u32) {
        let Some(slot) = self.qps.get_mut(qp_num) else { return };
        let Some(time) = slot.qp.next_timeout() else { return };
        if slot.timer.is_some_and(|timer| timer <= time) {
            return;
        }
        if let Some(timer) = slot.timer.replace(time) {
            self.timers.remove(&(timer, qp_num));
        }
        self.timers.insert((time, qp_num));
    }

    /// Does what is due.
    fn handle_timers(&mut self, now: Instant) {
        self.cm.handle_timers(now);
        while let Some(&(timer, qp_num)) = self.timers.first().filter(|(timer, _)| *timer <= now) {
            self.timers.remove(&(timer, qp_num));
            let Some(slot) = self.qps.get_mut(qp_num) else { continue };
            slot.timer = None;
            if slot.qp.next_timeout().is_some_and(|time| time <= now) {
                slot.qp.handle_timeout(now, &mut self.parts);
            }
            // It may have something to send, and gets a new timer then.
            self.touch(qp_num);
        }
        if self.line.is_some() {
            self.arrive_late(now);
        }
    }

    /// Whether packets are left that could be moved now.
    fn has_work(&self) -> bool {
        let is_quiet =
            self.ready.is_empty() && self.queues.looped.is_empty() && self.looped_to.is_empty();
        !is_quiet || self.cm.manager.has_transmit()
    }
}

/// Which packets need the wire.
#[derive(Clone, Copy, Debug)]
struct Ways {
    /// The device's address, if what is sent there stays in memory.
    own: Option<IpAddr>,
    /// An address that only the device itself can send to, and be sent to from.
    link_local: IpAddr,
}

impl Ways {
    /// Whether a packet is handed over in memory, and whether it is sent: one to a multicast group may be both.
    fn of(self, path: &Path) -> (bool, bool) {
        let is_local = path.source == self.link_local || path.dest == self.link_local;
        if path.dest.is_multicast() {
            return (is_local || self.own.is_some(), !is_local);
        }
        let stays = is_local || self.own == Some(path.dest);
        (stays, !stays)
    }
}
