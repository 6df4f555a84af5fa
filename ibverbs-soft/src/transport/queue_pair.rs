//! A queue pair of any service.

use std::time::Instant;

use super::common::Common;
use super::rc::Rc;
use super::srd::Srd;
use super::uc::Uc;
use super::ud::Ud;
use super::work::Status;
use super::{Attributes, Config, Host, Path, RecvRequest, SendRequest, State};
use crate::wire::{Packet, Service};

/// A packet that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// What.
    pub packet: Packet,
}

/// A queue pair: its state, its queues, and what its service remembers of the peer.
#[derive(Debug)]
pub struct QueuePair {
    common: Common,
    service: Transport,
    nonce: u32,
}

/// What the services do differently. All have the same methods.
#[derive(Debug)]
enum Transport {
    Rc(Box<Rc>),
    Uc(Uc),
    Ud(Ud),
    Srd(Box<Srd>),
}

impl Transport {
    fn new(service: Service, nonce: u32) -> Transport {
        match service {
            Service::Rc => Transport::Rc(Box::new(Rc::new())),
            Service::Uc => Transport::Uc(Uc::new()),
            Service::Ud => Transport::Ud(Ud::new()),
            Service::Srd => Transport::Srd(Box::new(Srd::new(nonce))),
        }
    }
}

macro_rules! each {
    ($service:expr, $it:ident => $call:expr) => {
        match $service {
            Transport::Rc($it) => $call,
            Transport::Uc($it) => $call,
            Transport::Ud($it) => $call,
            Transport::Srd($it) => $call,
        }
    };
}

impl QueuePair {
    /// A queue pair in `Reset`. By the `nonce`, what it sends is told from what another one with its number and its address has sent:
    /// only datagrams that are reliable need it.
    pub fn new(config: Config, nonce: u32) -> QueuePair {
        QueuePair {
            service: Transport::new(config.service, nonce),
            common: Common::new(config),
            nonce,
        }
    }

    /// What it was created with.
    pub fn config(&self) -> &Config {
        &self.common.config
    }

    /// The state that it is in: also one into which it went by itself.
    pub fn state(&self) -> State {
        self.common.state
    }

    /// Whether it is in `SendQueueDrain`, and something that was begun is not finished.
    pub fn is_draining(&self) -> bool {
        self.common.draining
    }

    /// The attributes in force.
    pub fn attributes(&self) -> &Attributes {
        &self.common.attributes
    }

    /// Moves to a state, with these attributes. The caller has checked that the transition exists and takes what changed.
    pub fn modify(
        &mut self,
        now: Instant,
        state: State,
        attributes: Attributes,
        host: &mut impl Host,
    ) {
        match state {
            State::Reset => {
                // More than one can use up.
                const USED: u32 = 1 << 20;
                *self = QueuePair::new(self.common.config, self.nonce.wrapping_add(USED));
            }
            State::Error => {
                self.common.attributes = attributes;
                each!(&mut self.service, it => it.fail(&mut self.common, host));
            }
            _ => {
                let from = std::mem::replace(&mut self.common.state, state);
                self.common.attributes = attributes;
                self.common.established |= state == State::ReadyToSend;
                self.common.draining = match (from, state) {
                    (State::SendQueueDrain, State::SendQueueDrain) => self.common.draining,
                    (_, State::SendQueueDrain) => true,
                    _ => false,
                };
                each!(&mut self.service, it => it.modified(&mut self.common, now, from, host));
            }
        }
    }

    /// How many sends can be posted.
    pub fn send_room(&self) -> usize {
        let used = each!(&self.service, it => it.sends());
        (self.common.config.max_send_wr as usize).saturating_sub(used)
    }

    /// How many receives can be posted.
    pub fn recv_room(&self) -> usize {
        (self.common.config.max_recv_wr as usize).saturating_sub(self.common.receives.len())
    }

    /// Posts a send, for which there is room, in a state in which that is allowed (RTS, SQD, SQE and ERR; in the last two it is
    /// flushed).
    pub fn post_send(&mut self, now: Instant, request: SendRequest, host: &mut impl Host) {
        if matches!(self.common.state, State::SendQueueError | State::Error) {
            self.common.complete_send(&request, 0, Status::WorkRequestFlushed, host);
        } else {
            each!(&mut self.service, it => it.post_send(&mut self.common, now, request, host));
        }
    }

    /// Posts a receive, for which there is room, in any state but `Reset` (in `Error` it is flushed).
    pub fn post_recv(&mut self, request: RecvRequest, host: &mut impl Host) {
        self.common.post_recv(request, host);
    }

    /// Whether packets of this service are for it. Reliable datagrams are refused by the device if it does not take any now.
    pub fn takes_packets_of(&self, service: Service) -> bool {
        let common = &self.common;
        common.config.service == service && (service != Service::Srd || common.receives_packets())
    }

    /// Takes a packet that has arrived for this queue pair, its CRC checked. `arrived` is how it came: `source` is the peer.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        arrived: &Path,
        packet: Packet,
        host: &mut impl Host,
    ) {
        let common = &mut self.common;
        if common.receives_packets() && common.is_for_us(&packet) {
            each!(&mut self.service, it => it.handle_packet(common, now, arrived, packet, host));
        }
    }

    /// When `handle_timeout` is to be called, or `poll_transmit` has something more to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.service {
            Transport::Rc(rc) => rc.next_timeout(),
            Transport::Srd(srd) => srd.next_timeout(),
            // Nothing is waited for.
            Transport::Uc(_) | Transport::Ud(_) => None,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut impl Host) {
        match &mut self.service {
            Transport::Rc(rc) => rc.handle_timeout(&mut self.common, now, host),
            Transport::Srd(srd) => srd.handle_timeout(&mut self.common, now, host),
            Transport::Uc(_) | Transport::Ud(_) => {}
        }
    }

    /// Lets acknowledgements that wait for more go with the next `poll_transmit`.
    pub fn hasten_acks(&mut self) {
        if let Transport::Rc(rc) = &mut self.service {
            rc.hasten_acks();
        }
    }

    /// The next packet to send, if there is one now. Requests come before acknowledgements.
    pub fn poll_transmit(&mut self, now: Instant, host: &mut impl Host) -> Option<Transmit> {
        each!(&mut self.service, it => it.poll_transmit(&mut self.common, now, host))
    }
}
