//! The owned level in random order: buffers, queues, pools and domains come and go, and posts fail, with work in flight.
//! A buffer that somebody has is not with a device, and one that is comes back or is leaked with its queue.

use std::collections::HashMap;

use ibverbs::{
    Buffer, BufferPool, Context, OwnedCompletionQueue, OwnedQueuePair, OwnedSharedReceiveQueue,
    ProtectionDomain, Rc,
};
use null_provider::{Payload, PostLimit};

use crate::common::{null, open, Null};
use crate::owned::complete;
use crate::random::Random;

/// A queue pair, and what tells it from others.
struct Pair {
    qp: OwnedQueuePair<Rc>,
    /// Which of the completion queues.
    cq: usize,
    has_srq: bool,
}

/// Of one domain; all are dropped in random order.
struct World {
    contexts: Vec<Context>,
    domains: Vec<ProtectionDomain>,
    pools: Vec<BufferPool>,
    queues: Vec<Option<OwnedCompletionQueue>>,
    pairs: Vec<Pair>,
    shared: Vec<OwnedSharedReceiveQueue>,
    buffers: Vec<Buffer>,
    /// What was posted and is with a device: the buffer's address, by identifier, with the queue that completes it.
    posted: HashMap<u64, (usize, u64, usize)>,
}

impl World {
    fn new() -> World {
        let ctx = open(0);
        let pd = ctx.alloc_pd().unwrap();
        let pools = (0..2).map(|_| pd.buffer_pool(12, 64).unwrap()).collect();
        let queues = (0..3).map(|_| Some(ctx.create_cq(64).build_owned().unwrap())).collect();
        let shared = vec![pd.create_srq(4).build_owned().unwrap()];
        World {
            contexts: vec![ctx],
            domains: vec![pd],
            pools,
            queues,
            pairs: Vec::new(),
            shared,
            buffers: Vec::new(),
            posted: HashMap::new(),
        }
    }

    fn buffer(&mut self, random: &mut Random) -> Option<Buffer> {
        if random.below(2) == 0 {
            if let Some(buffer) = self.buffers.pop() {
                return Some(buffer);
            }
        }
        let len = self.pools.len();
        let buffer = self.pools.get(random.below(len.max(1)))?.take()?;
        self.check_free(&buffer);
        Some(buffer)
    }

    /// That no device has this buffer.
    #[track_caller]
    fn check_free(&self, buffer: &Buffer) {
        let address = buffer.as_ptr() as u64;
        let with = self.posted.values().find(|posted| posted.1 == address);
        assert!(with.is_none(), "a buffer was handed out that is posted: {with:?}");
    }

    /// That a device which reads what is posted finds it mapped.
    fn read_as_devices(&self) {
        for &(_, address, _) in self.posted.values() {
            // SAFETY: what is posted is mapped and initialised, which is what is tested; this is the only thread.
            unsafe { (address as *const u8).read_volatile() };
        }
    }

    fn create_pair(&mut self, random: &mut Random) {
        let cq = random.below(self.queues.len());
        let (Some(pd), Some(queue)) = (self.domains.last(), &self.queues[cq]) else { return };
        let mut builder = pd.create_owned_qp::<Rc>(queue, queue, 1).unwrap();
        builder = builder.set_max_send_wr(4).set_max_recv_wr(4);
        let srq = self.shared.last().filter(|_| random.below(3) == 0);
        if let Some(srq) = srq {
            builder = builder.set_srq(srq);
        }
        let has_srq = srq.is_some();
        let prepared = builder.build().unwrap();
        let endpoint = prepared.endpoint().unwrap();
        self.pairs.push(Pair { qp: prepared.handshake(endpoint).unwrap(), cq, has_srq });
    }

    fn post(&mut self, null: &Null, random: &mut Random) {
        let accept = random.below(3);
        let limit = PostLimit { accept, code: libc::ENOMEM, set_bad_wr: true };
        let limit = (random.below(3) == 0).then_some(limit);
        null.configure(|config| (config.send_limit, config.recv_limit) = (limit, limit));
        let place = random.below(self.pairs.len().max(1));
        let count = random.below(3) + 1;
        let buffers: Vec<_> = (0..count).map_while(|_| self.buffer(random)).collect();
        let mut back = Vec::new();
        match (random.below(3), self.pairs.get_mut(place)) {
            (0, Some(pair)) => {
                let mut batch = pair.qp.start_send();
                for buffer in buffers {
                    let op = batch.op();
                    let op = if random.below(2) == 0 { op.unsignaled() } else { op };
                    op.send(1, buffer, 8);
                }
                match random.below(6) {
                    0 => drop(batch),
                    _ => back.extend(batch.submit().err().into_iter().flat_map(|f| f.resource)),
                }
            }
            (1, Some(pair)) if !pair.has_srq => {
                let mut receives: Vec<_> = buffers.into_iter().map(|buffer| (2, buffer)).collect();
                let _ = pair.qp.post_recv_all(&mut receives);
                back.extend(receives.into_iter().map(|(_, buffer)| buffer));
            }
            _ => {
                if let Some(srq) = self.shared.last_mut() {
                    for buffer in buffers {
                        let failed = srq.post_recv(3, buffer).err();
                        back.extend(failed.and_then(|failed| failed.resource));
                    }
                }
            }
        }
        let pair = self.pairs.get(place).map_or(0, |pair| pair.qp.qp_num());
        let cq = self.pairs.get(place).map_or(usize::MAX, |pair| pair.cq);
        for request in null.take_requests() {
            let Payload::Scatter(entries) = &request.payload else { panic!("{request:?}") };
            // The receives of the shared queue may complete anywhere.
            let (num, cq) = if request.qp_num == pair { (pair, cq) } else { (0, usize::MAX) };
            self.posted.insert(request.wr_id, (cq, entries[0].0, num as usize));
        }
        back.iter().for_each(|buffer| self.check_free(buffer));
        self.buffers.extend(back);
    }

