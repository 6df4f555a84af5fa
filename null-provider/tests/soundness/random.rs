//! Resources in random order: whatever safe code does, nothing is used after its end, no lock is
//! taken twice, and in the end nothing is left.

use ibverbs::{
    AccessFlags, AddressHandle, CompletionChannel, CompletionQueue, Completions, Context, Error,
    Gid, MemoryRegion, MemoryWindow, ProtectionDomain, QueuePair, Rc, RecvRequest, SendOps,
    SharedReceiveQueue, SharedRegion, Ud,
};
use null_provider::Verb;

use crate::common::{activated, complete, null, open, post, some_handle, submit, Null, QKEY};

/// Marsaglia's xorshift, so that a failure can be repeated from its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as usize) % limit
    }

    /// Takes a random element out.
    pub(crate) fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        (!from.is_empty()).then(|| from.swap_remove(self.below(from.len())))
    }
}

/// Rights with which memory can be shown through a window.
const BINDABLE: AccessFlags = AccessFlags::LOCAL_WRITE.union(AccessFlags::MW_BIND);

#[derive(Default)]
struct World {
    contexts: Vec<Context>,
    domains: Vec<ProtectionDomain>,
    regions: Vec<MemoryRegion>,
    queues: Vec<CompletionQueue>,
    pairs: Vec<QueuePair<Rc>>,
    datagrams: Vec<QueuePair<Ud>>,
    handles: Vec<AddressHandle>,
    shared: Vec<SharedReceiveQueue>,
    windows: Vec<MemoryWindow>,
    channels: Vec<CompletionChannel>,
    memory: Vec<SharedRegion>,
}

impl World {
    fn create(&mut self, random: &mut Random) {
        match random.below(14) {
            0 => self.contexts.push(open(random.below(2))),
            1 => self.contexts.extend(self.contexts.first().cloned()),
            2 => self.domains.extend(self.contexts.last().map(|ctx| ctx.alloc_pd().unwrap())),
            3 => self
                .queues
                .extend(self.contexts.last().map(|ctx| ctx.create_cq(4).build().unwrap())),
            4 => {
                let access = [BINDABLE, AccessFlags::PERMISSIVE][random.below(2)];
                let region = self.domains.last().map(|pd| pd.allocate(8, access).unwrap());
                if let (Some(region), AccessFlags::PERMISSIVE) = (&region, access) {
                    // SAFETY: there is no peer.
                    unsafe { region.remote() }.unwrap();
                }
                self.regions.extend(region);
            }
            5 => self.handles.extend(self.domains.last().map(some_handle)),
            6 => {
                self.shared.extend(self.domains.last().map(|pd| pd.create_srq(4).build().unwrap()))
            }
            7 => self.windows.extend(self.domains.last().map(|pd| pd.alloc_window().unwrap())),
            8 => self
                .channels
                .extend(self.contexts.last().map(|ctx| ctx.create_comp_channel().unwrap())),
            9 => {
                let Some(channel) = self.channels.last() else { return };
                let ctx = channel.context();
                self.queues.push(ctx.create_cq(4).set_comp_channel(channel).build().unwrap());
            }
            10 => {
                let access = AccessFlags::PERMISSIVE | AccessFlags::MW_BIND;
                self.memory
                    .extend(self.domains.last().map(|pd| pd.allocate_shared(64, access).unwrap()));
            }
            kind => {
                let Some(pd) = self.domains.last() else { return };
                let mut matching =
                    self.queues.iter().filter(|cq| cq.context().as_raw() == pd.context().as_raw());
                let Some(send_cq) = matching.next() else { return };
                if kind == 11 {
                    self.datagrams.push(activated(pd, send_cq));
                } else {
                    let recv_cq = matching.next().unwrap_or(send_cq);
                    self.pairs.push(self.connected_to(pd, send_cq, recv_cq));
                }
            }
        }
    }

    /// A queue pair that takes its receives from a shared queue, if there is one of the domain.
    fn connected_to(
        &self,
        pd: &ProtectionDomain,
        send_cq: &CompletionQueue,
        recv_cq: &CompletionQueue,
    ) -> QueuePair<Rc> {
        let builder = pd.create_qp::<Rc>(send_cq, recv_cq, 1).unwrap();
        let builder = builder.set_send_ops(SendOps::all()).set_max_inline_data(64);
        let shared = self.shared.last().map(|srq| builder.clone().set_srq(srq).build());
        let prepared = match shared {
            Some(Ok(prepared)) => prepared,
            None | Some(Err(Error::ProtectionDomainMismatch { .. })) => builder.build().unwrap(),
            Some(Err(other)) => panic!("{other}"),
        };
        let endpoint = prepared.endpoint().unwrap();
        prepared.handshake(endpoint).unwrap()
    }

