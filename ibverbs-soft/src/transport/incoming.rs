//! Messages that arrive in packets: sends and RDMA writes, which UC and RC take alike.

use super::common::{Common, Received};
use super::segment::MAX_MESSAGE;
use super::work::CompletionKind;
use super::{Host, RemoteAccess};
use crate::wire::{Bth, Operation, Packet, Position, Reth, Service};

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no receive. Nothing has changed: the packet can come again.
    NotReady,
    /// It is not valid here, or this queue pair does not allow such.
    Invalid,
    /// The message is longer than its receive.
    TooLong,
    /// A key or its rights do not allow it.
    RemoteAccess,
    /// The receive's memory cannot be written.
    LocalProtection,
    /// There is no such key here that the peer could withdraw.
    Invalidation,
}

/// The message of which more packets are to come, if there is one.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    message: Option<Message>,
}

#[derive(Clone, Copy, Debug)]
enum Message {
    /// A send, of which `len` bytes have come into the receive that is in use.
    Send { len: u32 },
    /// An RDMA write, of which `done` bytes have come.
    Write { reth: Reth, done: u32 },
}

const WRITE: RemoteAccess = RemoteAccess { write: true, read: false, atomic: false };

impl Incoming {
    /// Whether more packets of a message are to come.
    pub(super) fn is_open(&self) -> bool {
        self.message.is_some()
    }

    /// Forgets the message. A receive that it has is left in use, and taken by the next one.
    pub(super) fn abandon(&mut self) {
        self.message = None;
    }

    /// Takes a packet of a send or RDMA write. Returns whether its message is complete, and so its receive, if it took one.
    ///
    /// # Errors
    ///
    /// If it is not taken. A receive that was in use still is.
    pub(super) fn accept(
        &mut self,
        common: &mut Common,
        packet: &Packet,
        host: &mut impl Host,
    ) -> Result<bool, Fault> {
        let payload = &packet.payload[..];
        let (position, next) = match packet.operation {
            Operation::Send { position, imm, invalidate } => {
                let bth = &packet.bth;
                let end = (imm, invalidate);
                (position, self.accept_send(common, bth, position, end, payload, host)?)
            }
            Operation::Write { position, reth, imm } => {
                let bth = &packet.bth;
                (position, self.accept_write(common, bth, position, reth, imm, payload, host)?)
            }
            _ => return Err(Fault::Invalid),
        };
        let ends = position.ends();
        self.message = (!ends).then_some(next);
        Ok(ends)
    }

    fn accept_send(
        &self,
        common: &mut Common,
        bth: &Bth,
        position: Position,
        (imm, invalidate): (Option<u32>, Option<u32>),
        payload: &[u8],
        host: &mut impl Host,
    ) -> Result<Message, Fault> {
        // Unreliable connections have no such packets.
        if invalidate.is_some() && common.config.service != Service::Rc {
            return Err(Fault::Invalid);
        }
        let done = match (self.message, position.begins()) {
            (None, true) => 0,
            (Some(Message::Send { len }), false) => len,
            _ => return Err(Fault::Invalid),
        };
        check_size(position, payload.len(), common.mtu())?;
        let total = u64::from(done) + payload.len() as u64;
        if total > MAX_MESSAGE {
            return Err(Fault::Invalid);
        }
        let receive = common.receives.take(&common.config, host).ok_or(Fault::NotReady)?;
        if total > receive.room {
            return Err(Fault::TooLong);
        }
        common
            .scatter_received(u64::from(done), payload, host)
            .map_err(|_| Fault::LocalProtection)?;
        let len = total as u32;
        if position.ends() {
            if let Some(rkey) = invalidate {
                host.invalidate(common.config.through(), rkey).map_err(|_| Fault::Invalidation)?;
            }
            let received = received(CompletionKind::Recv, len, imm, bth);
            common.complete_receive(Received { invalidated: invalidate, ..received }, host);
        }
        Ok(Message::Send { len })
    }

    #[allow(clippy::too_many_arguments)]
    fn accept_write(
        &self,
        common: &mut Common,
        bth: &Bth,
        position: Position,
        reth: Option<Reth>,
        imm: Option<u32>,
        payload: &[u8],
        host: &mut impl Host,
    ) -> Result<Message, Fault> {
        let (reth, done) = match (self.message, position.begins(), reth) {
            (None, true, Some(reth)) => (reth, 0),
            (Some(Message::Write { reth, done }), false, None) => (reth, done),
            _ => return Err(Fault::Invalid),
        };
        check_size(position, payload.len(), common.mtu())?;
        let total = u64::from(done) + payload.len() as u64;
        let fits = match position.ends() {
            true => total == u64::from(reth.len),
            false => total < u64::from(reth.len),
        };
        if !fits || u64::from(reth.len) > MAX_MESSAGE || !common.attributes.access.write {
            return Err(Fault::Invalid);
        }
        let through = common.config.through();
        if position.begins() && reth.len > 0 {
            host.check_remote(through, reth.rkey, reth.addr, reth.len, WRITE)
                .map_err(|_| Fault::RemoteAccess)?;
        }
        if imm.is_some() {
            common.receives.take(&common.config, host).ok_or(Fault::NotReady)?;
        }
        if !payload.is_empty() {
            let addr = reth.addr.wrapping_add(u64::from(done));
            host.write_remote(through, reth.rkey, addr, payload)
                .map_err(|_| Fault::RemoteAccess)?;
        }
        let done = total as u32;
        if imm.is_some() {
            common
                .complete_receive(received(CompletionKind::RecvWriteWithImm, done, imm, bth), host);
        }
        Ok(Message::Write { reth, done })
    }
}

fn received(kind: CompletionKind, len: u32, imm: Option<u32>, bth: &Bth) -> Received {
    Received {
        kind,
        len,
        imm,
        invalidated: None,
        src_qp: 0,
        source: None,
        grh: false,
        solicited: bth.solicited,
    }
}

/// All packets but the last of a message are full, and none that follows another is empty.
fn check_size(position: Position, len: usize, mtu: u32) -> Result<(), Fault> {
    let mtu = mtu as usize;
    let valid = match position {
        Position::First | Position::Middle => len == mtu,
        Position::Last => (1..=mtu).contains(&len),
        Position::Only => len <= mtu,
    };
    if valid {
        Ok(())
    } else {
        Err(Fault::Invalid)
    }
}
