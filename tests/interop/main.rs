//! Two processes that do everything to each other that devices do, each on a device of its own, and check it: one on the
//! software device and one on the kernel's SoftRoCE, for instance. `cargo xtask interop` runs them.
//!
//! The first argument is what the network does, `whole` or `lossy`; the second, for one of both, the address of the other.
//! The device is the one that the other tests run on.

mod manager;
mod talk;

use std::time::{Duration, Instant};

use ibverbs::{
    AccessFlags, AckTimeout, Connected, QueuePairBuilder, QueuePairEndpoint, Rc, RecvRequest,
    RemoteMemorySlice, Uc, WcStatus,
};
use ibverbs_tests::{
    activated, pattern, post_recv, prepare, submit, wait, wait_ok, wait_one, way_from, Bed, Mem,
    Prepared, Side, Wc, GRH, QKEY,
};

use talk::Talk;

/// A byte; around a packet of 1024, which is what fits Ethernet; and 1024 packets.
const SIZES: [usize; 8] = [1, 7, 1023, 1024, 1025, 4096, 65_537, 1 << 20];
const LONGEST: usize = 1 << 20;
/// What a receive can hold for which no packet may be lost on the way.
const SHORT_SIZES: [usize; 5] = [1, 1000, 1024, 5000, 16_000];

/// One of the two processes.
struct End {
    bed: Bed,
    talk: Talk,
    /// Whether the network loses packets.
    is_lossy: bool,
    /// Whether this end posts sends now, and the other one receives.
    is_active: bool,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let is_lossy = match arguments.next().as_deref() {
        Some("whole") => false,
        Some("lossy") => true,
        other => panic!("the network is {other:?}, but it can be `whole` or `lossy`"),
    };
    let server = arguments.next();
    let bed = Bed::new();
    let talk = Talk::connect(server.as_deref());
    let mut end = End { bed, talk, is_lossy, is_active: server.is_some() };
    println!("{:?}", end.bed.ctx().device());
    for _ in 0..2 {
        for (name, case) in CASES {
            let start = Instant::now();
            end.talk.meet(name);
            case(&mut end);
            end.talk.meet(name);
            let role = if end.is_active { "active" } else { "passive" };
            println!("{name}, {role}: {:.2} s", start.elapsed().as_secs_f64());
        }
        end.is_active = !end.is_active;
    }
}

type Case = fn(&mut End);

const CASES: [(&str, Case); 14] = [
    ("sends over RC", sends),
    ("writes over RC", writes),
    ("reads over RC", reads),
    ("atomics over RC", atomics),
    ("many sends over RC", many_sends),
    ("many reads over RC", many_reads),
    ("receives that come late over RC", late_receives),
    ("writes that are not allowed over RC", refused_writes),
    ("sends over UC", unreliable_sends),
    ("writes over UC", unreliable_writes),
    ("datagrams", datagrams),
    ("connections by the connection manager", manager::connections),
    ("rejections by the connection manager", manager::rejections),
    ("datagrams by the connection manager", manager::found_datagrams),
];

impl End {
    /// Connects a queue pair to one of the other end.
    fn connect<T: Connected>(
        &mut self,
        setup: impl for<'b> FnOnce(QueuePairBuilder<'b, T>) -> QueuePairBuilder<'b, T>,
    ) -> Side<T> {
        let Prepared { qp, send_cq, recv_cq, bed } = prepare::<T>(&self.bed, setup);
        let theirs = self.talk.exchange(&qp.endpoint().unwrap().to_bytes());
        let qp = qp.handshake(QueuePairEndpoint::from_bytes(&theirs).unwrap()).unwrap();
        self.talk.meet("connected");
        Side { qp, send_cq, recv_cq, bed }
    }

    /// A reliable one, which is patient with a network that loses packets.
    fn reliable(&mut self) -> Side<Rc> {
        let timeout = AckTimeout::at_least(Duration::from_millis(100));
        self.connect(|builder| builder.set_timeout(timeout).set_retry_count(7))
    }

    /// Memory of this end, and of the other.
    fn memory(&mut self, len: usize, access: AccessFlags) -> (Mem, RemoteMemorySlice) {
        let mem = self.bed.mem_with(len, access);
        let theirs = self.talk.exchange(&mem.remote().to_bytes());
        (mem, RemoteMemorySlice::from_bytes(&theirs).unwrap())
    }
}

