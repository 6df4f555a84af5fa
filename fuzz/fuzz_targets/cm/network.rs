//! The two, and the messages between them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ibverbs_soft::cm::{Connect, Find, Listener, Message, MessageBytes, Peer};
use ibverbs_soft::transport::Path;

use crate::input::{addr, Action, AnyId, Family, Service, What};
use crate::node::Node;

pub struct Network {
    now: Instant,
    nodes: [Node; 2],
    on_the_way: Vec<(Path, Box<MessageBytes>)>,
    /// Requests that have arrived, at each.
    requests: [Vec<(Path, Box<MessageBytes>)>; 2],
}

fn path(source: IpAddr, dest: IpAddr) -> Path {
    Path { source, dest, traffic_class: 0x68, hop_limit: 64, flow_label: 0 }
}

/// Who has an address.
fn node_of(dest: IpAddr) -> Option<usize> {
    (0..2).find(|node| [Family::V4, Family::V6].iter().any(|it| addr(*node, *it) == dest))
}

impl Network {
    pub fn new(first: [u64; 2]) -> Network {
        Network {
            now: Instant::now(),
            nodes: [Node::new(0xa, first[0]), Node::new(0xb, first[1])],
            on_the_way: Vec::new(),
            requests: [Vec::new(), Vec::new()],
        }
    }

    pub fn act(&mut self, action: Action) {
        let Action { node: at, what } = action;
        let at = usize::from(at);
        let now = self.now;
        let node = &mut self.nodes[at];
        match what {
            What::Listen { service, at, ipv4, ipv6, backlog } => node.listen(Listener {
                service_id: service.id(),
                addr: at.map(|it| it.get(usize::from(action.node))),
                ipv4,
                ipv6,
                connections: true,
                datagrams: true,
                backlog: backlog.into(),
                owner: (),
            }),
            What::StopListening { which } => {
                if let Some(which) = usize::from(which).checked_rem(node.listeners()) {
                    node.stop_listening(which);
                }
            }
            What::Connect { from, to, service, peer, data } => {
                let (source, dest) = (addr(at, from), to.get(at));
                let local = Peer::from(peer);
                node.connect(
                    now,
                    Connect {
                        path: path(source, dest),
                        mtu: local.initiator_depth,
                        ack_timeout: local.retry_count,
                        service_id: service.id(),
                        local,
                        starting_psn: local.vendor_id,
                        private_data: data.get(at, source, dest),
                    },
                );
            }
            What::Find { from, to, service, data } => {
                let (source, dest) = (addr(at, from), to.get(at));
                let private_data = data.get(at, source, dest);
                let path = path(source, dest);
                node.find(now, Find { path, service_id: service.id(), private_data });
            }
            What::Call { which, call } => {
                if let Some(id) = node.id(which) {
                    node.call(now, id, call);
                }
            }
            What::Deliver { which, again } => {
                if let Some((path, bytes)) = self.pick(which, again) {
                    self.deliver(&path, &*bytes);
                }
            }
            What::Lose { which } => {
                self.pick(which, false);
            }
            What::Damage { which, at, with } => {
                if let Some((path, mut bytes)) = self.pick(which, true) {
                    bytes[usize::from(at)] ^= with;
                    self.deliver(&path, &*bytes);
                }
            }
            What::Settle => self.settle(),
            What::Forge { from, to, context, forged } => {
                let (source, dest) = (from.get(at), addr(at, to));
                let message = forged.get(at, source, dest, |id| self.number(at, id));
                self.deliver(&path(source, dest), &*message.emit(context.into()));
            }
            What::Nonsense { from, bytes } => {
                self.deliver(&path(from.get(at), addr(at, Family::V4)), &bytes);
            }
            What::Wait => {
                if let Some(due) = node.manager.next_timeout() {
                    self.pass(due.max(now));
                }
            }
            What::Pass { time } => self.pass(now + Duration::from_millis(time.into())),
            What::Gone { addr } => {
                node.manager.handle_gone(now, addr.get(at));
                let (messages, _) = node.collect(node.expected_of_time());
                assert!(messages.is_empty(), "to somebody who is gone: {messages:?}");
            }
        }
        self.collect(at, 1);
    }

