//! What programs send, and what must come of it: drawn at random.

use std::time::Duration;

use super::fixture::PD;
use super::host::{Rights, SimHost};
use super::link::Faults;
use super::rng::Rng;
use crate::transport::{
    Attributes, Bind, Host, Path, Payload, RecvRequest, RemoteAccess, SendOperation, SendRequest,
    Sge, Status, Through,
};
use crate::wire::Psn;

/// How many 8-byte words at the beginning of the shared memory are for atomic operations.
const WORDS: u64 = 4;

/// The memory of a device that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What is sent.
    source: (u64, u32),
    /// Where receives and the answers to reads go.
    sink: (u64, u32),
    /// How much of that is given out.
    sink_used: u64,
    /// What the peer may do anything with, and how much it is.
    shared: (u64, u32),
    shared_len: u64,
    /// The keys of windows that are bound to that: the peer may use and withdraw them.
    lent: [u32; LENT],
    /// The keys of windows that are bound and withdrawn at this side.
    own: [u32; OWN],
}

const LENT: usize = 6;
const OWN: usize = 3;

const SOURCE_LEN: u64 = 48 << 10;

impl Memory {
    pub(crate) fn new(host: &mut SimHost, rng: &mut Rng, sizes: &Sizes) -> Memory {
        let all = RemoteAccess { write: true, read: true, atomic: true };
        let local = Rights { local_write: true, ..Rights::default() };
        let source = host.register(PD, rng.bytes(SOURCE_LEN as usize), Rights::default());
        let sink = host.register(PD, vec![0; sizes.sink() as usize], local);
        let shared_len = 8 * WORDS + 2 * u64::from(sizes.max_len);
        let rights = Rights { local_write: true, remote: all };
        let shared = host.register(PD, rng.bytes(shared_len as usize), rights);
        let (lent, own) = ([0; LENT], [0; OWN]);
        Memory { source, sink, sink_used: 0, shared, shared_len, lent, own }
    }

    /// Allocates the windows, and binds those that are lent, as the queue pair with this number would.
    pub(crate) fn lend(&mut self, host: &mut SimHost, qp_num: u32) {
        let through = Through { pd: PD, qp_num };
        for key in &mut self.lent {
            let old_rkey = host.alloc_window();
            *key = old_rkey + 1;
            let bind = bind(old_rkey, *key, self.shared, self.shared_len);
            host.bind_window(through, &bind).expect("it can be bound to that");
        }
        self.own = self.own.map(|_| host.alloc_window());
        host.take_log();
    }

    pub(crate) fn is_lent(&self, key: u32) -> bool {
        self.lent.contains(&key)
    }

    /// What the peer may do anything with: the address and the length.
    pub(crate) fn shared(&self) -> (u64, u64) {
        (self.shared.0, self.shared_len)
    }

    pub(crate) fn shared_key(&self) -> u32 {
        self.shared.1
    }

    /// A new place of this length for what comes in, in up to three pieces, with a byte between them.
    pub(crate) fn place(&mut self, rng: &mut Rng, len: u32) -> Vec<Sge> {
        let mut sges = Vec::new();
        for len in cut(rng, len) {
            sges.push(Sge { addr: self.sink.0 + self.sink_used, len, lkey: self.sink.1 });
            self.sink_used += u64::from(len) + 1;
        }
        sges
    }

    /// Random parts of the source, and the bytes that are there.
    fn gather(&self, rng: &mut Rng, host: &SimHost, len: u32) -> (Vec<Sge>, Vec<u8>) {
        let mut sges = Vec::new();
        let mut bytes = Vec::with_capacity(len as usize);
        for len in cut(rng, len) {
            let addr = self.source.0 + rng.below(SOURCE_LEN - u64::from(len));
            sges.push(Sge { addr, len, lkey: self.source.1 });
            bytes.extend(host.peek(addr, len as usize));
        }
        (sges, bytes)
    }
}

/// What binds a window to a region as a whole, with all rights.
fn bind(old_rkey: u32, rkey: u32, (addr, key): (u64, u32), len: u64) -> Bind {
    let access = RemoteAccess { write: true, read: true, atomic: true };
    Bind { old_rkey, rkey, region: Some(key), addr, len, access }
}

/// Cuts a length into one to three pieces, some of which may be empty.
fn cut(rng: &mut Rng, len: u32) -> Vec<u32> {
    let first = if rng.chance(300) { rng.below(u64::from(len) + 1) as u32 } else { len };
    let second = if rng.chance(300) { rng.below(u64::from(len - first) + 1) as u32 } else { 0 };
    let mut pieces = vec![first];
    if second > 0 || rng.chance(50) {
        pieces.push(second);
    }
    if first + second < len {
        pieces.push(len - first - second);
    }
    pieces
}

