//! The line between a device and the network, while something is wrong with it, or somebody listens.
//!
//! Packets are bytes here, also those of a device to itself: they are built and checked as on the wire.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::datagram::{corrupt, decode};
use super::{Datagram, Dropped, Tape};
use crate::faults::{Arrival, Decisions, Link, LinkCounts};
use crate::transport::{Path, Transmit};
use crate::wire::{Encapsulation, Packet, UDP_PORT};

/// What packets go through on their way from and to a device.
#[derive(Debug)]
pub(super) struct Line {
    is_perfect: bool,
    sent: Decisions,
    received: Decisions,
    is_down: bool,
    tapes: Vec<Arc<Tape>>,
    /// Packets that are delayed, by when they arrive; those of one time in their order.
    delayed: BTreeMap<(Instant, u64), Flight>,
    /// How many packets were delayed.
    number: u64,
}

/// Where a packet goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// From the network.
    Device,
    /// From the device to the network, to itself, or to both, as those for multicast groups.
    Elsewhere { stays: bool, leaves: bool },
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Flight {
    goal: Goal,
    path: Path,
    source_port: u16,
    bytes: Vec<u8>,
}

/// Packets on this side of the line and of the socket.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// What the socket has not taken.
    pub(super) outgoing: VecDeque<Datagram>,
    /// What was read from the socket.
    pub(super) incoming: VecDeque<(Path, Packet)>,
    /// What goes to the device itself.
    pub(super) looped: VecDeque<(Path, Packet)>,
    pub(super) dropped: Dropped,
    pub(super) counts: LinkCounts,
}

impl Queues {
    /// Puts a packet where it is sent from: to the device itself, to the socket, or to both; or into the line, if there is one.
    pub(super) fn put(
        &mut self,
        now: Instant,
        transmit: Transmit,
        (stays, leaves): (bool, bool),
        line: &mut Option<Box<Line>>,
    ) {
        if let Some(line) = line {
            return line.send(now, transmit, (stays, leaves), self);
        }
        if stays && leaves {
            self.looped.push_back((transmit.path, transmit.packet.clone()));
        }
        if !leaves {
            self.looped.push_back((transmit.path, transmit.packet));
        } else if let Some(datagram) = Datagram::new(transmit) {
            self.outgoing.push_back(datagram);
        } else {
            self.dropped.unsendable += 1;
        }
    }
}

impl Line {
    pub(super) fn new() -> Line {
        let link = Link::new();
        Line {
            is_perfect: true,
            sent: Decisions::new(link, 0),
            received: Decisions::new(link, 1),
            is_down: false,
            tapes: Vec::new(),
            delayed: BTreeMap::new(),
            number: 0,
        }
    }

    /// Whether it makes no difference.
    pub(super) fn is_idle(&self) -> bool {
        self.is_perfect && !self.is_down && self.tapes.is_empty() && self.delayed.is_empty()
    }

    /// Decisions begin anew. What is delayed stays so.
    pub(super) fn set_link(&mut self, link: Link) {
        self.is_perfect = link.is_perfect();
        self.sent = Decisions::new(link, 0);
        self.received = Decisions::new(link, 1);
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down
    }

    /// Lets nothing through, or everything again. What is on its way is lost.
    pub(super) fn set_down(&mut self, is_down: bool) {
        self.is_down = is_down;
        self.delayed.clear();
    }

    pub(super) fn add_tape(&mut self, tape: Arc<Tape>) {
        self.tapes.push(tape);
    }

    /// Sends a packet, which stays with the device, leaves it, or does both.
    pub(super) fn send(
        &mut self,
        now: Instant,
        transmit: Transmit,
        (stays, leaves): (bool, bool),
        queues: &mut Queues,
    ) {
        let path = transmit.path;
        let Some(datagram) = Datagram::new(transmit) else {
            queues.dropped.unsendable += 1;
            return;
        };
        let goal = Goal::Elsewhere { stays, leaves };
        let bytes = datagram.into_bytes();
        let flight = Flight { goal, path, source_port: UDP_PORT, bytes };
        let fate = self.sent.next(&mut queues.counts);
        self.pass(now, flight, fate, queues);
    }

    /// Takes a packet from the network.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        path: Path,
        source_port: u16,
        queues: &mut Queues,
    ) {
        let flight = Flight { goal: Goal::Device, path, source_port, bytes: bytes.to_vec() };
        let fate = self.received.next(&mut queues.counts);
        self.pass(now, flight, fate, queues);
    }

    /// Does to a packet what was decided.
    fn pass(
        &mut self,
        now: Instant,
        flight: Flight,
        fate: [Option<Arrival>; 2],
        queues: &mut Queues,
    ) {
        if self.is_down {
            return;
        }
        let copies = fate.iter().flatten().count();
        for (Arrival { delay, corruption }, mut flight) in
            fate.into_iter().flatten().zip(vec![flight; copies])
        {
            if let Some(seed) = corruption {
                let encapsulation = flight.encapsulation();
                corrupt(&mut flight.bytes, &encapsulation, seed);
            }
            if delay.is_zero() {
                self.arrive(flight, queues);
            } else if self.delayed.len() < Link::MAX_DELAYED {
                self.delayed.insert((now + delay, self.number), flight);
                self.number += 1;
            } else {
                queues.counts.lost += 1;
            }
        }
    }

    /// When the first of the delayed packets arrives.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((time, _), _)| *time)
    }

    /// Lets the delayed packets arrive whose time has come.
    pub(super) fn arrive_late(&mut self, now: Instant, queues: &mut Queues) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let flight = first.remove();
            self.arrive(flight, queues);
        }
    }

    /// Lets the delayed packets leave the device that are to leave it: nobody will be there when their time comes.
    pub(super) fn leave_early(&mut self, queues: &mut Queues) {
        for flight in std::mem::take(&mut self.delayed).into_values() {
            if flight.goal != Goal::Device {
                self.arrive(flight, queues);
            }
        }
    }

    fn arrive(&mut self, flight: Flight, queues: &mut Queues) {
        if !self.tapes.is_empty() {
            let mut encapsulation = flight.encapsulation();
            // The identification that the packet has travelled with, which the socket does not tell.
            encapsulation.identification = encapsulation.check(&flight.bytes).unwrap_or(0);
            self.tapes.retain(|tape| tape.write(&encapsulation, &flight.bytes));
        }
        let Flight { goal, path, source_port, bytes } = flight;
        match goal {
            Goal::Device => {
                queues.incoming.extend(decode(&bytes, path, source_port, &mut queues.dropped));
            }
            Goal::Elsewhere { stays, leaves } => {
                if stays {
                    queues.looped.extend(decode(&bytes, path, source_port, &mut queues.dropped));
                }
                if leaves {
                    queues.outgoing.push_back(Datagram::of_bytes(path, bytes));
                }
            }
        }
    }
}

impl Flight {
    fn encapsulation(&self) -> Encapsulation {
        Encapsulation { path: self.path, source_port: self.source_port, identification: 0 }
    }
}
