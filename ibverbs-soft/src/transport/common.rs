//! What queue pairs of all services have.

use std::net::IpAddr;

use super::receive_queue::ReceiveQueue;
use super::srd;
use super::work::{
    Completion, CompletionKind, Payload, SendOperation, SendRequest, Sge, SrdOperation, Status,
};
use super::{
    Attributes, Config, Host, MemoryError, Path, QpEvent, RecvRequest, RemoteAccess, State,
    Transmit,
};
use crate::wire::{Bth, Packet, Psn, Service};

/// Why something was completed on the receive side, and with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) kind: CompletionKind,
    pub(super) len: u32,
    pub(super) imm: Option<u32>,
    /// The key that the peer has withdrawn.
    pub(super) invalidated: Option<u32>,
    /// The queue pair that sent a datagram; else 0.
    pub(super) src_qp: u32,
    /// The address that it was sent from, of a reliable datagram.
    pub(super) source: Option<IpAddr>,
    /// Whether the first 40 bytes are a GRH.
    pub(super) grh: bool,
    pub(super) solicited: bool,
}

/// What queue pairs of all services have.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) config: Config,
    pub(super) attributes: Attributes,
    pub(super) state: State,
    /// Whether `SendQueueDrained` is still to be raised.
    pub(super) draining: bool,
    /// Whether a packet has come since the last reset, or the queue pair was told to send.
    pub(super) established: bool,
    pub(super) receives: ReceiveQueue,
}

/// The attributes of a queue pair in `Reset`.
const RESET: Attributes = Attributes {
    pkey: 0xffff,
    qkey: 0,
    access: RemoteAccess { write: false, read: false, atomic: false },
    path: None,
    path_mtu: 256,
    dest_qp: 0,
    rq_psn: Psn::new(0),
    sq_psn: Psn::new(0),
    max_dest_rd_atomic: 0,
    max_rd_atomic: 0,
    min_rnr_timer: 0,
    timeout: 0,
    retry_count: 0,
    rnr_retry: 0,
};

impl Common {
    pub(super) fn new(config: Config) -> Common {
        Common {
            config,
            attributes: RESET,
            state: State::Reset,
            draining: false,
            established: false,
            receives: ReceiveQueue::default(),
        }
    }

    /// The path MTU: never 0, whatever it was set to.
    pub(super) fn mtu(&self) -> u32 {
        self.attributes.path_mtu.max(1)
    }

    /// Whether packets are taken in this state.
    pub(super) fn receives_packets(&self) -> bool {
        !matches!(self.state, State::Reset | State::Init | State::Error)
    }

    /// Whether sends may be started in this state.
    pub(super) fn starts_sends(&self) -> bool {
        self.state == State::ReadyToSend
    }

    /// Whether a packet belongs to this queue pair's service and partition.
    pub(super) fn is_for_us(&self, packet: &Packet) -> bool {
        // The highest bit says what kind of member one is, and at least one of two must be a full one.
        const MEMBER: u16 = 0x8000;
        let (ours, theirs) = (self.attributes.pkey, packet.bth.pkey);
        packet.bth.service == self.config.service
            && (ours ^ theirs) & !MEMBER == 0
            && (ours | theirs) & MEMBER != 0
    }

    /// Whether a packet that came this way comes from the peer of this connection.
    pub(super) fn is_from_peer(&self, arrived: &Path) -> bool {
        self.attributes
            .path
            .is_some_and(|path| arrived.source == path.dest && arrived.dest == path.source)
    }

    /// Notes that a packet has come: the first one before the queue pair was told to send raises an event.
    pub(super) fn note_arrival(&mut self, host: &mut impl Host) {
        if !self.established {
            self.established = true;
            host.raise(self.config.qp_num, QpEvent::CommunicationEstablished);
        }
    }

    /// The base header of a packet to the peer of this connection.
    pub(super) fn bth(&self, psn: Psn) -> Bth {
        Bth {
            service: self.config.service,
            solicited: false,
            migrated: true,
            pkey: self.attributes.pkey,
            dest_qp: self.attributes.dest_qp,
            ack_request: false,
            psn,
        }
    }

