//! Devices as the C interface uses them: with sockets, threads and the memory of this process.

mod calls;
mod forks;
mod groups;
mod packets;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Access, AsyncQueue, Channel, CqOwner, Device, Entry, Owner, Result};
use crate::options::Loopback;
use crate::transport::{
    Attributes, Config, CqId, Path, Payload, PdId, RecvRequest, RemoteAccess, SendOperation,
    SendRequest, Sge, State,
};
use crate::wire::{Psn, Service};

const ALL: Access = Access {
    local_write: true,
    remote_write: true,
    remote_read: true,
    remote_atomic: true,
    windows: true,
};
const QKEY: u32 = 0x1234_5678;
const CQ_TOKEN: usize = 41;
const QP_TOKEN: usize = 42;
/// Longer than anything takes, unless it never happens.
const LONG: Duration = Duration::from_secs(20);

/// A device with a queue pair and everything around it.
struct Side {
    device: Arc<Device>,
    pd: PdId,
    cq: CqId,
    qp_num: u32,
    channel: Arc<Channel>,
    async_queue: Arc<AsyncQueue>,
    /// Words, so that they can be read while the device writes.
    memory: Box<[AtomicU64]>,
    key: u32,
}

impl Side {
    fn new(device: &Arc<Device>, service: Service, words: usize) -> Side {
        let device = Arc::clone(device);
        let channel = Arc::new(Channel::new().unwrap());
        let async_queue = Arc::new(AsyncQueue::new().unwrap());
        let pd = device.alloc_pd().unwrap();
        let owner = CqOwner {
            token: CQ_TOKEN,
            channel: Some(Arc::clone(&channel)),
            async_queue: Arc::clone(&async_queue),
        };
        let cq = device.create_cq(256, owner).unwrap();
        let memory: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let addr = memory.as_ptr() as u64;
        // SAFETY: `drop` deregisters it before the memory goes; it is accessed with atomics.
        let key = unsafe { device.register(pd, addr, 8 * words as u64, addr, ALL) }.unwrap();
        let qp_num = create_qp(&device, service, pd, cq, &async_queue).unwrap();
        Side { device, pd, cq, qp_num, channel, async_queue, memory, key }
    }

    fn addr(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn sge(&self, word: usize, words: usize) -> Sge {
        Sge { addr: self.addr() + 8 * word as u64, len: 8 * words as u32, lkey: self.key }
    }

    fn path_to(&self, other: &Side) -> Path {
        Path {
            source: self.device.addr(),
            dest: other.device.addr(),
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        }
    }

    /// Brings the queue pair to a state, one after the other.
    fn bring_to_rts(&self, path: Option<Path>, dest_qp: u32) {
        for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
            let mut change = |_, attributes: &mut Attributes| {
                *attributes = Attributes {
                    pkey: 0xffff,
                    qkey: QKEY,
                    access: RemoteAccess { write: true, read: true, atomic: true },
                    path,
                    path_mtu: 1024,
                    dest_qp,
                    rq_psn: Psn::new(7),
                    sq_psn: Psn::new(7),
                    max_dest_rd_atomic: 4,
                    max_rd_atomic: 4,
                    min_rnr_timer: 1,
                    timeout: 14,
                    retry_count: 7,
                    rnr_retry: 7,
                };
                Ok(state)
            };
            self.device.modify_qp(self.qp_num, &mut change).unwrap();
        }
    }

    fn post_send(&self, wr_id: u64, operation: SendOperation, sges: Vec<Sge>) {
        self.device.post_send_all(self.qp_num, vec![send(wr_id, operation, sges)]).unwrap();
    }

    fn post_recv(&self, wr_id: u64, sges: Vec<Sge>) {
        let request = Ok(RecvRequest { wr_id, sges });
        self.device.post_recv(self.qp_num, &mut std::iter::once(request)).unwrap();
    }

    /// Polls until there is a completion.
    fn wait(&self) -> Entry {
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            if let Some(entry) = self.device.poll_cq(self.cq).unwrap() {
                return entry;
            }
        }
        panic!("no completion: {:?}", self.device);
    }

    fn load(&self, word: usize) -> u64 {
        self.memory[word].load(Ordering::Relaxed)
    }

    fn store(&self, word: usize, value: u64) {
        self.memory[word].store(value, Ordering::Relaxed);
    }

    /// Waits, without polling, until a word of the memory is what it should be.
    fn wait_for_word(&self, word: usize, value: u64) {
        let end = Instant::now() + LONG;
        while self.load(word) != value {
            assert!(Instant::now() < end, "the engine did nothing: {:?}", self.device);
            std::thread::yield_now();
        }
    }

    fn close(&self) {
        self.device.destroy_qp(self.qp_num).unwrap();
        self.device.deregister(self.key).unwrap();
        self.device.destroy_cq(self.cq).unwrap();
        self.device.dealloc_pd(self.pd).unwrap();
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // What was closed or is dead answers with an error; in any case, nobody uses the memory after this.
        let _ = self.device.deregister(self.key);
        let _ = self.device.destroy_qp(self.qp_num);
    }
}

fn create_qp(
    device: &Device,
    service: Service,
    pd: PdId,
    cq: CqId,
    async_queue: &Arc<AsyncQueue>,
) -> Result<u32> {
    let config = Config {
        qp_num: 0,
        service,
        pd,
        send_cq: cq,
        recv_cq: cq,
        srq: None,
        max_send_wr: 64,
        max_recv_wr: 64,
        signal_all: false,
    };
    let owner = Owner { token: QP_TOKEN, async_queue: Arc::clone(async_queue) };
    device.create_qp(config, owner)
}

fn send(wr_id: u64, operation: SendOperation, sges: Vec<Sge>) -> SendRequest {
    SendRequest {
        wr_id,
        operation,
        payload: Payload::Sges(sges),
        signaled: true,
        solicited: false,
        fenced: false,
    }
}

fn new_device(loopback: Loopback) -> Arc<Device> {
    Arc::new(Device::of_its_own(0, None, loopback))
}

/// The device at the only address of IPv6 that every machine has, and that tests take one after the other.
fn device_of_ipv6(loopback: Loopback) -> (MutexGuard<'static, ()>, Arc<Device>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let addr = Ipv6Addr::LOCALHOST.into();
    (turn, Arc::new(Device::of_its_own(14, Some(addr), loopback)))
}

/// Connected queue pairs: of two devices, or of one with itself.
fn connected(service: Service, devices: [&Arc<Device>; 2]) -> [Side; 2] {
    let sides = devices.map(|device| Side::new(device, service, 4096));
    let [one, other] = &sides;
    one.bring_to_rts(Some(one.path_to(other)), other.qp_num);
    other.bring_to_rts(Some(other.path_to(one)), one.qp_num);
    sides
}

/// All the ways that there are from one queue pair to another.
fn ways() -> [[Arc<Device>; 2]; 3] {
    let [memory, wire] = [Loopback::Memory, Loopback::Wire].map(new_device);
    let two = [Loopback::Memory, Loopback::Memory].map(new_device);
    [[Arc::clone(&memory), memory], [Arc::clone(&wire), wire], two]
}