/// How many requests there are, and how long their messages can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) operations: u64,
    pub(crate) max_len: u32,
}

impl Sizes {
    /// Enough for a place for each request of both sides, with a byte between the pieces.
    fn sink(&self) -> u64 {
        (2 * self.operations + 16) * (u64::from(self.max_len) + 4)
    }
}

/// A request to post, and what it carries.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) request: SendRequest,
    /// What a send or a write carries.
    pub(crate) data: Vec<u8>,
    /// What was in memory before an atomic operation.
    pub(crate) original: Option<u64>,
}

impl Planned {
    pub(crate) fn imm(&self) -> Option<u32> {
        match self.request.operation {
            SendOperation::Send { imm }
            | SendOperation::Write { imm, .. }
            | SendOperation::Datagram { imm, .. } => imm,
            _ => None,
        }
    }

    /// The key of the peer's that it withdraws.
    pub(crate) fn withdraws(&self) -> Option<u32> {
        match self.request.operation {
            SendOperation::SendWithInvalidate { rkey } => Some(rkey),
            _ => None,
        }
    }

    /// Whether it withdraws this key of its own side.
    pub(crate) fn withdraws_here(&self, key: u32) -> bool {
        self.request.operation == SendOperation::LocalInvalidate { rkey: key }
    }

    /// Whether it gives a window of its own side this key.
    pub(crate) fn binds(&self, key: u32) -> bool {
        matches!(self.request.operation, SendOperation::Bind(bind) if bind.rkey == key)
    }

    /// Whether it takes a receive.
    pub(crate) fn takes_receive(&self) -> bool {
        match self.request.operation {
            SendOperation::Send { .. }
            | SendOperation::SendWithInvalidate { .. }
            | SendOperation::Datagram { .. } => true,
            _ => self.imm().is_some(),
        }
    }

    /// Whether it brings something back.
    pub(crate) fn takes_result(&self) -> bool {
        self.original.is_some() || matches!(self.request.operation, SendOperation::Read { .. })
    }

    /// Whether it does something at the peer that an observer there can see.
    pub(crate) fn leaves_a_mark(&self) -> bool {
        match self.request.operation {
            SendOperation::Read { .. } => false,
            operation if operation.is_local() => false,
            SendOperation::Write { imm, .. } => imm.is_some() || !self.data.is_empty(),
            _ => true,
        }
    }
}

/// Which operations a plan has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mixture {
    /// Everything that a reliable connection can.
    Reliable,
    /// That, and memory windows.
    Windows,
    /// Sends and writes.
    Unreliable,
}

