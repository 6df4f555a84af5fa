//! What is tried: two queue pairs, and what is done to them and to their packets.

use ibverbs_soft::transport::{
    Bind, DatagramTarget, Payload, RecvRequest, RemoteAccess, SendOperation, SendRequest, Sge,
    SrdOperation, State,
};
use ibverbs_soft::wire::{
    Aeth, AtomicEth, Bth, Deth, NakCode, Operation, Packet, Position, Psn, Reth, Service, Srd,
    SrdPart, Syndrome,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

use crate::host::{BASE, KEY, LEN, WINDOW};
use crate::pair::{path, NUMBERS};

#[derive(Debug, Arbitrary)]
pub struct Input {
    pub service: AnyService,
    pub shared: [bool; 2],
    pub mtu: Mtu,
    pub psns: [u32; 2],
    pub access: [Access; 2],
    pub depths: [u8; 2],
    pub times: Times,
    pub actions: Vec<Action>,
}

/// Attributes of reliable connections.
#[derive(Debug, Arbitrary)]
pub struct Times {
    pub timeout: u8,
    pub retry_count: u8,
    pub rnr_retry: u8,
    pub min_rnr_timer: u8,
    pub max_rd_atomic: u8,
    pub max_dest_rd_atomic: u8,
}

#[derive(Debug, Arbitrary)]
pub enum Action {
    Send {
        node: bool,
        request: Request,
    },
    Receive {
        node: bool,
        entries: Vec<Entry>,
    },
    ReceiveShared {
        node: bool,
        entries: Vec<Entry>,
    },
    /// Asks a queue pair for packets.
    Poll {
        node: bool,
        count: u8,
    },
    /// One of the packets on their way arrives, and may stay there too.
    Deliver {
        which: u8,
        again: bool,
    },
    /// It is lost.
    Lose {
        which: u8,
    },
    /// Everything arrives, and what is answered too.
    Settle,
    /// A packet that the peer has not sent.
    Forge {
        node: bool,
        forged: Forged,
    },
    /// Time passes until something is due.
    Wait {
        node: bool,
    },
    Hasten {
        node: bool,
    },
    Modify {
        node: bool,
        state: AnyState,
    },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum AnyService {
    Rc,
    Uc,
    Ud,
    Srd,
}

impl From<AnyService> for Service {
    fn from(service: AnyService) -> Service {
        match service {
            AnyService::Rc => Service::Rc,
            AnyService::Uc => Service::Uc,
            AnyService::Ud => Service::Ud,
            AnyService::Srd => Service::Srd,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Mtu {
    Small,
    Middle,
    Large,
}

impl Mtu {
    pub fn bytes(self) -> u32 {
        match self {
            Mtu::Small => 256,
            Mtu::Middle => 1024,
            Mtu::Large => 4096,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum AnyState {
    Up,
    Drain,
    Error,
    Reset,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Access {
    write: bool,
    read: bool,
    atomic: bool,
}

impl From<Access> for RemoteAccess {
    fn from(Access { write, read, atomic }: Access) -> RemoteAccess {
        RemoteAccess { write, read, atomic }
    }
}

/// An address, most of them in memory.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Address {
    Inside(u16),
    Word(u8),
    Any(u64),
}

impl Address {
    fn get(self) -> u64 {
        match self {
            Address::Inside(offset) => BASE + u64::from(offset) % LEN as u64,
            Address::Word(word) => BASE + u64::from(word) * 8,
            Address::Any(addr) => addr,
        }
    }
}

/// A key, most of them the right one.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Key(Option<u32>);

impl Key {
    fn get(self) -> u32 {
        // What is left of the input when it ends is `None`.
        self.0.unwrap_or(KEY)
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Length {
    Short(u8),
    Middle(u16),
    Any(u32),
}

impl Length {
    fn get(self) -> u32 {
        match self {
            Length::Short(len) => len.into(),
            Length::Middle(len) => len.into(),
            Length::Any(len) => len,
        }
    }
}

/// A scatter entry.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Entry {
    addr: Address,
    len: Length,
    key: Key,
}

fn sges(entries: &[Entry]) -> Vec<Sge> {
    let sge =
        |entry: &Entry| Sge { addr: entry.addr.get(), len: entry.len.get(), lkey: entry.key.get() };
    entries.iter().map(sge).collect()
}

pub fn receive(wr_id: u64, entries: &[Entry]) -> RecvRequest {
    RecvRequest { wr_id, sges: sges(entries) }
}

#[derive(Debug, Arbitrary)]
pub struct Request {
    operation: AnyOperation,
    inline: Option<Vec<u8>>,
    entries: Vec<Entry>,
    solicited: bool,
    fenced: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum AnyOperation {
    Send { imm: Option<u32> },
    Write { addr: Address, key: Key, imm: Option<u32> },
    Read { addr: Address, key: Key },
    CompareSwap { addr: Address, key: Key, compare: u64, swap: u64 },
    FetchAdd { addr: Address, key: Key, add: u64 },
    SendWithInvalidate { key: WindowKey },
    Bind { old: WindowKey, new: WindowKey, addr: Address, key: Key, len: Length },
    LocalInvalidate { key: WindowKey },
}

/// A key of the window.
#[derive(Clone, Copy, Debug, Arbitrary)]
struct WindowKey(u8);

impl WindowKey {
    /// Few, so that they are found again.
    fn get(self) -> u32 {
        WINDOW + u32::from(self.0 % 4)
    }
}

impl Request {
    /// The request to the other node, if the service has it.
    pub fn get(self, wr_id: u64, service: Service, node: usize) -> Option<SendRequest> {
        let srd = |operation| {
            let to = DatagramTarget { path: path(node), remote_qpn: NUMBERS[1 - node], qkey: 0 };
            SendOperation::Srd { to, operation }
        };
        let operation = match (service, self.operation) {
            (Service::Ud, AnyOperation::Send { imm }) => SendOperation::Datagram {
                path: path(node),
                remote_qpn: NUMBERS[1 - node],
                qkey: 0,
                imm,
            },
            (Service::Srd, AnyOperation::Send { imm }) => srd(SrdOperation::Send { imm }),
            (Service::Srd, AnyOperation::Write { addr, key, imm }) => {
                srd(SrdOperation::Write { addr: addr.get(), rkey: key.get(), imm })
            }
            (Service::Srd, AnyOperation::Read { addr, key }) => {
                srd(SrdOperation::Read { addr: addr.get(), rkey: key.get() })
            }
            (Service::Rc | Service::Uc, AnyOperation::Send { imm }) => SendOperation::Send { imm },
            (Service::Rc | Service::Uc, AnyOperation::Write { addr, key, imm }) => {
                SendOperation::Write { addr: addr.get(), rkey: key.get(), imm }
            }
            (Service::Rc, AnyOperation::Read { addr, key }) => {
                SendOperation::Read { addr: addr.get(), rkey: key.get() }
            }
            (Service::Rc, AnyOperation::CompareSwap { addr, key, compare, swap }) => {
                let (addr, rkey) = (addr.get(), key.get());
                SendOperation::CompareSwap { addr, rkey, compare, swap }
            }
            (Service::Rc, AnyOperation::FetchAdd { addr, key, add }) => {
                SendOperation::FetchAdd { addr: addr.get(), rkey: key.get(), add }
            }
            (Service::Rc, AnyOperation::SendWithInvalidate { key }) => {
                SendOperation::SendWithInvalidate { rkey: key.get() }
            }
            (Service::Rc | Service::Uc, AnyOperation::Bind { old, new, addr, key, len }) => {
                let access = RemoteAccess { write: true, read: true, atomic: true };
                let (old_rkey, rkey, region) = (old.get(), new.get(), Some(key.get()));
                let (addr, len) = (addr.get(), len.get().into());
                SendOperation::Bind(Bind { old_rkey, rkey, region, addr, len, access })
            }
            (Service::Rc | Service::Uc, AnyOperation::LocalInvalidate { key }) => {
                SendOperation::LocalInvalidate { rkey: key.get() }
            }
            _ => return None,
        };
        let can_be_inline = matches!(
            self.operation,
            AnyOperation::Send { .. }
                | AnyOperation::SendWithInvalidate { .. }
                | AnyOperation::Write { .. }
        );
        let payload = match self.inline {
            _ if operation.is_local() => Payload::Sges(Vec::new()),
            Some(bytes) if can_be_inline => Payload::Inline(bytes),
            _ => Payload::Sges(sges(&self.entries)),
        };
        let Request { solicited, fenced, .. } = self;
        Some(SendRequest { wr_id, operation, payload, signaled: true, solicited, fenced })
    }
}

/// A packet that looks as if it came from the peer.
#[derive(Debug, Arbitrary)]
pub struct Forged {
    service: Option<AnyService>,
    operation: ForgedOperation,
    /// How far from a number that is likely to be expected.
    psn: i16,
    psn_of_requests: bool,
    payload: Length,
    solicited: bool,
    ack_request: bool,
    pkey: Option<u16>,
    src_qp: u32,
    qkey: Option<u32>,
    pub wrong_source: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum ForgedOperation {
    Send { position: AnyPosition, imm: Option<u32>, invalidate: Option<u32> },
    Write { position: AnyPosition, reth: AnyReth, imm: Option<u32> },
    ReadRequest(AnyReth),
    ReadResponse { position: AnyPosition, aeth: AnyAeth },
    Acknowledge(AnyAeth),
    AtomicAcknowledge { aeth: AnyAeth, original: u64 },
    CompareSwap(AnyReth, u64, u64),
    FetchAdd(AnyReth, u64),
    Srd { flow: u8, floor: i8, part: AnySrdPart },
}

/// What is asked or answered with reliable datagrams.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum AnySrdPart {
    Fragment { message: i8, offset: Length, len: Length, imm: Option<u32> },
    Write { addr: Address, key: Key },
    WriteEnd { len: u32, imm: u32 },
    Read(AnyReth),
    Data,
    Ack { done: u64 },
    Nak(AnyAeth),
}

impl AnySrdPart {
    fn get(self, near: Psn) -> SrdPart {
        match self {
            AnySrdPart::Fragment { message, offset, len, imm } => {
                let (offset, len) = (offset.get(), len.get());
                SrdPart::Fragment { message: near.add(message as u32), offset, len, imm }
            }
            AnySrdPart::Write { addr, key } => SrdPart::Write { addr: addr.get(), rkey: key.get() },
            AnySrdPart::WriteEnd { len, imm } => SrdPart::WriteEnd { len, imm },
            AnySrdPart::Read(reth) => SrdPart::Read(reth.into()),
            AnySrdPart::Data => SrdPart::Data,
            AnySrdPart::Ack { done } => SrdPart::Ack { done },
            AnySrdPart::Nak(aeth) => SrdPart::Nak(Aeth::from(aeth).syndrome),
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum AnyPosition {
    First,
    Middle,
    Last,
    Only,
}

impl From<AnyPosition> for Position {
    fn from(position: AnyPosition) -> Position {
        match position {
            AnyPosition::First => Position::First,
            AnyPosition::Middle => Position::Middle,
            AnyPosition::Last => Position::Last,
            AnyPosition::Only => Position::Only,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct AnyReth {
    addr: Address,
    key: Key,
    len: Length,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct AnyAeth {
    kind: u8,
    number: u8,
    msn: u32,
}

impl From<AnyAeth> for Aeth {
    fn from(AnyAeth { kind, number, msn }: AnyAeth) -> Aeth {
        const CODES: [NakCode; 5] = [
            NakCode::SequenceError,
            NakCode::InvalidRequest,
            NakCode::RemoteAccessError,
            NakCode::RemoteOperationalError,
            NakCode::InvalidRdRequest,
        ];
        let syndrome = match kind % 3 {
            0 => Syndrome::Ack(number & 0x1f),
            1 => Syndrome::RnrNak(number & 0x1f),
            _ => Syndrome::Nak(CODES[usize::from(number) % CODES.len()]),
        };
        Aeth { syndrome, msn: msn & 0xff_ffff }
    }
}

impl From<AnyReth> for Reth {
    fn from(AnyReth { addr, key, len }: AnyReth) -> Reth {
        Reth { addr: addr.get(), rkey: key.get(), len: len.get() }
    }
}

impl ForgedOperation {
    /// The operation of a packet with a number that is near this one.
    fn get(self, near: Psn) -> Operation {
        let atomic = |reth: AnyReth, swap_or_add, compare| {
            let Reth { addr, rkey, .. } = reth.into();
            AtomicEth { addr, rkey, swap_or_add, compare }
        };
        match self {
            ForgedOperation::Srd { flow, floor, part } => {
                // The flows of queue pairs are numbered from 0 on here.
                let flow = u32::from(flow % 4);
                Operation::Srd(Srd { flow, floor: near.add(floor as u32), part: part.get(near) })
            }
            ForgedOperation::Send { position, imm, invalidate } => {
                Operation::Send { position: position.into(), imm, invalidate }
            }
            ForgedOperation::Write { position, reth, imm } => {
                let position = Position::from(position);
                let reth = position.begins().then(|| reth.into());
                Operation::Write { position, reth, imm }
            }
            ForgedOperation::ReadRequest(reth) => Operation::ReadRequest(reth.into()),
            ForgedOperation::ReadResponse { position, aeth } => {
                let position = Position::from(position);
                let aeth = (position != Position::Middle).then(|| aeth.into());
                Operation::ReadResponse { position, aeth }
            }
            ForgedOperation::Acknowledge(aeth) => Operation::Acknowledge(aeth.into()),
            ForgedOperation::AtomicAcknowledge { aeth, original } => {
                Operation::AtomicAcknowledge { aeth: aeth.into(), original }
            }
            ForgedOperation::CompareSwap(reth, swap, compare) => {
                Operation::CompareSwap(atomic(reth, swap, compare))
            }
            ForgedOperation::FetchAdd(reth, add) => Operation::FetchAdd(atomic(reth, add, 0)),
        }
    }
}

impl Forged {
    /// The packet for this node, if one can have these values.
    pub fn get(self, node: usize, service: Service, psns: [Psn; 2], mtu: Mtu) -> Option<Packet> {
        let service = self.service.map_or(service, Service::from);
        // Requests have the numbers of the peer, responses one's own.
        let near = psns[if self.psn_of_requests { 1 - node } else { node }];
        let len = match self.payload {
            Length::Any(_) => mtu.bytes(),
            len => len.get() % (mtu.bytes() + 5),
        };
        let packet = Packet {
            bth: Bth {
                service,
                solicited: self.solicited,
                migrated: true,
                pkey: self.pkey.unwrap_or(0xffff),
                dest_qp: NUMBERS[node],
                ack_request: self.ack_request,
                psn: near.add(self.psn as u32),
            },
            deth: service
                .is_datagram()
                .then(|| Deth { qkey: self.qkey.unwrap_or(0), src_qp: self.src_qp & 0xff_ffff }),
            operation: self.operation.get(near),
            payload: vec![0x3c; len as usize],
        };
        // What has no payload gets none, so that not most of them are refused.
        let bare = Packet { payload: Vec::new(), ..packet.clone() };
        [packet, bare].into_iter().find(|packet| packet.headers().is_ok())
    }
}

/// The states on the way to one, of which each follows on the one before.
pub fn way(from: State, to: AnyState) -> Vec<State> {
    use State::*;
    match (from, to) {
        (_, AnyState::Reset) => vec![Reset],
        (Reset, AnyState::Error) => vec![Init, Error],
        (_, AnyState::Error) => vec![Error],
        (Reset, AnyState::Up) => vec![Init, ReadyToReceive, ReadyToSend],
        (Init, AnyState::Up) => vec![ReadyToReceive, ReadyToSend],
        (ReadyToReceive | ReadyToSend | SendQueueError | SendQueueDrain, AnyState::Up) => {
            vec![ReadyToSend]
        }
        (ReadyToSend | SendQueueDrain, AnyState::Drain) => vec![SendQueueDrain],
        _ => Vec::new(),
    }
}