fn sends(end: &mut End) {
    let (mut side, mem) = (end.reliable(), end.bed.mem(LONGEST));
    for (i, size) in SIZES.into_iter().enumerate() {
        let (wr_id, data) = (i as u64, pattern(size, i as u64));
        let slice = [mem.slice(..size)];
        if end.is_active {
            mem.write(0, &data);
            end.talk.meet("posted");
            submit(&mut side.qp, |batch| batch.op().signaled().imm(i as u32).send(wr_id, &slice))
                .unwrap();
            assert_eq!(wait_one(&side.send_cq, wr_id).ok, Ok(()), "{size} bytes");
        } else {
            post_recv(&mut side.qp, [RecvRequest::new(wr_id, &slice)]).unwrap();
            end.talk.meet("posted");
            let wc = wait_one(&side.recv_cq, wr_id);
            assert_eq!((wc.ok, wc.len as usize, wc.imm), (Ok(()), size, Some(i as u32)));
            assert!(mem.read(..size) == data, "{size} bytes");
        }
    }
}

fn writes(end: &mut End) {
    let mut side = end.reliable();
    let (mem, remote) = end.memory(LONGEST, AccessFlags::PERMISSIVE);
    for (i, size) in SIZES.into_iter().enumerate() {
        let (wr_id, data) = (i as u64, pattern(size, 100 + i as u64));
        if end.is_active {
            mem.write(0, &data);
            let slice = [mem.slice(..size)];
            end.talk.meet("posted");
            submit(&mut side.qp, |batch| {
                // The last byte is written once more, and told of.
                batch.op().write(wr_id, &slice, remote);
                let last = [mem.slice(size - 1..size)];
                batch.op().signaled().imm(7).write(wr_id, &last, remote.slice(size as u64 - 1..));
            })
            .unwrap();
            assert_eq!(wait_one(&side.send_cq, wr_id).ok, Ok(()), "{size} bytes");
        } else {
            post_recv(&mut side.qp, [RecvRequest::new(wr_id, &[])]).unwrap();
            end.talk.meet("posted");
            let wc = wait_one(&side.recv_cq, wr_id);
            assert_eq!((wc.ok, wc.imm), (Ok(()), Some(7)));
            assert!(mem.read(..size) == data, "{size} bytes");
        }
        end.talk.meet("checked");
    }
}

fn reads(end: &mut End) {
    let mut side = end.reliable();
    let (mem, remote) = end.memory(LONGEST, AccessFlags::PERMISSIVE);
    if !end.is_active {
        mem.write(0, &pattern(LONGEST, 200));
    }
    end.talk.meet("filled");
    if end.is_active {
        let data = pattern(LONGEST, 200);
        for (i, size) in SIZES.into_iter().enumerate() {
            let slice = [mem.slice(..size)];
            let remote = remote.slice(..size as u64);
            submit(&mut side.qp, |batch| batch.op().signaled().read(i as u64, &slice, remote))
                .unwrap();
            assert_eq!(wait_one(&side.send_cq, i as u64).ok, Ok(()), "{size} bytes");
            assert!(mem.read(..size) == data[..size], "{size} bytes");
            mem.write(0, &vec![0; size]);
        }
    }
    end.talk.meet("read");
}

/// How many operations are under way at a time where there are many.
const MANY: u64 = 60;

fn atomics(end: &mut End) {
    let mut side = end.reliable();
    let (mem, remote) = end.memory(8 * (MANY as usize + 1), AccessFlags::PERMISSIVE);
    mem.write_u64(0, 5);
    end.talk.meet("filled");
    if end.is_active {
        let result = |i: u64| 8 * (i as usize + 1);
        submit(&mut side.qp, |batch| {
            for i in 0..MANY {
                let slice = mem.slice(result(i)..result(i) + 8);
                batch.op().signaled().atomic_fetch_add(i, slice, remote.slice(..8), 3);
            }
        })
        .unwrap();
        wait_ok(&side.send_cq, MANY as usize);
        for i in 0..MANY {
            assert_eq!(mem.read_u64(result(i)), 5 + 3 * i, "addition {i}");
        }
        let sum = 5 + 3 * MANY;
        // The second finds what the first has put there, and does nothing.
        submit(&mut side.qp, |batch| {
            for i in 0..2 {
                let slice = mem.slice(result(i)..result(i) + 8);
                batch.op().signaled().atomic_cmp_swap(i, slice, remote.slice(..8), sum, 77);
            }
        })
        .unwrap();
        wait_ok(&side.send_cq, 2);
        assert_eq!([mem.read_u64(result(0)), mem.read_u64(result(1))], [sum, 77]);
    }
    end.talk.meet("changed");
    if !end.is_active {
        assert_eq!(mem.read_u64(0), 77);
    }
}