/// Draws the requests of one side: `memory` and `host` are its own, `peer` is the memory that they are about.
pub(crate) fn draw(
    rng: &mut Rng,
    sizes: &Sizes,
    mixture: Mixture,
    (host, memory): (&SimHost, &mut Memory),
    (peer_host, peer): (&SimHost, &Memory),
) -> Vec<Planned> {
    let count = rng.below(sizes.operations + 1);
    // Some plans have operations of one kind only.
    let kinds = match mixture {
        Mixture::Unreliable => 4,
        Mixture::Reliable => 6,
        Mixture::Windows => 9,
    };
    let only = rng.chance(200).then(|| rng.below(kinds.max(6)));
    let (mut lent, mut own) = (peer.lent.to_vec(), memory.own.map(|key| (key, false)));
    let unsignaled = rng.pick(&[0, 0, 300, 900]);
    let fenced = rng.pick(&[0, 100, 500]);
    let mut words: Vec<u64> = (0..WORDS)
        .map(|word| {
            let bytes = peer_host.peek(peer.shared.0 + 8 * word, 8);
            u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
        })
        .collect();
    let mut plan = Vec::new();
    for index in 0..count {
        let len = draw_len(rng, sizes.max_len);
        let rkey = match lent.last() {
            Some(&key) if mixture == Mixture::Windows && rng.chance(500) => key,
            _ => peer.shared.1,
        };
        let slots = peer.shared_len - 8 * WORDS - u64::from(len);
        let addr = peer.shared.0 + 8 * WORDS + rng.below(slots + 1);
        let word = rng.below(WORDS) as usize;
        let word_addr = peer.shared.0 + 8 * word as u64;
        let imm = rng.chance(300).then(|| rng.next() as u32);
        let kind = only.unwrap_or_else(|| rng.below(kinds.max(6))) % kinds;
        let operation = match kind {
            6 => match lent.pop() {
                Some(rkey) => SendOperation::SendWithInvalidate { rkey },
                None => SendOperation::Send { imm },
            },
            7 | 8 => {
                let (key, bound) = &mut own[rng.below(OWN as u64) as usize];
                let old_rkey = *key;
                *bound = !*bound;
                if *bound {
                    *key = old_rkey & !0xff | (old_rkey + 1) & 0xff;
                    SendOperation::Bind(bind(old_rkey, *key, memory.shared, memory.shared_len))
                } else {
                    SendOperation::LocalInvalidate { rkey: old_rkey }
                }
            }
            0 | 1 => SendOperation::Send { imm },
            2 => SendOperation::Write { addr, rkey, imm },
            3 if mixture == Mixture::Unreliable => SendOperation::Write { addr, rkey, imm },
            3 | 4 => SendOperation::Read { addr, rkey },
            5 if rng.chance(500) => {
                let compare = if rng.chance(700) { words[word] } else { rng.next() };
                SendOperation::CompareSwap { addr: word_addr, rkey, compare, swap: rng.next() }
            }
            _ => SendOperation::FetchAdd { addr: word_addr, rkey, add: rng.next() },
        };
        let original = match operation {
            SendOperation::CompareSwap { compare, swap, .. } => {
                let original = words[word];
                if original == compare {
                    words[word] = swap;
                }
                Some(original)
            }
            SendOperation::FetchAdd { add, .. } => {
                let original = words[word];
                words[word] = original.wrapping_add(add);
                Some(original)
            }
            _ => None,
        };
        let (payload, data) = match operation {
            SendOperation::Read { .. } => (
                Payload::Sges(if len == 0 { Vec::new() } else { memory.place(rng, len) }),
                Vec::new(),
            ),
            _ if original.is_some() => (Payload::Sges(memory.place(rng, 8)), Vec::new()),
            _ if operation.is_local() => (Payload::Sges(Vec::new()), Vec::new()),
            _ if rng.chance(200) => {
                let data = rng.bytes(len as usize);
                (Payload::Inline(data.clone()), data)
            }
            _ => {
                let (sges, data) = memory.gather(rng, host, len);
                (Payload::Sges(sges), data)
            }
        };
        let request = SendRequest {
            wr_id: 0x5000 + index,
            operation,
            payload,
            signaled: !rng.chance(unsignaled),
            solicited: rng.chance(200),
            // A read that is repeated needs its key: it must be done before that is withdrawn.
            fenced: rng.chance(fenced)
                || matches!(operation, SendOperation::SendWithInvalidate { .. }),
        };
        plan.push(Planned { request, data, original });
    }
    plan
}

/// Short, long, and what lies at the borders of packets.
pub(crate) fn draw_len(rng: &mut Rng, max: u32) -> u32 {
    match rng.below(5) {
        0 => rng.below(9) as u32,
        1 => 0,
        2 => {
            let border = 256 * rng.between(1, 16) as i64 + rng.between(0, 2) as i64 - 1;
            border.min(i64::from(max)) as u32
        }
        _ => rng.below(u64::from(max) + 1) as u32,
    }
}

/// Receives for a plan of the peer: one for each message that takes one, and a few more, as far as there is room for them.
pub(crate) fn draw_receives(
    rng: &mut Rng,
    memory: &mut Memory,
    plan: &[Planned],
    (max_len, room): (u32, u32),
) -> Vec<RecvRequest> {
    let needed = plan.iter().filter(|planned| planned.takes_receive()).count();
    let count = needed as u64 + rng.pick(&[0, 0, 1, 3]).min(u64::from(room));
    (0..count)
        .map(|index| RecvRequest { wr_id: 0x7000 + index, sges: memory.place(rng, max_len) })
        .collect()
}

/// Draws a link: from a perfect one to one where a fifth of all packets suffers, in each of four ways.
pub(crate) fn draw_faults(rng: &mut Rng) -> Faults {
    let worst = rng.pick(&[0, 10, 50, 100, 200]);
    let mut often = || if rng.chance(600) { rng.below(worst + 1) as u32 } else { 0 };
    let (loss, duplication, reordering, corruption) = (often(), often(), often(), often());
    Faults {
        loss,
        duplication,
        reordering,
        corruption,
        delay: Duration::from_nanos(rng.between(200, 20_000)),
        hold: Duration::from_nanos(rng.pick(&[1_000, 20_000, 300_000])),
        per_byte: Duration::from_nanos(rng.below(3)),
        backlog: Duration::from_micros(rng.pick(&[5, 50, 10_000])),
        back_pressure: rng.chance(500),
    }
}