    /// Binds a window that may be of another domain, bound or freed to a region that may be of another domain.
    fn bind_a_window(&mut self, random: &mut Random) {
        let Some(mut window) = random.take(&mut self.windows) else { return };
        let (Some(qp), Some(region)) = (self.pairs.last_mut(), self.regions.last()) else { return };
        let mut batch = qp.start_send();
        // SAFETY: there is no peer.
        unsafe { batch.op().bind_window(4, &mut window, region, .., AccessFlags::REMOTE_READ) };
        if random.below(2) == 0 {
            batch.op().local_inv(5, window.rkey());
        }
        match submit(batch) {
            Ok(()) | Err(Error::ProtectionDomainMismatch { .. }) => {}
            Err(Error::WindowFreed | Error::InvalidAccess { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        self.windows.push(window);
    }

    fn use_a_pair(&mut self, random: &mut Random) {
        let Some(qp) = self.pairs.last_mut() else { return };
        match post(qp, [RecvRequest::new(1, &[])]) {
            Ok(()) | Err(Error::NoReceiveQueue) => {}
            Err(other) => panic!("{other}"),
        }
        let mut batch = qp.start_send();
        batch.op().signaled().send(2, b"two");
        match random.below(3) {
            0 => drop(batch),
            1 => submit(batch).unwrap(),
            _ => std::mem::forget(batch),
        }
    }

    /// Posts shared memory, of this domain or another, which stays in flight.
    fn use_memory(&mut self, random: &mut Random) {
        let place = random.below(self.memory.len().max(1));
        let Some(memory) = self.memory.get_mut(place) else { return };
        if random.below(4) == 0 {
            let rest = memory.split_off(memory.len() / 2);
            return self.memory.push(rest);
        }
        let (place, slices) = (random.below(self.pairs.len().max(1)), [memory.slice(..)]);
        let posted = match (random.below(3), self.pairs.get_mut(place)) {
            (0, Some(qp)) => qp.post_recv_shared([RecvRequest::shared(6, &slices)]),
            (1, Some(qp)) => {
                let mut batch = qp.start_shared();
                batch.op().signaled().send(7, &slices);
                match random.below(4) {
                    0 => {
                        drop(batch);
                        Ok(())
                    }
                    1 => {
                        std::mem::forget(batch);
                        Ok(())
                    }
                    _ => batch.submit(),
                }
            }
            _ => match self.shared.last() {
                Some(srq) => srq.post_recv_shared([RecvRequest::shared(8, &slices)]),
                None => return,
            },
        };
        match posted {
            Ok(()) | Err(Error::ProtectionDomainMismatch { .. } | Error::NoReceiveQueue) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Sends datagrams along handles of any domain, of which some go before their batch, and joins and leaves
    /// groups.
    fn use_datagrams(&mut self, random: &mut Random) {
        let Some(qp) = self.datagrams.last_mut() else { return };
        let gid = Gid::from([[0xff; 16], [0xfe; 16]][random.below(2)]);
        match random.below(3) {
            0 => drop(qp.attach_mcast(gid, 0)),
            1 => drop(qp.detach_mcast(gid, 0)),
            _ => {}
        }
        let mut batch = qp.start_send();
        for _ in 0..random.below(3) {
            if let Some(ah) = random.take(&mut self.handles) {
                batch.to(&ah, 17, QKEY).signaled().send(3, b"three");
                if random.below(2) == 0 {
                    self.handles.push(ah);
                }
            }
        }
        match random.below(3) {
            0 => drop(batch),
            1 => match submit(batch) {
                Ok(()) | Err(Error::ProtectionDomainMismatch { .. }) => {}
                Err(other) => panic!("{other}"),
            },
            _ => std::mem::forget(batch),
        }
    }

    /// Drops, closes or resets something, successfully or not.
    fn end(&mut self, random: &mut Random) {
        match random.below(17) {
            0 => drop(random.take(&mut self.contexts)),
            1 => drop(random.take(&mut self.domains).map(ProtectionDomain::close)),
            2 => {
                // One to which a window is bound would be leaked.
                if let Some(Err(failed)) = random.take(&mut self.regions).map(MemoryRegion::close) {
                    self.regions.push(failed.resource);
                }
            }
            3 => drop(random.take(&mut self.queues).map(CompletionQueue::close)),
            4 => drop(random.take(&mut self.pairs)),
            7 => drop(random.take(&mut self.handles).map(AddressHandle::close)),
            8 => drop(random.take(&mut self.datagrams)),
            9 => {
                if let Some(Err(failed)) = random.take(&mut self.datagrams).map(QueuePair::close) {
                    self.datagrams.push(failed.resource);
                }
            }
            10 => drop(random.take(&mut self.shared)),
            11 => drop(random.take(&mut self.shared).map(SharedReceiveQueue::close)),
            12 => drop(random.take(&mut self.windows)),
            13 => drop(random.take(&mut self.windows).map(MemoryWindow::close)),
            14 => drop(random.take(&mut self.channels)),
            15 => drop(random.take(&mut self.channels).map(CompletionChannel::close)),
            16 => drop(random.take(&mut self.memory)),
            5 => {
                if let Some(Err(failed)) = random.take(&mut self.pairs).map(QueuePair::close) {
                    self.pairs.push(failed.resource);
                }
            }
            _ => {
                if let Some(Err(failed)) = random.take(&mut self.pairs).map(QueuePair::reset) {
                    self.pairs.push(failed.resource);
                }
            }
        }
    }

    /// Polls a queue, and lets other things happen while the poll is open.
    fn poll(&mut self, null: &Null, random: &mut Random) {
        let Some(cq) = random.take(&mut self.queues) else { return };
        complete(null, &cq, 0..random.below(3) as u64);
        // Refused if an earlier poll was forgotten.
        if let Ok(Some(mut completions)) = cq.poll() {
            for _ in 0..random.below(5) {
                match random.below(3) {
                    0 => self.end(random),
                    1 => self.create(random),
                    _ => read(&mut completions),
                }
                assert!(cq.poll().is_err());
            }
            if random.below(4) == 0 {
                std::mem::forget(completions);
            }
        }
        self.queues.push(cq);
    }
}

fn read(completions: &mut Completions<'_>) {
    if let Some(wc) = completions.next() {
        wc.ok().unwrap();
        assert!(wc.wr_id() < 3 && wc.imm_data().is_none() && wc.flow_tag().is_none());
    }
}

/// What destroys something, or makes ready to.
const DESTROYING: [Verb; 10] = [
    Verb::CloseDevice,
    Verb::DeallocPd,
    Verb::DeregMr,
    Verb::DestroyCq,
    Verb::DestroyQp,
    Verb::DestroySrq,
    Verb::DestroyAh,
    Verb::DeallocMw,
    Verb::DestroyCompChannel,
    Verb::DetachMcast,
];

/// Makes and uses things at random, and drops them all in random order. If `fails`, destroying fails now and then.
fn live_and_end(null: &Null, random: &mut Random, fails: bool) {
    null.configure(|config| config.keeps_work = true);
    let fail = |random: &mut Random| {
        if fails && random.below(6) == 0 {
            let code = [libc::EIO, libc::EBUSY][random.below(2)];
            null.fail_once(DESTROYING[random.below(DESTROYING.len())], code);
        }
    };
    let mut world = World::default();
    for _ in 0..80 {
        fail(random);
        match random.below(9) {
            0..=2 => world.create(random),
            3 => world.use_a_pair(random),
            4 => world.poll(null, random),
            5 => world.use_datagrams(random),
            6 => world.bind_a_window(random),
            7 => world.use_memory(random),
            _ => world.end(random),
        }
    }
    let World {
        contexts,
        domains,
        regions,
        queues,
        pairs,
        datagrams,
        handles,
        shared,
        windows,
        channels,
        memory,
    } = world;
    // Fields of a structure are dropped in one order only.
    let mut rest: Vec<Box<dyn FnOnce()>> = vec![
        Box::new(|| drop(contexts)),
        Box::new(|| drop(domains)),
        Box::new(|| drop(queues)),
        Box::new(|| drop(pairs)),
        Box::new(|| drop(datagrams)),
        Box::new(|| drop(handles)),
        Box::new(|| drop(shared)),
        Box::new(|| drop(channels)),
        Box::new(|| drop(memory)),
        Box::new(|| drop((windows, regions))),
    ];
    while let Some(end) = random.take(&mut rest) {
        fail(random);
        end();
    }
}

#[test]
fn nothing_is_left_whatever_is_dropped_when() {
    let null = null();
    for seed in 0..if cfg!(miri) { 5 } else { 600 } {
        live_and_end(&null, &mut Random::new(seed), false);
        assert_eq!(null.take_violations(), [""; 0], "seed {seed}");
        assert_eq!(null.all_live(), [], "seed {seed}");
    }
}

#[test]
fn leaking_is_left_to_what_cannot_be_destroyed() {
    let null = null();
    let mut leaks = 0;
    for seed in 0..if cfg!(miri) { 5 } else { 600 } {
        live_and_end(&null, &mut Random::new(seed), true);
        assert_eq!(null.take_violations(), [""; 0], "seed {seed}");
        assert_eq!(null.leaked_without_reason(), [], "seed {seed}");
        leaks += usize::from(!null.all_live().is_empty());
        null.reset();
    }
    assert!(leaks > 0, "nothing failed");
}