    /// A packet on its way to the peer of this connection.
    pub(super) fn to_peer(&self, packet: Packet) -> Option<Transmit> {
        Some(Transmit { path: self.attributes.path?, packet })
    }

    /// Ends a send: a success makes a completion if it was asked for.
    pub(super) fn complete_send(
        &self,
        request: &SendRequest,
        len: u64,
        status: Status,
        host: &mut impl Host,
    ) {
        if status == Status::Success && !request.signaled && !self.config.signal_all {
            return;
        }
        let kind = match request.operation {
            SendOperation::Send { .. }
            | SendOperation::SendWithInvalidate { .. }
            | SendOperation::Datagram { .. } => CompletionKind::Send,
            SendOperation::Srd { operation: SrdOperation::Write { .. }, .. } => {
                CompletionKind::Write
            }
            // EFA tells writes and the rest apart.
            SendOperation::Srd { .. } => CompletionKind::Send,
            SendOperation::Write { .. } => CompletionKind::Write,
            SendOperation::Read { .. } => CompletionKind::Read,
            SendOperation::CompareSwap { .. } => CompletionKind::CompareSwap,
            SendOperation::FetchAdd { .. } => CompletionKind::FetchAdd,
            SendOperation::Bind(_) => CompletionKind::Bind,
            SendOperation::LocalInvalidate { .. } => CompletionKind::LocalInvalidate,
        };
        let completion = Completion {
            wr_id: request.wr_id,
            status,
            kind,
            qp_num: self.config.qp_num,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            imm: None,
            invalidated: None,
            src_qp: 0,
            source: None,
            vendor_error: self.vendor_error(status),
            grh: false,
            solicited: false,
        };
        host.complete(self.config.send_cq, completion);
    }

    /// Ends the receive that is in use, if there is one, with a success.
    pub(super) fn complete_receive(&mut self, received: Received, host: &mut impl Host) {
        if let Some(request) = self.receives.finish() {
            self.end_receive(&request, Status::Success, received, host);
        }
    }

    /// Ends the receive that is in use, if there is one, with an error.
    pub(super) fn fail_receive(&mut self, status: Status, host: &mut impl Host) {
        if let Some(request) = self.receives.finish() {
            self.end_receive(&request, status, NOTHING, host);
        }
    }

    fn end_receive(
        &self,
        request: &RecvRequest,
        status: Status,
        received: Received,
        host: &mut impl Host,
    ) {
        let Received { kind, len, imm, invalidated, src_qp, source, grh, solicited } = received;
        let completion = Completion {
            wr_id: request.wr_id,
            status,
            kind,
            qp_num: self.config.qp_num,
            len,
            imm,
            invalidated,
            src_qp,
            source,
            vendor_error: self.vendor_error(status),
            grh,
            solicited,
        };
        host.complete(self.config.recv_cq, completion);
    }

    /// What the vendor's code for a status is.
    fn vendor_error(&self, status: Status) -> u32 {
        match self.config.service {
            Service::Srd => srd::vendor_error(status),
            Service::Rc | Service::Uc | Service::Ud => 0,
        }
    }

    /// Carries out a request that is done here.
    ///
    /// # Errors
    ///
    /// If it cannot be, or is one that is sent.
    pub(super) fn carry_out(
        &self,
        request: &SendRequest,
        host: &mut impl Host,
    ) -> Result<(), Status> {
        let through = self.config.through();
        let done = match &request.operation {
            SendOperation::Bind(bind) => host.bind_window(through, bind),
            SendOperation::LocalInvalidate { rkey } => host.invalidate(through, *rkey),
            _ => return Err(Status::LocalQpOperation),
        };
        done.map_err(|_| Status::WindowBind)
    }

    /// Posts a receive: in `Error` it is flushed.
    pub(super) fn post_recv(&mut self, request: RecvRequest, host: &mut impl Host) {
        if self.state == State::Error {
            self.end_receive(&request, Status::WorkRequestFlushed, NOTHING, host);
        } else {
            self.receives.push(request);
        }
    }