/// The attributes of a connection's end.
pub(crate) fn draw_attributes(
    rng: &mut Rng,
    path: Path,
    dest_qp: u32,
    path_mtu: u32,
    (sq_psn, rq_psn): (Psn, Psn),
) -> Attributes {
    Attributes {
        pkey: 0xffff,
        qkey: 0,
        access: RemoteAccess { write: true, read: true, atomic: true },
        path: Some(path),
        path_mtu,
        dest_qp,
        rq_psn,
        sq_psn,
        max_dest_rd_atomic: 16,
        max_rd_atomic: rng.pick(&[1, 1, 2, 4, 16]),
        // Up to 10.24 ms.
        min_rnr_timer: rng.between(1, 20) as u8,
        timeout: rng.between(1, 14) as u8,
        retry_count: rng.pick(&[0, 3, 7, 7, 7]),
        rnr_retry: rng.pick(&[0, 2, 6, 7, 7, 7]),
    }
}

/// A first sequence number: often one after which the numbers begin again soon.
pub(crate) fn draw_psn(rng: &mut Rng) -> Psn {
    let number = rng.next() as u32;
    Psn::new(if rng.chance(300) { 0u32.wrapping_sub(number % 20) } else { number })
}

/// A request of a plan that cannot be carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poison {
    /// Whose it is.
    pub(crate) side: usize,
    /// Its place in the plan.
    pub(crate) index: usize,
    /// How it fails.
    pub(crate) status: Status,
    /// Whether the peer fails by it.
    pub(crate) fails_peer: bool,
    /// How the peer's receive fails, if it does.
    pub(crate) receive: Option<Status>,
}

/// Makes a request of a side one that cannot be carried out, if one is chosen that can be made so. `receives` are those of the
/// peer.
pub(crate) fn poison(
    rng: &mut Rng,
    side: usize,
    plan: &mut [Planned],
    receives: &mut [RecvRequest],
) -> Option<Poison> {
    if plan.is_empty() {
        return None;
    }
    let index = rng.below(plan.len() as u64) as usize;
    let message = plan[..index].iter().filter(|planned| planned.takes_receive()).count();
    let planned = &mut plan[index];
    let at_peer = |status| Poison { side, index, status, fails_peer: true, receive: None };
    let here = Poison { fails_peer: false, ..at_peer(Status::LocalProtection) };
    if let SendOperation::Bind(Bind { old_rkey: key, .. })
    | SendOperation::LocalInvalidate { rkey: key } = &mut planned.request.operation
    {
        *key ^= 0x80;
        return Some(Poison { status: Status::WindowBind, ..here });
    }
    if planned.request.payload.is_empty() {
        return None;
    }
    if rng.chance(300) {
        if let Payload::Sges(sges) = &mut planned.request.payload {
            let sge = sges.iter_mut().find(|sge| sge.len > 0)?;
            match rng.below(2) {
                0 => sge.lkey ^= 1,
                _ => sge.addr ^= 1 << 40,
            }
            return Some(here);
        }
    }
    match &mut planned.request.operation {
        SendOperation::Send { .. } => {
            let receive = &mut receives[message];
            let sge = receive.sges.iter_mut().find(|sge| sge.len > 0)?;
            if rng.chance(500) {
                let mut short = *sge;
                short.len = rng.below(planned.data.len() as u64).min(short.len.into()) as u32;
                receive.sges = vec![short];
                let receive = Some(Status::LocalLength);
                return Some(Poison { receive, ..at_peer(Status::RemoteInvalidRequest) });
            }
            sge.lkey ^= 1;
            // The others are not reached by every message.
            receive.sges = vec![Sge { len: u32::MAX, ..*sge }];
            let receive = Some(Status::LocalProtection);
            Some(Poison { receive, ..at_peer(Status::RemoteOperation) })
        }
        SendOperation::Write { addr, rkey, .. } | SendOperation::Read { addr, rkey } => {
            match rng.below(2) {
                0 => *rkey ^= 1,
                _ => *addr += 1 << 20,
            }
            Some(at_peer(Status::RemoteAccess))
        }
        SendOperation::CompareSwap { addr, rkey, .. }
        | SendOperation::FetchAdd { addr, rkey, .. } => {
            match rng.below(3) {
                0 => *rkey ^= 1,
                1 => *addr += 1 << 20,
                _ => {
                    *addr += rng.between(1, 7);
                    return Some(at_peer(Status::RemoteInvalidRequest));
                }
            }
            Some(at_peer(Status::RemoteAccess))
        }
        SendOperation::SendWithInvalidate { rkey } => {
            *rkey ^= 0x80;
            let receive = Some(Status::RemoteInvalidRequest);
            Some(Poison { receive, ..at_peer(Status::RemoteInvalidRequest) })
        }
        SendOperation::Datagram { .. }
        | SendOperation::Srd { .. }
        | SendOperation::Bind(_)
        | SendOperation::LocalInvalidate { .. } => None,
    }
}
