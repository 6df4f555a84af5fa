//! Messages that arrive.

use std::net::IpAddr;
use std::time::Instant;

use super::connection::{time, Connection, Facts, State};
use super::event::{Event, Peer, Requested, Responded};
use super::manager::{Asked, Manager, RESPONSE_TIMEOUT, RETRIES, SERVICE_TIMEOUT};
use super::message::{About, Context, Dreq, Message, Mra, Rej, Rep, Req, Short};
use super::{reason, Addressing};
use crate::transport::Path;

/// The number of reliable connections among the transport services.
const RELIABLE: u8 = 0;

impl<O: Clone> Manager<O> {
    /// Takes the payload of a datagram for the queue pair of the connection manager, which came along this path. What is no
    /// message, or about no connection, is passed over.
    pub fn handle_message(&mut self, now: Instant, path: &Path, bytes: &[u8]) {
        let Ok((context, message)) = Message::parse(bytes) else { return };
        let back = Path { source: path.dest, dest: path.source, hop_limit: 0, ..*path };
        match message {
            Message::Req(req) => self.handle_req(context, back, &req),
            Message::Rep(rep) => self.handle_rep(context, back, &rep),
            Message::Rtu(rtu) => self.handle_rtu(back, rtu),
            Message::Rej(rej) => self.handle_rej(now, back, &rej),
            Message::Mra(mra) => self.handle_mra(now, back, mra),
            Message::Dreq(dreq) => self.handle_dreq(now, context, back, dreq),
            Message::Drep(drep) => self.handle_drep(now, back, drep),
            Message::SidrReq(req) => self.handle_sidr_req(context, back, &req),
            Message::SidrRep(rep) => self.handle_sidr_rep(back, &rep),
        }
    }

    /// The network has said that there is no device at this address any more: what was with it has ended. Who only asks for a
    /// connection goes on asking, for the device may come yet.
    pub fn handle_gone(&mut self, now: Instant, addr: IpAddr) {
        let with_it = self.connections.values().filter(|it| it.path.dest == addr);
        let ids: Vec<u32> = with_it.map(|it| it.local_id).collect();
        for id in ids {
            let Some(it) = self.connections.get(&id) else { continue };
            let was_heard_of = it.remote_id != 0;
            match it.state {
                State::ReqSent if !was_heard_of => {}
                State::ReqSent | State::RepReceived | State::ReqReceived | State::RepSent => {
                    self.tell(id, Event::Unreachable);
                    self.close(id);
                }
                State::Established | State::DreqSent => {
                    self.tell(id, Event::Disconnected { is_known: true });
                    self.wait_out(now, id);
                }
                State::DreqReceived => self.wait_out(now, id),
                State::SidrSent | State::SidrReceived | State::TimeWait | State::Closed => {}
            }
        }
    }