fn many_sends(end: &mut End) {
    const LEN: usize = 3000;
    let (mut side, mem) = (end.reliable(), end.bed.mem(LEN * MANY as usize));
    let place = |i: u64| LEN * i as usize..LEN * (i as usize + 1);
    if end.is_active {
        (0..MANY).for_each(|i| mem.write(place(i).start, &pattern(LEN, i)));
        end.talk.meet("posted");
        submit(&mut side.qp, |batch| {
            (0..MANY).for_each(|i| batch.op().signaled().send(i, &[mem.slice(place(i))]));
        })
        .unwrap();
        let ids: Vec<_> = wait_ok(&side.send_cq, MANY as usize).iter().map(|wc| wc.wr_id).collect();
        assert_eq!(ids, (0..MANY).collect::<Vec<_>>());
    } else {
        for i in 0..MANY {
            post_recv(&mut side.qp, [RecvRequest::new(i, &[mem.slice(place(i))])]).unwrap();
        }
        end.talk.meet("posted");
        for (i, wc) in wait_ok(&side.recv_cq, MANY as usize).iter().enumerate() {
            assert_eq!((wc.wr_id, wc.len as usize), (i as u64, LEN));
            assert!(mem.read(place(wc.wr_id)) == pattern(LEN, wc.wr_id), "message {i}");
        }
    }
}

fn many_reads(end: &mut End) {
    const LEN: usize = 3000;
    let mut side = end.reliable();
    let (mem, remote) = end.memory(LEN * MANY as usize, AccessFlags::PERMISSIVE);
    let place = |i: u64| LEN * i as usize..LEN * (i as usize + 1);
    if !end.is_active {
        (0..MANY).for_each(|i| mem.write(place(i).start, &pattern(LEN, i)));
    }
    end.talk.meet("filled");
    if end.is_active {
        submit(&mut side.qp, |batch| {
            for i in 0..MANY {
                let range = place(i).start as u64..place(i).end as u64;
                batch.op().signaled().read(i, &[mem.slice(place(i))], remote.slice(range));
            }
        })
        .unwrap();
        wait_ok(&side.send_cq, MANY as usize);
        (0..MANY).for_each(|i| assert!(mem.read(place(i)) == pattern(LEN, i), "read {i}"));
    }
    end.talk.meet("read");
}

fn late_receives(end: &mut End) {
    const LEN: usize = 3000;
    let (mut side, mem) = (end.reliable(), end.bed.mem(LEN));
    for i in 0..3 {
        let slice = [mem.slice(..)];
        if end.is_active {
            mem.write(0, &pattern(LEN, i));
            submit(&mut side.qp, |batch| batch.op().signaled().send(i, &slice)).unwrap();
            end.talk.meet("sent");
            assert_eq!(wait_one(&side.send_cq, i).ok, Ok(()));
        } else {
            end.talk.meet("sent");
            std::thread::sleep(Duration::from_millis(50));
            post_recv(&mut side.qp, [RecvRequest::new(i, &slice)]).unwrap();
            assert_eq!(wait_one(&side.recv_cq, i).ok, Ok(()));
            assert!(mem.read(..) == pattern(LEN, i));
        }
        end.talk.meet("checked");
    }
}

/// Each is refused, and the rest of the queue flushed.
fn refused_writes(end: &mut End) {
    let mut side = end.reliable();
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ;
    let (mem, remote) = end.memory(3000, access);
    if end.is_active {
        submit(&mut side.qp, |batch| {
            batch.op().signaled().write(1, &[mem.slice(..)], remote);
            batch.op().signaled().read(2, &[mem.slice(..8)], remote.slice(..8));
        })
        .unwrap();
        let statuses: Vec<_> = wait(&side.send_cq, 2).iter().map(Wc::status).collect();
        // If the packet that says why is lost, nobody says it again.
        let reason = match statuses[0] {
            WcStatus::RETRY_EXC_ERR if end.is_lossy => WcStatus::RETRY_EXC_ERR,
            _ => WcStatus::REM_ACCESS_ERR,
        };
        assert_eq!(statuses, [reason, WcStatus::WR_FLUSH_ERR]);
    }
    end.talk.meet("refused");
    assert!(mem.read(..) == [0; 3000], "what is refused must not be written");
}

/// How many messages of each size are sent where they may be lost.
const SOME: usize = 20;

/// What completes until nothing does for a while.
fn arrived(side: &ibverbs::CompletionQueue) -> Vec<Wc> {
    const QUIET: Duration = Duration::from_millis(150);
    let (mut found, mut end) = (Vec::new(), Instant::now() + QUIET);
    while Instant::now() < end {
        if let Some(mut completions) = side.poll().unwrap() {
            while let Some(wc) = completions.next() {
                found.push(Wc::new(&wc));
            }
            end = Instant::now() + QUIET;
        }
        std::thread::yield_now();
    }
    found
}

