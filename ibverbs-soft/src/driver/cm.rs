//! The queue pair of the connection manager.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::cm::{Event, Manager, Notice, QKEY, QP_NUM};
use crate::device::{CmEvent, CmOwner, Happened};
use crate::random::Random;
use crate::transport::{Path, Transmit};
use crate::wire::{Bth, Deth, Operation, Packet, Position, Psn, Service};

/// The connection manager of a device, and the queue pair that it talks through.
pub(crate) struct Cm {
    /// The device's place in the list.
    device: usize,
    pub(crate) manager: Manager<Arc<CmOwner>>,
    next_psn: Psn,
}

const SEND: Operation = Operation::Send { position: Position::Only, imm: None, invalidate: None };

/// The partition of all.
const PKEY: u16 = 0xffff;

impl Cm {
    pub(crate) fn new(device: usize, guid: u64) -> Cm {
        let mut random = Random::new();
        let manager = Manager::new(guid, random.next());
        Cm { device, manager, next_psn: Psn::new(random.next() as u32) }
    }

    /// Takes a packet for this queue pair, if it is from another connection manager; says whether it is.
    pub(super) fn handle_packet(&mut self, now: Instant, path: &Path, packet: &Packet) -> bool {
        let is_known = packet.bth.service == Service::Ud
            && packet.operation == SEND
            && packet.deth == Some(Deth { qkey: QKEY, src_qp: QP_NUM });
        if is_known {
            self.manager.handle_message(now, path, &packet.payload);
            self.tell();
        }
        is_known
    }

    /// The network has said that there is no device at an address.
    pub(super) fn handle_gone(&mut self, now: Instant, addr: IpAddr) {
        self.manager.handle_gone(now, addr);
        self.tell();
    }

    pub(super) fn handle_timers(&mut self, now: Instant) {
        if self.manager.next_timeout().is_some_and(|time| time <= now) {
            self.manager.handle_timeout(now);
            self.tell();
        }
    }

    /// Lets programs know what has happened.
    pub(crate) fn tell(&mut self) {
        while let Some(Notice { owner, connection, event }) = self.manager.poll_event() {
            match event {
                Event::Requested(requested) => {
                    let new = owner.push_request(self.device, connection, requested);
                    self.manager.set_owner(connection, new);
                }
                event => {
                    let what = Happened::Cm(event);
                    owner.push(CmEvent { about: Arc::clone(&owner), what });
                }
            }
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        let (path, message) = self.manager.poll_transmit()?;
        let bth = Bth {
            service: Service::Ud,
            solicited: false,
            migrated: true,
            pkey: PKEY,
            dest_qp: QP_NUM,
            ack_request: false,
            psn: self.next_psn,
        };
        self.next_psn = self.next_psn.add(1);
        let deth = Some(Deth { qkey: QKEY, src_qp: QP_NUM });
        let packet = Packet { bth, deth, operation: SEND, payload: message.to_vec() };
        Some(Transmit { path, packet })
    }
}