    /// Goes to `Error`: flushes the receives. The service has flushed its sends.
    pub(super) fn fail(&mut self, host: &mut impl Host) {
        if self.state == State::Error {
            return;
        }
        self.state = State::Error;
        self.draining = false;
        while let Some(request) = self.receives.pop() {
            self.end_receive(&request, Status::WorkRequestFlushed, NOTHING, host);
        }
        if self.config.srq.is_some() {
            host.raise(self.config.qp_num, QpEvent::LastRequestReached);
        }
    }

    /// Tells that what was begun is finished, if that was to be told.
    pub(super) fn drained(&mut self, host: &mut impl Host) {
        if self.draining {
            self.draining = false;
            host.raise(self.config.qp_num, QpEvent::SendQueueDrained);
        }
    }

    /// Whether all bytes of a request can be read.
    pub(super) fn check_payload(&self, payload: &Payload, host: &impl Host) -> Result<(), Status> {
        let Payload::Sges(sges) = payload else { return Ok(()) };
        sges.iter()
            .try_for_each(|sge| host.check_local(self.config.pd, sge, false))
            .map_err(|_| Status::LocalProtection)
    }

    /// Copies `len` bytes of a request, from `offset` on.
    pub(super) fn gather(
        &self,
        payload: &Payload,
        offset: u64,
        len: usize,
        host: &impl Host,
    ) -> Result<Vec<u8>, MemoryError> {
        let sges = match payload {
            Payload::Inline(bytes) => {
                let start = usize::try_from(offset).map_err(|_| MemoryError)?;
                let end = start.checked_add(len).ok_or(MemoryError)?;
                return bytes.get(start..end).map(<[u8]>::to_vec).ok_or(MemoryError);
            }
            Payload::Sges(sges) => sges,
        };
        let mut bytes = vec![0; len];
        for (sge, offset, range) in pieces(sges, offset, len) {
            host.read_local(self.config.pd, sge, offset, &mut bytes[range])?;
        }
        Ok(bytes)
    }

    /// Copies bytes into scatter entries, from `offset` on. What does not fit is left out.
    pub(super) fn scatter(
        &self,
        sges: &[Sge],
        offset: u64,
        bytes: &[u8],
        host: &impl Host,
    ) -> Result<(), MemoryError> {
        for (sge, offset, range) in pieces(sges, offset, bytes.len()) {
            host.write_local(self.config.pd, sge, offset, &bytes[range])?;
        }
        Ok(())
    }

    /// Copies bytes into the receive that is in use, from `offset` on.
    pub(super) fn scatter_received(
        &self,
        offset: u64,
        bytes: &[u8],
        host: &impl Host,
    ) -> Result<(), MemoryError> {
        match self.receives.current() {
            Some(current) => self.scatter(&current.request.sges, offset, bytes, host),
            None => Err(MemoryError),
        }
    }
}

/// A completion that failed says nothing else.
const NOTHING: Received = Received {
    kind: CompletionKind::Recv,
    len: 0,
    imm: None,
    invalidated: None,
    src_qp: 0,
    source: None,
    grh: false,
    solicited: false,
};

/// Which parts of scatter entries the `len` bytes from `offset` on are: the entry, the offset in it, and which of the bytes.
fn pieces(
    sges: &[Sge],
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (&Sge, u32, std::ops::Range<usize>)> {
    let mut skip = offset;
    let mut done = 0;
    sges.iter().filter_map(move |sge| {
        let sge_len = u64::from(sge.len);
        if skip >= sge_len {
            skip -= sge_len;
            return None;
        }
        // Less than the length of the entry.
        let start = skip as u32;
        skip = 0;
        let take = (sge.len - start).min(u32::try_from(len - done).unwrap_or(u32::MAX)) as usize;
        let range = done..done + take;
        done += take;
        (take > 0).then_some((sge, start, range))
    })
}