impl End {
    /// Checks messages that may have been lost: those that have arrived are whole, and in this order. Their numbers are their immediate
    /// data, and each is in the room that it was received into.
    fn check(&self, received: &[Wc], mem: &Mem, room: usize, skip: usize, size: usize) {
        let mut numbers = Vec::new();
        for wc in received {
            let number = wc.imm.expect("all have a number");
            assert_eq!((wc.ok, wc.len as usize), (Ok(()), skip + size), "message {number}");
            let start = room * wc.wr_id as usize + skip;
            let whole = mem.read(start..start + size) == pattern(size, number.into());
            assert!(whole, "message {number} of {size} bytes is damaged");
            numbers.push(number);
        }
        println!("    {size} bytes: {} of {SOME} have arrived", numbers.len());
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
        assert!(!numbers.is_empty() && (self.is_lossy || numbers.len() == SOME), "{numbers:?}");
    }
}

fn unreliable_sends(end: &mut End) {
    for size in SHORT_SIZES {
        let mut side = end.connect::<Uc>(|builder| builder);
        let mem = end.bed.mem(size * SOME);
        let place = |i: usize| size * i..size * (i + 1);
        if end.is_active {
            (0..SOME).for_each(|i| mem.write(place(i).start, &pattern(size, i as u64)));
            end.talk.meet("posted");
            for i in 0..SOME {
                let slice = [mem.slice(place(i))];
                submit(&mut side.qp, |batch| batch.op().signaled().imm(i as u32).send(1, &slice))
                    .unwrap();
                assert_eq!(wait_one(&side.send_cq, 1).ok, Ok(()));
            }
            end.talk.meet("sent");
        } else {
            for i in 0..SOME {
                let slice = [mem.slice(place(i))];
                post_recv(&mut side.qp, [RecvRequest::new(i as u64, &slice)]).unwrap();
            }
            end.talk.meet("posted");
            end.talk.meet("sent");
            end.check(&arrived(&side.recv_cq), &mem, size, 0, size);
        }
        end.talk.meet("checked");
    }
}

fn unreliable_writes(end: &mut End) {
    const SIZE: usize = 5000;
    let mut side = end.connect::<Uc>(|builder| builder);
    let (mem, remote) = end.memory(SIZE, AccessFlags::PERMISSIVE);
    for i in 0..5 {
        let data = pattern(SIZE, i as u64);
        if end.is_active {
            mem.write(0, &data);
            end.talk.meet("posted");
            let slice = [mem.slice(..)];
            submit(&mut side.qp, |batch| {
                batch.op().signaled().imm(i as u32).write(1, &slice, remote);
            })
            .unwrap();
            assert_eq!(wait_one(&side.send_cq, 1).ok, Ok(()));
            end.talk.meet("sent");
        } else {
            post_recv(&mut side.qp, [RecvRequest::new(1, &[])]).unwrap();
            end.talk.meet("posted");
            end.talk.meet("sent");
            // Whoever is told of a write has all of it. A write of which a packet is lost is not told of.
            for wc in arrived(&side.recv_cq) {
                assert_eq!((wc.ok, wc.imm), (Ok(()), Some(i as u32)));
                assert!(mem.read(..) == data, "write {i}");
            }
        }
        end.talk.meet("checked");
    }
}

fn datagrams(end: &mut End) {
    for size in [1, 100, 1024] {
        let mut side = activated(&end.bed, QKEY);
        let theirs = end.talk.exchange(&side.qp.endpoint().unwrap().to_bytes());
        let theirs = QueuePairEndpoint::from_bytes(&theirs).unwrap();
        let room = GRH + size;
        let mem = end.bed.mem(room * SOME);
        if end.is_active {
            let (to, number) = (way_from(&side, &theirs), theirs.qp_num());
            end.talk.meet("posted");
            for i in 0..SOME {
                mem.write(0, &pattern(size, i as u64));
                let slice = [mem.slice(..size)];
                submit(&mut side.qp, |batch| {
                    batch.to(&to, number, QKEY).imm(i as u32).signaled().send(1, &slice);
                })
                .unwrap();
                assert_eq!(wait_one(&side.send_cq, 1).ok, Ok(()));
            }
            end.talk.meet("sent");
        } else {
            for i in 0..SOME {
                let slice = [mem.slice(room * i..room * (i + 1))];
                post_recv(&mut side.qp, [RecvRequest::new(i as u64, &slice)]).unwrap();
            }
            end.talk.meet("posted");
            end.talk.meet("sent");
            end.check(&arrived(&side.recv_cq), &mem, room, GRH, size);
        }
        end.talk.meet("checked");
    }
}
