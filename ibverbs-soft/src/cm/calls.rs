//! What programs ask for, of connections.

use std::time::Instant;

use super::connection::{time, Connection, Facts, State};
use super::event::Event;
use super::manager::{Manager, Refused, END_TIMEOUT, RESPONSE_TIMEOUT, RETRIES};
use super::message::{About, Dreq, Message, PathRecord, Rej, Rep, Req, Short, SidrRep};
use super::{reason, sidr_status, Answer, Peer};
use crate::transport::Path;

/// A connection that is to be.
#[derive(Clone, Debug)]
pub struct Connect {
    /// From here to the peer.
    pub path: Path,
    /// The path MTU, encoded as in `enum ibv_mtu`.
    pub mtu: u8,
    /// The encoded time within which this side answers packets.
    pub ack_timeout: u8,
    /// What is asked for.
    pub service_id: u64,
    /// What this side says of its queue pair.
    pub local: Peer,
    /// The sequence number that the peer is to begin with.
    pub starting_psn: u32,
    /// The private data, with who asks whom in front.
    pub private_data: [u8; Req::PRIVATE_DATA],
}

/// How a connection is accepted.
#[derive(Clone, Debug)]
pub struct Accept {
    /// What this side says of its queue pair.
    pub local: Peer,
    /// The sequence number that the peer is to begin with.
    pub starting_psn: u32,
    /// The private data.
    pub private_data: [u8; Rep::PRIVATE_DATA],
}

/// The partition of all.
pub(super) const PKEY: u16 = 0xffff;

impl<O: Clone> Manager<O> {
    /// Asks for a connection; returns its number. It ends in [`Event::Responded`], [`Event::Rejected`] or
    /// [`Event::Unreachable`].
    pub fn connect(&mut self, now: Instant, connect: Connect, owner: O) -> u32 {
        let Connect { path, mtu, ack_timeout, service_id, local, starting_psn, private_data } =
            connect;
        let local_id = self.new_id();
        let req = Req {
            local_id,
            vendor_id: local.vendor_id,
            service_id,
            local_ca_guid: self.guid,
            local_qpn: local.qpn,
            responder_resources: local.responder_resources,
            initiator_depth: local.initiator_depth,
            remote_response_timeout: RESPONSE_TIMEOUT,
            local_response_timeout: RESPONSE_TIMEOUT,
            transport: 0,
            flow_control: local.flow_control,
            starting_psn,
            retry_count: local.retry_count,
            pkey: PKEY,
            mtu,
            rnr_retry_count: local.rnr_retry_count,
            max_cm_retries: RETRIES,
            srq: local.srq,
            path: PathRecord {
                local: path.source,
                remote: path.dest,
                flow_label: path.flow_label,
                traffic_class: path.traffic_class,
                hop_limit: path.hop_limit,
                ack_timeout,
            },
            private_data,
        };
        let context = self.new_context(local.options);
        self.insert(Connection {
            owner: Some(owner),
            state: State::ReqSent,
            path,
            local_id,
            remote_id: 0,
            context,
            service_id,
            facts: Facts {
                path,
                mtu,
                remote_qpn: 0,
                rq_psn: starting_psn,
                sq_psn: 0,
                responder_resources: local.responder_resources,
                initiator_depth: local.initiator_depth,
                retry_count: local.retry_count,
                rnr_retry_count: local.rnr_retry_count,
                ack_timeout,
            },
            unread_at: None,
            waiting: None,
            answer: None,
            ends: None,
            timer: None,
        });
        self.send_and_wait(now, local_id, &Message::Req(Box::new(req)), time(RESPONSE_TIMEOUT));
        local_id
    }

    /// Accepts a connection. It ends in [`Event::Established`], [`Event::Rejected`] or [`Event::Unreachable`].
    ///
    /// # Errors
    ///
    /// If it was not asked for, or is answered already.
    pub fn accept(&mut self, now: Instant, id: u32, accept: Accept) -> Result<(), Refused> {
        let guid = self.guid;
        let it = self.in_state(id, &[State::ReqReceived])?;
        let Accept { local, starting_psn, private_data } = accept;
        it.state = State::RepSent;
        it.facts.rq_psn = starting_psn;
        it.facts.responder_resources = local.responder_resources;
        it.facts.initiator_depth = local.initiator_depth;
        it.context.modifier = local.options;
        let rep = Rep {
            local_id: it.local_id,
            remote_id: it.remote_id,
            vendor_id: local.vendor_id,
            local_qpn: local.qpn,
            starting_psn,
            responder_resources: local.responder_resources,
            initiator_depth: local.initiator_depth,
            flow_control: local.flow_control,
            rnr_retry_count: local.rnr_retry_count,
            srq: local.srq,
            local_ca_guid: guid,
            private_data,
        };
        self.send_and_wait(now, id, &Message::Rep(Box::new(rep)), time(RESPONSE_TIMEOUT));
        Ok(())
    }