    fn handle_req(&mut self, context: Context, back: Path, req: &Req) {
        if let Some(id) = self.requested_by(back.dest, req.local_id) {
            self.answer_again(id);
            return;
        }
        let parsed = Addressing::parse(&req.private_data);
        let dest = parsed.map(|(addressing, _)| addressing.dest);
        let (any, found) = self.listener(Asked::Connection, req.service_id, dest);
        let found = found.map(|(at, listener)| (at, listener.owner.clone(), listener.backlog));
        let is_reliable = req.transport == RELIABLE;
        let (Some((addressing, data)), Some((at, owner, backlog)), true) =
            (parsed, found, is_reliable)
        else {
            let why = if any { reason::CONSUMER } else { reason::INVALID_SERVICE_ID };
            return self.reject_unknown(context, back, req, why);
        };
        if self.has_stale(back, req.local_qpn) {
            return self.reject_unknown(context, back, req, reason::STALE_CONNECTION);
        }
        if self.unread(at) >= backlog {
            // It will come again, and perhaps there is room then.
            return;
        }
        let local_id = self.new_id();
        let facts = Facts {
            path: Path {
                source: req.path.remote,
                dest: req.path.local,
                traffic_class: req.path.traffic_class,
                hop_limit: req.path.hop_limit,
                flow_label: req.path.flow_label,
            },
            mtu: req.mtu,
            remote_qpn: req.local_qpn,
            rq_psn: 0,
            sq_psn: req.starting_psn,
            responder_resources: req.initiator_depth,
            initiator_depth: req.responder_resources,
            retry_count: req.retry_count,
            rnr_retry_count: req.rnr_retry_count,
            ack_timeout: req.path.ack_timeout,
        };
        let mut answer = context;
        answer.modifier = 0;
        self.insert(Connection {
            owner: None,
            state: State::ReqReceived,
            path: back,
            local_id,
            remote_id: req.local_id,
            context: answer,
            service_id: req.service_id,
            facts,
            unread_at: Some(at),
            waiting: None,
            answer: None,
            ends: None,
            timer: None,
        });
        self.ask_for_patience(local_id, About::Req);
        let peer = Peer {
            qpn: req.local_qpn,
            responder_resources: req.initiator_depth,
            initiator_depth: req.responder_resources,
            flow_control: req.flow_control,
            retry_count: req.retry_count,
            rnr_retry_count: req.rnr_retry_count,
            srq: req.srq,
            vendor_id: req.vendor_id,
            options: context.modifier,
        };
        let requested = Requested {
            addressing,
            port: req.service_id as u16,
            peer: Some(peer),
            private_data: data.to_vec(),
        };
        self.tell_of_request(owner, local_id, Event::Requested(Box::new(requested)));
    }

    /// Rejects a request without taking note of it.
    fn reject_unknown(&mut self, context: Context, back: Path, req: &Req, reason: u16) {
        let rej = Rej {
            local_id: 0,
            remote_id: req.local_id,
            about: About::Req,
            reason,
            guid: None,
            private_data: [0; Rej::PRIVATE_DATA],
        };
        let context = Context { modifier: 0, ..context };
        self.send_bytes(back, Message::Rej(Box::new(rej)).emit(context));
    }

    /// Whether there is a connection with a queue pair that now asks for another: then its peer has lost it.
    fn has_stale(&mut self, back: Path, qpn: u32) -> bool {
        let is_stale = |it: &&Connection<O>| {
            it.state == State::Established
                && it.facts.remote_qpn == qpn
                && it.path.dest == back.dest
                && it.path.source == back.source
        };
        let Some(id) = self.connections.values().find(is_stale).map(|it| it.local_id) else {
            return false;
        };
        // Then this side is to lose it, too.
        self.lose(id);
        true
    }

    fn lose(&mut self, id: u32) {
        self.tell(id, Event::Disconnected { is_known: true });
        self.close(id);
    }

