//! Packets that nobody has sent, made of those that were.

use super::network::Network;
use super::pair::Pair;
use super::rng::Rng;
use crate::wire::{
    Aeth, AtomicEth, Bth, NakCode, Operation, Packet, Position, Psn, Reth, Service, Syndrome,
};

/// A packet for this device, near to what it expects.
pub(crate) fn forge(rng: &mut Rng, pair: &Pair, dest: usize) -> Option<Packet> {
    let Network { nodes, .. } = &pair.net;
    let attributes = nodes[dest].endpoints[0].qp.attributes();
    let config = nodes[dest].endpoints[0].qp.config();
    let overheard: Vec<_> = pair.net.overheard().iter().filter(|(node, _)| *node == dest).collect();
    let (_, original) = overheard.get(rng.below(overheard.len() as u64 + 1) as usize)?;
    let psn = match rng.below(10) {
        0 => Psn::new(rng.next() as u32),
        1 | 2 => original.bth.psn.add(rng.below(32) as u32),
        _ => original.bth.psn.add(rng.below(7) as u32).add(0u32.wrapping_sub(3)),
    };
    let bth = Bth {
        service: if rng.chance(20) { Service::Ud } else { config.service },
        solicited: rng.chance(200),
        migrated: rng.chance(900),
        pkey: if rng.chance(50) { rng.next() as u16 } else { original.bth.pkey },
        dest_qp: original.bth.dest_qp,
        ack_request: rng.chance(500),
        psn,
    };
    let mtu = u64::from(attributes.path_mtu);
    let operation = match rng.chance(300) {
        true => original.operation,
        false => draw_operation(rng, pair, dest),
    };
    let payload = match rng.below(4) {
        0 => original.payload.clone(),
        1 => rng.bytes(mtu as usize),
        2 => rng.clone().bytes(rng.below(mtu + 9).min(4096) as usize),
        _ => Vec::new(),
    };
    let deth = None;
    let has_payload = matches!(
        operation,
        Operation::Send { .. } | Operation::Write { .. } | Operation::ReadResponse { .. }
    );
    let payload = if has_payload { payload } else { Vec::new() };
    Some(Packet { bth, deth, operation, payload })
}

fn draw_operation(rng: &mut Rng, pair: &Pair, dest: usize) -> Operation {
    let memory = &pair.sides[dest].memory;
    let (start, len) = memory.shared();
    let position = rng.pick(&[Position::First, Position::Middle, Position::Last, Position::Only]);
    let addr = match rng.below(8) {
        0 => rng.next(),
        1 => start.wrapping_sub(rng.below(64)),
        2 => start + len - rng.below(64),
        _ => start + rng.below(len),
    };
    let rkey = if rng.chance(100) { rng.next() as u32 } else { memory.shared_key() };
    let len = match rng.below(4) {
        0 => rng.next() as u32,
        1 => 0,
        _ => rng.below(len) as u32,
    };
    let imm = (position.ends() && rng.chance(500)).then(|| rng.next() as u32);
    let reth = Reth { addr, rkey, len };
    let (swap_or_add, compare) = (rng.next(), rng.next());
    let eth = AtomicEth {
        addr: if rng.chance(800) { addr & !7 } else { addr },
        rkey,
        swap_or_add,
        compare,
    };
    let syndrome = match rng.below(6) {
        0 | 1 => Syndrome::Ack(31),
        2 => Syndrome::RnrNak(rng.below(32) as u8),
        _ => Syndrome::Nak(rng.pick(&[
            NakCode::SequenceError,
            NakCode::SequenceError,
            NakCode::InvalidRequest,
            NakCode::RemoteAccessError,
            NakCode::RemoteOperationalError,
            NakCode::InvalidRdRequest,
        ])),
    };
    let aeth = Aeth { syndrome, msn: rng.below(1 << 24) as u32 };
    match rng.below(9) {
        0 => {
            let invalidate = (position.ends() && imm.is_none() && rng.chance(200)).then_some(rkey);
            Operation::Send { position, imm, invalidate }
        }
        1 => Operation::Send { position, imm, invalidate: None },
        2 | 3 => Operation::Write { position, reth: position.begins().then_some(reth), imm },
        4 => Operation::ReadRequest(reth),
        5 => {
            let aeth = (position != Position::Middle).then_some(aeth);
            Operation::ReadResponse { position, aeth }
        }
        6 => Operation::Acknowledge(aeth),
        7 => Operation::AtomicAcknowledge { aeth, original: rng.next() },
        _ if rng.chance(500) => Operation::CompareSwap(eth),
        _ => Operation::FetchAdd(eth),
    }
}