    fn number(&self, at: usize, id: AnyId) -> u32 {
        match id {
            AnyId::Here(which) => self.nodes[at].id(which).unwrap_or(0),
            AnyId::There(which) => self.nodes[1 - at].id(which).unwrap_or(0),
            AnyId::Small(number) => number.into(),
        }
    }

    /// One of the messages on their way, which may stay there.
    fn pick(&mut self, which: u8, stays: bool) -> Option<(Path, Box<MessageBytes>)> {
        let which = usize::from(which).checked_rem(self.on_the_way.len())?;
        Some(match stays {
            true => self.on_the_way[which].clone(),
            false => self.on_the_way.remove(which),
        })
    }

    fn collect(&mut self, node: usize, expected: usize) {
        let (messages, _) = self.nodes[node].collect(expected);
        self.on_the_way.extend(messages);
    }

    fn pass(&mut self, to: Instant) {
        self.now = to;
        for node in 0..2 {
            self.nodes[node].manager.handle_timeout(to);
            let next = self.nodes[node].manager.next_timeout();
            assert!(next.is_none_or(|next| next > to), "it is late");
            self.collect(node, self.nodes[node].expected_of_time());
        }
    }

    /// A message arrives where its address is, if that is anywhere. At most one thing is answered, and one told.
    fn deliver(&mut self, path: &Path, bytes: &[u8]) {
        let Some(node) = node_of(path.dest) else { return };
        if let (Ok(request), Some(_)) = (bytes.try_into(), request_id(bytes)) {
            self.requests[node].push((*path, Box::new(request)));
        }
        self.nodes[node].manager.handle_message(self.now, path, bytes);
        self.collect(node, 1);
    }

    /// Lets everything arrive, without that time passes: what answers is not answered.
    fn settle(&mut self) {
        for _ in 0..2 {
            for (path, bytes) in std::mem::take(&mut self.on_the_way) {
                self.deliver(&path, &*bytes);
            }
        }
        assert!(self.on_the_way.is_empty(), "an answer to an answer");
    }

    /// In the end nothing is left: no wait when nothing is heard of peers any more, and nothing at all when programs have destroyed
    /// what they had.
    pub fn finish(mut self) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let now = node.run_out(self.now);
            node.destroy_all(now, at == 1);
            let now = node.run_out(now);

            // Requests are new again.
            while node.listeners() > 0 {
                node.stop_listening(0);
            }
            for service in [Service::One, Service::Other] {
                node.listen(Listener {
                    service_id: service.id(),
                    addr: None,
                    ipv4: true,
                    ipv6: true,
                    connections: true,
                    datagrams: true,
                    backlog: usize::MAX,
                    owner: (),
                });
            }
            let mut seen = BTreeSet::new();
            for (path, bytes) in &self.requests[at] {
                if seen.insert((path.source, request_id(&**bytes))) {
                    node.manager.handle_message(now, path, &**bytes);
                    let (messages, events) = node.collect(1);
                    assert!(messages.len() + events > 0, "{:?} is passed over", request(&**bytes));
                }
            }
        }
    }
}

/// The message, if it is a request.
fn request(bytes: &[u8]) -> Option<Message> {
    let (_, message) = Message::parse(bytes).ok()?;
    matches!(message, Message::Req(_) | Message::SidrReq(_)).then_some(message)
}

/// By what number the peer knows what it asks for.
fn request_id(bytes: &[u8]) -> Option<u32> {
    match request(bytes)? {
        Message::Req(req) => Some(req.local_id),
        Message::SidrReq(req) => Some(req.request_id),
        _ => None,
    }
}
