//! Questions for queue pairs of datagrams: service identification (SIDR).

use std::time::{Duration, Instant};

use super::calls::PKEY;
use super::connection::{Connection, Facts, State};
use super::event::{Event, Requested};
use super::manager::{Asked, Manager, Refused};
use super::message::{Context, Message, SidrRep, SidrReq};
use super::{sidr_status, Addressing};
use crate::transport::Path;

/// How long an answer may take. There is no message that asks for patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question for a queue pair.
#[derive(Clone, Debug)]
pub struct Find {
    /// From here to the peer.
    pub path: Path,
    /// What is asked for.
    pub service_id: u64,
    /// The private data, with who asks whom in front.
    pub private_data: [u8; SidrReq::PRIVATE_DATA],
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether there is a queue pair, or why not: see [`sidr_status`].
    pub status: u8,
    /// The queue pair.
    pub qpn: u32,
    /// Its queue key.
    pub qkey: u32,
    /// The private data.
    pub private_data: [u8; SidrRep::PRIVATE_DATA],
}

/// Datagrams have a path, and nothing else of a connection.
fn facts(path: Path) -> Facts {
    Facts {
        path,
        mtu: 0,
        remote_qpn: 0,
        rq_psn: 0,
        sq_psn: 0,
        responder_resources: 0,
        initiator_depth: 0,
        retry_count: 0,
        rnr_retry_count: 0,
        ack_timeout: 0,
    }
}

impl<O: Clone> Manager<O> {
    /// Asks for a queue pair; returns the question's number. It ends in [`Event::Answered`] or [`Event::Unreachable`].
    pub fn find(&mut self, now: Instant, find: Find, owner: O) -> u32 {
        let Find { path, service_id, private_data } = find;
        let request_id = self.new_id();
        let context = self.new_context(0);
        self.insert(Connection {
            owner: Some(owner),
            state: State::SidrSent,
            path,
            local_id: request_id,
            remote_id: 0,
            context,
            service_id,
            facts: facts(path),
            unread_at: None,
            waiting: None,
            answer: None,
            ends: None,
            timer: None,
        });
        let req = SidrReq { request_id, pkey: PKEY, service_id, private_data };
        self.send_and_wait(now, request_id, &Message::SidrReq(Box::new(req)), PATIENCE);
        request_id
    }

    /// Answers a question.
    ///
    /// # Errors
    ///
    /// If there is none, or it was answered.
    pub fn answer(&mut self, id: u32, answer: Answer) -> Result<(), Refused> {
        let it = self.in_state(id, &[State::SidrReceived])?;
        it.state = State::Closed;
        let Answer { status, qpn, qkey, private_data } = answer;
        let (request_id, service_id) = (it.remote_id, it.service_id);
        let rep = SidrRep { request_id, status, qpn, qkey, service_id, private_data };
        self.send(id, &Message::SidrRep(Box::new(rep)));
        Ok(())
    }

    /// `back` is the path to the peer.
    pub(super) fn handle_sidr_req(&mut self, context: Context, back: Path, req: &SidrReq) {
        if let Some(id) = self.requested_by(back.dest, req.request_id) {
            self.answer_again(id);
            return;
        }
        let parsed = Addressing::parse(&req.private_data);
        let dest = parsed.map(|(addressing, _)| addressing.dest);
        let (any, found) = self.listener(Asked::Datagrams, req.service_id, dest);
        let found = found.map(|(at, listener)| (at, listener.owner.clone(), listener.backlog));
        let (Some((addressing, data)), Some((at, owner, backlog))) = (parsed, found) else {
            let status = if any { sidr_status::REJECTED } else { sidr_status::UNSUPPORTED };
            let rep = SidrRep {
                request_id: req.request_id,
                status,
                qpn: 0,
                qkey: 0,
                service_id: req.service_id,
                private_data: [0; SidrRep::PRIVATE_DATA],
            };
            return self.send_bytes(back, Message::SidrRep(Box::new(rep)).emit(context));
        };
        if self.unread(at) >= backlog {
            return;
        }
        let id = self.new_id();
        self.insert(Connection {
            owner: None,
            state: State::SidrReceived,
            path: back,
            local_id: id,
            remote_id: req.request_id,
            context,
            service_id: req.service_id,
            facts: facts(back),
            unread_at: Some(at),
            waiting: None,
            answer: None,
            ends: None,
            timer: None,
        });
        let requested = Requested {
            addressing,
            port: req.service_id as u16,
            peer: None,
            private_data: data.to_vec(),
        };
        self.tell_of_request(owner, id, Event::Requested(Box::new(requested)));
    }

    pub(super) fn handle_sidr_rep(&mut self, back: Path, rep: &SidrRep) {
        let asked = self.peer_of(rep.request_id, back, None);
        if asked.is_some_and(|it| it.state == State::SidrSent) {
            self.close(rep.request_id);
            let SidrRep { status, qpn, qkey, private_data, .. } = *rep;
            let private_data = Box::new(private_data);
            self.tell(rep.request_id, Event::Answered { status, qpn, qkey, private_data });
        }
    }
}
