//! The packets of sends and RDMA writes, which UC and RC make alike.

use super::common::Common;
use super::segment::{part, position};
use super::work::{SendOperation, SendRequest};
use super::{Host, MemoryError};
use crate::wire::{Operation, Packet, Position, Psn, Reth};

/// What a packet at this position of a send or RDMA write of `len` bytes is for; nothing for other requests.
fn operation(request: &SendRequest, position: Position, len: u64) -> Option<Operation> {
    Some(match request.operation {
        SendOperation::Send { imm } => {
            let imm = imm.filter(|_| position.ends());
            Operation::Send { position, imm, invalidate: None }
        }
        SendOperation::SendWithInvalidate { rkey } => {
            let invalidate = position.ends().then_some(rkey);
            Operation::Send { position, imm: None, invalidate }
        }
        SendOperation::Write { addr, rkey, imm } => {
            // Longer ones are refused before.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let reth = position.begins().then_some(Reth { addr, rkey, len });
            Operation::Write { position, reth, imm: imm.filter(|_| position.ends()) }
        }
        _ => return None,
    })
}

/// The packet with this index of a send or RDMA write of `len` bytes in `count` packets, with no acknowledgement asked for;
/// `Ok(None)` for other requests.
///
/// # Errors
///
/// If its memory cannot be read.
pub(super) fn packet(
    common: &Common,
    request: &SendRequest,
    (len, count, index): (u64, u64, u64),
    psn: Psn,
    host: &impl Host,
) -> Result<Option<Packet>, MemoryError> {
    let position = position(index, count);
    let Some(operation) = operation(request, position, len) else { return Ok(None) };
    let (offset, bytes) = part(index, len, common.mtu());
    let payload = common.gather(&request.payload, offset, bytes, host)?;
    let mut bth = common.bth(psn);
    bth.solicited = request.solicited && position.ends();
    Ok(Some(Packet { bth, deth: None, operation, payload }))
}
