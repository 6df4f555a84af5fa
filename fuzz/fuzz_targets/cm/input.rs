//! What is tried: two connection managers, what programs ask of them, and what happens to their messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ibverbs_soft::cm::{
    filled_up, About, Addressing, Context, Dreq, Message, Mra, PathRecord, Rej, Rep, Req, Short,
    SidrRep, SidrReq,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

#[derive(Debug, Arbitrary)]
pub struct Input {
    /// What the numbers of each follow from.
    pub first: [u64; 2],
    pub actions: Vec<Action>,
}

#[derive(Debug, Arbitrary)]
pub struct Action {
    /// Where something happens.
    pub node: bool,
    pub what: What,
}

#[derive(Debug, Arbitrary)]
pub enum What {
    Listen {
        service: Service,
        at: Option<Addr>,
        ipv4: bool,
        ipv6: bool,
        backlog: u8,
    },
    StopListening {
        which: u8,
    },
    Connect {
        from: Family,
        to: Addr,
        service: Service,
        peer: AnyPeer,
        data: Data,
    },
    Find {
        from: Family,
        to: Addr,
        service: Service,
        data: Data,
    },
    /// Something with one of the connections that there are or were.
    Call {
        which: u8,
        call: Call,
    },
    /// One of the messages on their way arrives, and may stay there too.
    Deliver {
        which: u8,
        again: bool,
    },
    /// It is lost.
    Lose {
        which: u8,
    },
    /// It arrives with a byte that is another.
    Damage {
        which: u8,
        at: u8,
        with: u8,
    },
    /// Everything arrives, and what is answered too.
    Settle,
    /// A message that nobody has sent.
    Forge {
        from: Addr,
        to: Family,
        context: AnyContext,
        forged: Forged,
    },
    /// Bytes that nobody has sent.
    Nonsense {
        from: Addr,
        bytes: Vec<u8>,
    },
    /// Time passes until something is due.
    Wait,
    /// Milliseconds pass.
    Pass {
        time: u16,
    },
    /// The network says that an address is gone.
    Gone {
        addr: Addr,
    },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Call {
    Accept(AnyPeer),
    Confirm,
    Reject { reason: u16 },
    Answer { status: u8 },
    Disconnect,
    NoticeData,
    MarkRead,
    Destroy,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Service {
    One,
    Other,
}

impl Service {
    pub fn id(self) -> u64 {
        match self {
            Service::One => 0x0106_1d2f,
            Service::Other => 0x0111_1d30,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Family {
    V4,
    V6,
}

/// Somebody's address: that of a node, or a stranger's.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Addr {
    host: Host,
    family: Family,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Host {
    Here,
    There,
    Stranger,
}

impl Addr {
    /// As seen from a node.
    pub fn get(self, node: usize) -> IpAddr {
        match self.host {
            Host::Here => addr(node, self.family),
            Host::There => addr(1 - node, self.family),
            Host::Stranger => addr(9, self.family),
        }
    }
}

/// A host's address.
pub fn addr(host: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, host as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host as u16).into(),
    }
}

/// What a message says of a queue pair: few numbers, so that they meet again.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct AnyPeer {
    qpn: u8,
    numbers: u32,
}

impl From<AnyPeer> for ibverbs_soft::cm::Peer {
    fn from(it: AnyPeer) -> Self {
        let [a, b, c, d] = it.numbers.to_be_bytes();
        ibverbs_soft::cm::Peer {
            qpn: u32::from(it.qpn % 4),
            responder_resources: a,
            initiator_depth: b,
            flow_control: c & 0x80 != 0,
            retry_count: c,
            rnr_retry_count: d,
            srq: d & 0x80 != 0,
            vendor_id: it.numbers,
            options: it.numbers,
        }
    }
}

/// Private data of requests.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Data {
    /// With the right addresses in front.
    Good,
    /// With these.
    Addressed { source: Addr, dest: Addr },
    /// This again and again.
    Filled(u8),
}

impl Data {
    /// For a request that goes from one address to another, to a node.
    pub fn get<const N: usize>(self, node: usize, source: IpAddr, dest: IpAddr) -> [u8; N] {
        let of = |source, dest| {
            let addressing = Addressing { source, port: 40_000, dest };
            addressing.emit(b"please").expect("it fits")
        };
        match self {
            Data::Good => of(source, dest),
            Data::Addressed { source, dest } => of(source.get(node), dest.get(node)),
            Data::Filled(byte) => [byte; N],
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct AnyContext {
    transaction: u8,
    modifier: u32,
}

impl From<AnyContext> for Context {
    fn from(it: AnyContext) -> Context {
        Context { transaction: it.transaction.into(), modifier: it.modifier }
    }
}

/// The number of a connection.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum AnyId {
    /// One of those of whom the message comes to.
    Here(u8),
    /// One of the other node's.
    There(u8),
    /// One that is hardly ever a number.
    Small(u8),
}

#[derive(Debug, Arbitrary)]
pub enum Forged {
    Req { local: AnyId, service: Service, transport: Option<u8>, peer: AnyPeer, data: Data },
    Rep { local: AnyId, remote: AnyId, peer: AnyPeer },
    Rtu { local: AnyId, remote: AnyId },
    Rej { local: AnyId, remote: AnyId, about: AnyAbout, reason: u16, guid: Option<u64> },
    Mra { local: AnyId, remote: AnyId, about: AnyAbout, service_timeout: u8 },
    Dreq { local: AnyId, remote: AnyId },
    Drep { local: AnyId, remote: AnyId },
    SidrReq { request: AnyId, service: Service, data: Data },
    SidrRep { request: AnyId, status: u8 },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum AnyAbout {
    Req,
    Rep,
    Other,
}

impl From<AnyAbout> for About {
    fn from(about: AnyAbout) -> About {
        match about {
            AnyAbout::Req => About::Req,
            AnyAbout::Rep => About::Rep,
            AnyAbout::Other => About::Other,
        }
    }
}

impl Forged {
    /// A message to a node from one address to another, with the numbers of connections looked up.
    pub fn get(
        self,
        node: usize,
        source: IpAddr,
        dest: IpAddr,
        id: impl Fn(AnyId) -> u32,
    ) -> Message {
        let short = |local, remote| Short { local_id: id(local), remote_id: id(remote) };
        match self {
            Forged::Req { local, service, transport, peer, data } => {
                let peer = ibverbs_soft::cm::Peer::from(peer);
                Message::Req(Box::new(Req {
                    local_id: id(local),
                    vendor_id: peer.vendor_id,
                    service_id: service.id(),
                    local_ca_guid: 0,
                    local_qpn: peer.qpn,
                    responder_resources: peer.responder_resources,
                    initiator_depth: peer.initiator_depth,
                    remote_response_timeout: 17,
                    local_response_timeout: 17,
                    transport: transport.unwrap_or(0),
                    flow_control: peer.flow_control,
                    starting_psn: peer.vendor_id,
                    retry_count: peer.retry_count,
                    pkey: 0xffff,
                    mtu: peer.initiator_depth,
                    rnr_retry_count: peer.rnr_retry_count,
                    max_cm_retries: 15,
                    srq: peer.srq,
                    path: PathRecord {
                        local: source,
                        remote: dest,
                        flow_label: peer.vendor_id,
                        traffic_class: peer.retry_count,
                        hop_limit: 64,
                        ack_timeout: peer.retry_count,
                    },
                    private_data: data.get(node, source, dest),
                }))
            }
            Forged::Rep { local, remote, peer } => {
                let peer = ibverbs_soft::cm::Peer::from(peer);
                Message::Rep(Box::new(Rep {
                    local_id: id(local),
                    remote_id: id(remote),
                    vendor_id: peer.vendor_id,
                    local_qpn: peer.qpn,
                    starting_psn: peer.vendor_id,
                    responder_resources: peer.responder_resources,
                    initiator_depth: peer.initiator_depth,
                    flow_control: peer.flow_control,
                    rnr_retry_count: peer.rnr_retry_count,
                    srq: peer.srq,
                    local_ca_guid: 0,
                    private_data: [0; Rep::PRIVATE_DATA],
                }))
            }
            Forged::Rtu { local, remote } => Message::Rtu(short(local, remote)),
            Forged::Rej { local, remote, about, reason, guid } => {
                let Short { local_id, remote_id } = short(local, remote);
                let private_data = filled_up(b"no").expect("it fits");
                let about = about.into();
                Message::Rej(Box::new(Rej {
                    local_id,
                    remote_id,
                    about,
                    reason,
                    guid,
                    private_data,
                }))
            }
            Forged::Mra { local, remote, about, service_timeout } => {
                let Short { local_id, remote_id } = short(local, remote);
                Message::Mra(Mra { local_id, remote_id, about: about.into(), service_timeout })
            }
            Forged::Dreq { local, remote } => {
                let Short { local_id, remote_id } = short(local, remote);
                Message::Dreq(Dreq { local_id, remote_id, remote_qpn: 1 })
            }
            Forged::Drep { local, remote } => Message::Drep(short(local, remote)),
            Forged::SidrReq { request, service, data } => Message::SidrReq(Box::new(SidrReq {
                request_id: id(request),
                pkey: 0xffff,
                service_id: service.id(),
                private_data: data.get(node, source, dest),
            })),
            Forged::SidrRep { request, status } => Message::SidrRep(Box::new(SidrRep {
                request_id: id(request),
                status,
                qpn: 2,
                qkey: 3,
                service_id: Service::One.id(),
                private_data: [0; SidrRep::PRIVATE_DATA],
            })),
        }
    }
}