    fn complete(&mut self, null: &Null, random: &mut Random) {
        let mut ids: Vec<_> = self.posted.keys().copied().collect();
        // In the order in which they were posted to each queue, as devices do.
        ids.sort_unstable();
        let place = random.below(ids.len().max(1));
        let Some(id) = ids.get(place) else { return };
        let &(cq, _, num) = &self.posted[id];
        let first = ids.iter().find(|other| self.posted[other].2 == num).copied();
        let (Some(first), true) = (first, num != 0 || self.posted.contains_key(id)) else { return };
        let id = if num == 0 { *id } else { first };
        let cq = if cq == usize::MAX { random.below(self.queues.len()) } else { cq };
        // A receive of the shared queue completes where a queue pair took it.
        let taken = num != 0 || self.pairs.iter().any(|pair| pair.has_srq && pair.cq == cq);
        if let (Some(queue), true) = (&self.queues[cq], taken) {
            self.posted.remove(&id);
            complete(null, queue, id);
        }
    }

    fn poll(&mut self, random: &mut Random) {
        let place = random.below(self.queues.len());
        let Some(queue) = &self.queues[place] else { return };
        let mut found = Vec::new();
        if let Some(mut completions) = queue.poll().unwrap() {
            while let Some(mut completion) = completions.next() {
                if random.below(4) > 0 {
                    found.extend(std::iter::from_fn(|| completion.take()));
                }
            }
        }
        for buffer in &found {
            // One that was not signaled is done without having completed.
            self.posted.retain(|_, posted| posted.1 != buffer.as_ptr() as u64);
        }
        self.buffers.extend(found);
    }

    /// Drops something, whatever it is.
    fn drop_something(&mut self, null: &Null, random: &mut Random) {
        match random.below(9) {
            0 | 1 => drop(self.buffers.pop()),
            2 => drop(random.take(&mut self.pools)),
            3 => {
                let place = random.below(self.queues.len());
                drop(self.queues[place].take());
            }
            4 if self.pairs.iter().all(|pair| !pair.has_srq) => {
                self.posted.retain(|_, posted| posted.2 != 0);
                drop(random.take(&mut self.shared));
            }
            5 => drop(random.take(&mut self.domains)),
            6 => drop(random.take(&mut self.contexts)),
            _ => {
                let Some(Pair { qp, cq, has_srq }) = random.take(&mut self.pairs) else { return };
                let num = qp.qp_num() as usize;
                null.take_requests();
                match (random.below(3), &self.queues[cq]) {
                    (0, Some(queue)) => {
                        self.posted.retain(|_, posted| posted.2 != num);
                        let drained = qp.drain(&[queue]).unwrap();
                        self.buffers.extend(drained);
                    }
                    (1, _) => {
                        self.posted.retain(|_, posted| posted.2 != num);
                        let prepared = qp.reset().unwrap();
                        let endpoint = prepared.endpoint().unwrap();
                        let qp = prepared.handshake(endpoint).unwrap();
                        self.pairs.push(Pair { qp, cq, has_srq });
                    }
                    _ => {
                        drop(qp);
                        self.posted.retain(|_, posted| posted.2 != num);
                    }
                }
            }
        }
    }
}

#[test]
fn buffers_are_in_one_place_whatever_happens() {
    let null = null();
    let seeds = if cfg!(miri) { 2 } else { 150 };
    for seed in 0..seeds {
        let random = &mut Random::new(seed);
        let mut world = World::new();
        for _ in 0..120 {
            match random.below(12) {
                0 | 1 => world.create_pair(random),
                2..=5 => world.post(&null, random),
                6 | 7 => world.complete(&null, random),
                8..=10 => world.poll(random),
                _ => world.drop_something(&null, random),
            }
            world.read_as_devices();
        }
        // What is left goes in random order, too.
        while !(world.pairs.is_empty() && world.shared.is_empty()) {
            world.drop_something(&null, random);
            world.read_as_devices();
        }
        drop(world);
        assert_eq!(null.all_live(), [], "seed {seed}");
    }
}