    /// Tells the peer, who has accepted, that this side is ready.
    ///
    /// # Errors
    ///
    /// If it has not accepted, or was told before.
    pub fn confirm(&mut self, id: u32) -> Result<(), Refused> {
        let it = self.in_state(id, &[State::RepReceived])?;
        it.state = State::Established;
        it.context.modifier = 0;
        let rtu = Short { local_id: it.local_id, remote_id: it.remote_id };
        self.send(id, &Message::Rtu(rtu));
        Ok(())
    }

    /// Rejects what the peer asks for, or its reply.
    ///
    /// # Errors
    ///
    /// If there is nothing to reject.
    pub fn reject(
        &mut self,
        id: u32,
        reason: u16,
        private_data: [u8; Rej::PRIVATE_DATA],
    ) -> Result<(), Refused> {
        let states = [State::ReqReceived, State::RepReceived, State::RepSent];
        let about = match self.in_state(id, &states)?.state {
            State::RepReceived => About::Rep,
            _ => About::Req,
        };
        self.send_rejection(id, about, reason, private_data);
        self.close(id);
        Ok(())
    }

    /// Ends a connection, or answers a peer that has ended it. Where there is none, nothing is done.
    pub fn disconnect(&mut self, now: Instant, id: u32) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        let (local_id, remote_id) = (it.local_id, it.remote_id);
        match it.state {
            State::Established => {
                it.state = State::DreqSent;
                let dreq = Dreq { local_id, remote_id, remote_qpn: it.facts.remote_qpn };
                it.context.transaction = it.context.transaction.wrapping_add(1 << 32);
                self.send_and_wait(now, id, &Message::Dreq(dreq), time(END_TIMEOUT));
            }
            State::DreqReceived => {
                self.send(id, &Message::Drep(Short { local_id, remote_id }));
                self.wait_out(now, id);
            }
            _ => {}
        }
    }

    /// Takes note that data has come over a connection that was accepted, which the peer has not confirmed: it stands.
    ///
    /// # Errors
    ///
    /// If it stood before, or was not accepted.
    pub fn notice_data(&mut self, id: u32) -> Result<(), Refused> {
        let it = self.in_state(id, &[State::RepSent, State::Established])?;
        if it.state == State::Established {
            return Err(Refused::Established);
        }
        self.establish(id);
        Ok(())
    }

    /// The peer is ready.
    pub(super) fn establish(&mut self, id: u32) {
        if let Some(it) = self.connections.get_mut(&id) {
            it.state = State::Established;
            it.waiting = None;
        }
        self.set_timer(id);
        self.tell(id, Event::Established);
    }

    /// Nobody owns the connection any more: the peer is told, as far as it has to be.
    pub fn destroy(&mut self, now: Instant, id: u32) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        it.owner = None;
        it.unread_at = None;
        let none = [0; Rej::PRIVATE_DATA];
        match it.state {
            State::ReqSent => {
                self.send_rejection(id, About::Req, reason::TIMEOUT, none);
                self.wait_out(now, id);
            }
            State::ReqReceived | State::RepSent => {
                self.send_rejection(id, About::Req, reason::CONSUMER, none);
                self.wait_out(now, id);
            }
            State::RepReceived => {
                self.send_rejection(id, About::Rep, reason::CONSUMER, none);
                self.wait_out(now, id);
            }
            State::SidrReceived => {
                let answer = Answer {
                    status: sidr_status::REJECTED,
                    qpn: 0,
                    qkey: 0,
                    private_data: [0; SidrRep::PRIVATE_DATA],
                };
                // It is in the right state.
                let _ = self.answer(id, answer);
                self.wait_out(now, id);
            }
            State::Established | State::DreqReceived => self.disconnect(now, id),
            State::DreqSent | State::TimeWait => {}
            // A peer who asks again is answered again.
            State::Closed if it.answer.is_some() => self.wait_out(now, id),
            State::SidrSent | State::Closed => self.remove(id),
        }
    }

    /// A connection, if it is in one of these states.
    pub(super) fn in_state(
        &mut self,
        id: u32,
        states: &[State],
    ) -> Result<&mut Connection<O>, Refused> {
        let it = self.connections.get_mut(&id).ok_or(Refused::State)?;
        if states.contains(&it.state) {
            Ok(it)
        } else {
            Err(Refused::State)
        }
    }
}