    /// If the peer sends its message again before the program has answered it, it is told to be patient. Not at once: a kernel that
    /// was told is silent for longer than a minute, even if all that it gets to hear then is a confirmation or rejection that is lost.
    fn ask_for_patience(&mut self, id: u32, about: About) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        let (local_id, remote_id) = (it.local_id, it.remote_id);
        let mra = Mra { local_id, remote_id, about, service_timeout: SERVICE_TIMEOUT };
        it.answer = Some(Message::Mra(mra).emit(it.context));
    }

    fn handle_rep(&mut self, context: Context, back: Path, rep: &Rep) {
        let Some(it) = self.peer_of(rep.remote_id, back, None) else { return };
        if it.state != State::ReqSent {
            if it.remote_id == rep.local_id {
                self.answer_again(rep.remote_id);
            }
            return;
        }
        it.state = State::RepReceived;
        it.remote_id = rep.local_id;
        it.waiting = None;
        it.facts.remote_qpn = rep.local_qpn;
        it.facts.sq_psn = rep.starting_psn;
        it.facts.responder_resources = rep.initiator_depth;
        it.facts.initiator_depth = rep.responder_resources;
        it.facts.rnr_retry_count = rep.rnr_retry_count;
        it.context.modifier = 0;
        let retry_count = it.facts.retry_count;
        self.set_timer(rep.remote_id);
        self.ask_for_patience(rep.remote_id, About::Rep);
        let peer = Peer {
            qpn: rep.local_qpn,
            responder_resources: rep.initiator_depth,
            initiator_depth: rep.responder_resources,
            flow_control: rep.flow_control,
            retry_count,
            rnr_retry_count: rep.rnr_retry_count,
            srq: rep.srq,
            vendor_id: rep.vendor_id,
            options: context.modifier,
        };
        let responded = Responded { peer, private_data: rep.private_data };
        self.tell(rep.remote_id, Event::Responded(Box::new(responded)));
    }

    fn handle_rtu(&mut self, back: Path, rtu: Short) {
        let known = self.peer_of(rtu.remote_id, back, Some(rtu.local_id));
        if known.is_some_and(|it| it.state == State::RepSent) {
            self.establish(rtu.remote_id);
        }
    }

    fn handle_rej(&mut self, now: Instant, back: Path, rej: &Rej) {
        // Who has given up may not know by what number the other side calls the connection.
        let id = match rej.remote_id {
            0 => self.requested_by(back.dest, rej.local_id),
            id => Some(id),
        };
        let Some(id) = id else { return };
        let Some(it) = self.peer_of(id, back, None) else { return };
        match it.state {
            State::ReqSent | State::RepReceived | State::ReqReceived | State::RepSent => {
                self.close(id);
            }
            State::Established | State::DreqSent => self.wait_out(now, id),
            _ => return,
        }
        let private_data = Box::new(rej.private_data);
        self.tell(id, Event::Rejected { reason: rej.reason, private_data });
    }

    fn handle_mra(&mut self, now: Instant, back: Path, mra: Mra) {
        let Some(it) = self.peer_of(mra.remote_id, back, None) else { return };
        match (it.state, mra.about) {
            (State::ReqSent, About::Req) => it.remote_id = mra.local_id,
            (State::RepSent, About::Rep) => {}
            _ => return,
        }
        if let Some(waiting) = &mut it.waiting {
            // It is asked again all the same, which it answers with this message again: so it is known that it is there.
            waiting.left = RETRIES;
            waiting.until = now + time(RESPONSE_TIMEOUT);
        }
        self.set_timer(mra.remote_id);
    }

    fn handle_dreq(&mut self, now: Instant, context: Context, back: Path, dreq: Dreq) {
        let drep = Message::Drep(Short { local_id: dreq.remote_id, remote_id: dreq.local_id });
        let Some(it) = self.peer_of(dreq.remote_id, back, Some(dreq.local_id)) else {
            // It is long over.
            return self.send_bytes(back, drep.emit(Context { modifier: 0, ..context }));
        };
        it.context = Context { modifier: 0, ..context };
        match it.state {
            State::RepSent | State::Established => {
                it.state = State::DreqReceived;
                it.waiting = None;
                self.set_timer(dreq.remote_id);
                self.tell(dreq.remote_id, Event::Disconnected { is_known: true });
                if self.connections.get(&dreq.remote_id).is_some_and(|it| it.owner.is_none()) {
                    self.disconnect(now, dreq.remote_id);
                }
            }
            // Both end it at once.
            State::DreqSent => {
                self.tell(dreq.remote_id, Event::Disconnected { is_known: true });
                self.send(dreq.remote_id, &drep);
                self.wait_out(now, dreq.remote_id);
            }
            State::TimeWait | State::Closed => {
                let (path, drep) = (it.path, drep.emit(it.context));
                self.send_bytes(path, drep);
            }
            _ => {}
        }
    }

    fn handle_drep(&mut self, now: Instant, back: Path, drep: Short) {
        let known = self.peer_of(drep.remote_id, back, Some(drep.local_id));
        if known.is_some_and(|it| it.state == State::DreqSent) {
            self.tell(drep.remote_id, Event::Disconnected { is_known: true });
            self.wait_out(now, drep.remote_id);
        }
    }

    /// The connection of this number, if it is with this peer, and the peer knows it by the number that is given.
    pub(super) fn peer_of(
        &mut self,
        id: u32,
        back: Path,
        remote_id: Option<u32>,
    ) -> Option<&mut Connection<O>> {
        let it = self.connections.get_mut(&id)?;
        let is_it =
            it.path.dest == back.dest && remote_id.is_none_or(|number| number == it.remote_id);
        is_it.then_some(it)
    }
}
