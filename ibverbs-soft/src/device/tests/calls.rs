//! Calls that are refused, and what holds what.

use rustix::io::Errno;

use super::super::{limits, WindowType};
use super::*;
use crate::transport::{Bind, Status};

fn side() -> Side {
    Side::new(&new_device(Loopback::Memory), Service::Rc, 64)
}

#[test]
fn what_is_in_use_is_not_destroyed() {
    let it = side();
    assert_eq!(it.device.dealloc_pd(it.pd), Err(Errno::BUSY));
    assert_eq!(it.device.destroy_cq(it.cq), Err(Errno::BUSY));
    let owner = Owner { token: 1, async_queue: Arc::clone(&it.async_queue) };
    let srq = it.device.create_srq(it.pd, 4, 0, owner.clone()).unwrap();
    let config = Config {
        qp_num: 0,
        service: Service::Rc,
        pd: it.pd,
        send_cq: it.cq,
        recv_cq: it.cq,
        srq: Some(srq),
        max_send_wr: 1,
        max_recv_wr: 0,
        signal_all: false,
    };
    let qp_num = it.device.create_qp(config, owner).unwrap();
    assert_eq!(it.device.destroy_srq(srq), Err(Errno::BUSY));
    it.device.destroy_qp(qp_num).unwrap();
    assert_eq!(it.device.destroy_qp(qp_num), Err(Errno::INVAL));
    it.device.destroy_srq(srq).unwrap();
    assert_eq!(it.device.destroy_srq(srq), Err(Errno::INVAL));
    let [free, bound] = [(); 2].map(|()| it.device.alloc_window(it.pd, WindowType::Two).unwrap());
    it.bring_to_rts(Some(it.path_to(&it)), it.qp_num);
    let access = RemoteAccess { read: true, ..RemoteAccess::default() };
    let (addr, region, rkey) = (it.addr(), Some(it.key), bound + 1);
    let bind = Bind { old_rkey: bound, rkey, region, addr, len: 8, access };
    it.post_send(1, SendOperation::Bind(bind), Vec::new());
    assert_eq!(it.wait().completion.status, Status::Success);
    assert_eq!(it.device.deregister(it.key), Err(Errno::BUSY));
    it.device.destroy_qp(it.qp_num).unwrap();
    it.device.deregister(it.key).unwrap();
    it.device.destroy_cq(it.cq).unwrap();
    for key in [free, rkey] {
        assert_eq!(it.device.dealloc_pd(it.pd), Err(Errno::BUSY));
        it.device.free_window(key).unwrap();
        assert_eq!(it.device.free_window(key), Err(Errno::INVAL));
    }
    it.device.dealloc_pd(it.pd).unwrap();
    assert_eq!(it.device.dealloc_pd(it.pd), Err(Errno::INVAL));
    assert_eq!(it.device.destroy_cq(it.cq), Err(Errno::INVAL));
    assert_eq!(it.device.deregister(it.key), Err(Errno::INVAL));
}

#[test]
fn sizes_beyond_the_limits_are_refused() {
    let it = side();
    let owner = || CqOwner { token: 1, channel: None, async_queue: Arc::clone(&it.async_queue) };
    for entries in [0, limits::MAX_CQE + 1] {
        assert_eq!(it.device.create_cq(entries, owner()), Err(Errno::INVAL));
        assert_eq!(it.device.resize_cq(it.cq, entries), Err(Errno::INVAL));
    }
    assert_eq!(it.device.resize_cq(it.cq, limits::MAX_CQE), Ok(()));
}

#[test]
fn memory_that_is_not_there_is_not_registered() {
    let it = side();
    // SAFETY: all that is registered here is refused.
    let register = |addr, len| unsafe { it.device.register(it.pd, addr, len, addr, ALL) };
    assert_eq!(register(0, 8), Err(Errno::FAULT));
    assert_eq!(register(it.addr(), 0), Err(Errno::INVAL));
    assert_eq!(register(it.addr(), u64::MAX), Err(Errno::INVAL));
    assert_eq!(register(it.addr(), 1 << 46), Err(Errno::FAULT));
    static CONSTANT: [u64; 8] = [1; 8];
    let constant = CONSTANT.as_ptr() as u64;
    assert_eq!(register(constant, 64), Err(Errno::FAULT));
    // SAFETY: a constant stays, and this may only be read.
    let key = unsafe { it.device.register(it.pd, constant, 64, 0, Access::default()) }.unwrap();
    // SAFETY: refused.
    let nowhere = unsafe { it.device.register(PdId(99), it.addr(), 8, 0, ALL) };
    assert_eq!(nowhere, Err(Errno::INVAL));
    assert_eq!(it.device.deregister(key), Ok(()));
}

#[test]
fn requests_are_taken_until_one_is_refused() {
    let it = side();
    let receive = |wr_id| Ok(RecvRequest { wr_id, sges: Vec::new() });
    let post = |requests: &mut dyn Iterator<Item = Result<RecvRequest>>| {
        it.device.post_recv(it.qp_num, requests)
    };
    assert_eq!(post(&mut [receive(0)].into_iter()), Err((0, Errno::INVAL)));
    it.bring_to_rts(Some(it.path_to(&it)), it.qp_num);
    let mut some = [receive(0), receive(1), Err(Errno::PERM), receive(2)].into_iter();
    assert_eq!(post(&mut some), Err((2, Errno::PERM)));
    assert_eq!(post(&mut (2..100).map(receive)), Err((62, Errno::NOMEM)));
    it.device.modify_qp(it.qp_num, &mut |_, _| Ok(State::Error)).unwrap();
    for wr_id in 0..64 {
        let completion = it.wait().completion;
        assert_eq!((completion.wr_id, completion.status), (wr_id, Status::WorkRequestFlushed));
    }
    assert_eq!(
        it.device.post_recv(!it.qp_num, &mut [receive(0)].into_iter()),
        Err((0, Errno::INVAL))
    );
}

#[test]
fn sends_need_a_state_and_room() {
    let it = side();
    let request = || send(1, SendOperation::Send { imm: None }, Vec::new());
    assert_eq!(it.device.post_send_all(it.qp_num, vec![request()]), Err(Errno::INVAL));
    // A peer that is not there: what is posted stays.
    let mut path = it.path_to(&it);
    path.dest = "127.0.0.255".parse().unwrap();
    it.bring_to_rts(Some(path), 99);
    let post = |count| it.device.post_send_all(it.qp_num, (0..count).map(|_| request()).collect());
    assert_eq!(
        [post(60), post(5), post(4), post(1)],
        [Ok(()), Err(Errno::NOMEM), Ok(()), Err(Errno::NOMEM)]
    );
    let mut one = std::iter::once(Ok(request()));
    assert_eq!(it.device.post_send(it.qp_num, &mut one), Err((0, Errno::NOMEM)));
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let it = side();
    it.bring_to_rts(Some(it.path_to(&it)), it.qp_num);
    let mut change = |state, attributes: &mut Attributes| {
        assert_eq!(state, State::ReadyToSend);
        attributes.qkey = 1;
        Err(Errno::INVAL)
    };
    assert_eq!(it.device.modify_qp(it.qp_num, &mut change), Err(Errno::INVAL));
    let (state, _, attributes) = it.device.query_qp(it.qp_num).unwrap();
    assert_eq!((state, attributes.qkey), (State::ReadyToSend, QKEY));
}

#[test]
fn completions_of_a_queue_pair_go_with_it() {
    let [one, other] = connected(Service::Rc, [&new_device(Loopback::Memory); 2].map(|d| d));
    let third = create_qp(&one.device, Service::Rc, one.pd, one.cq, &one.async_queue).unwrap();
    for end in ["reset", "destroy"] {
        other.post_recv(1, vec![other.sge(0, 1)]);
        one.post_send(2, SendOperation::Send { imm: None }, vec![one.sge(0, 1)]);
        one.post_send(3, SendOperation::Send { imm: None }, vec![one.sge(0, 1)]);
        match end {
            "reset" => {
                one.device.modify_qp(one.qp_num, &mut |_, _| Ok(State::Reset)).unwrap();
                one.bring_to_rts(Some(one.path_to(&other)), other.qp_num);
                other.device.modify_qp(other.qp_num, &mut |_, _| Ok(State::Reset)).unwrap();
                other.bring_to_rts(Some(other.path_to(&one)), one.qp_num);
            }
            _ => one.device.destroy_qp(one.qp_num).unwrap(),
        }
        assert!(one.device.poll_more(one.cq).unwrap().is_none(), "{end}");
    }
    one.device.destroy_qp(third).unwrap();
}

#[test]
fn completions_that_do_not_fit_are_told() {
    let it = side();
    it.device.resize_cq(it.cq, 2).unwrap();
    it.bring_to_rts(Some(it.path_to(&it)), it.qp_num);
    for wr_id in 0..3 {
        it.post_recv(wr_id, Vec::new());
    }
    it.device.modify_qp(it.qp_num, &mut |_, _| Ok(State::Error)).unwrap();
    assert_eq!(it.async_queue.take(), Ok(super::super::AsyncEvent::CqError(CQ_TOKEN)));
    assert_eq!([it.wait().completion.wr_id, it.wait().completion.wr_id], [0, 1]);
    assert_eq!(it.device.poll_cq(it.cq).err(), Some(Errno::OVERFLOW));
}

#[test]
fn an_address_has_one_device() {
    let device = new_device(Loopback::Memory);
    let again = crate::driver::Socket::bind(device.addr());
    assert_eq!(again.err().map(|error| error.kind()), Some(std::io::ErrorKind::AddrInUse));
    let nowhere = crate::driver::Socket::bind("192.0.2.1".parse().unwrap());
    assert_eq!(nowhere.err().map(|error| error.kind()), Some(std::io::ErrorKind::AddrNotAvailable));
}

#[test]
fn signals_are_for_the_programs_threads() {
    let blocked = |status: &str| {
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        u64::from_str_radix(blocked, 16).unwrap()
    };
    let of_this_thread = || blocked(&std::fs::read_to_string("/proc/thread-self/status").unwrap());
    let before = of_this_thread();
    // The only device with this number, and so with this name of its thread. Those of other tests' devices end at any time, and in a
    // thread that ends the C library blocks a signal of its own as well.
    let _device = Device::of_its_own(13, None, Loopback::Memory);
    let find = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        // Others' threads may be gone by now.
        let status = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("status")).ok()
        };
        tasks.filter_map(status).find(|status| status.starts_with("Name:\tibverbs-soft13\n"))
    };
    let end = Instant::now() + LONG;
    let mut engine = find();
    // A thread names itself when it begins.
    while engine.is_none() && Instant::now() < end {
        engine = find();
    }
    // All but SIGKILL and SIGSTOP, and the two that the C library keeps for itself.
    let by_engine = blocked(&engine.expect("it has a thread"));
    assert_eq!(by_engine.count_ones(), 60, "{by_engine:x}");
    // This thread still gets them.
    assert_eq!(of_this_thread(), before);
}

#[test]
fn a_device_is_closed_while_a_panic_unwinds() {
    let program = std::thread::spawn(|| {
        let device = new_device(Loopback::Memory);
        // Then its thread sleeps.
        while device.lock().unwrap().turns == 0 {
            std::thread::yield_now();
        }
        // As a panic does, but without its message.
        std::panic::resume_unwind(Box::new("the program's panic"));
    });
    let end = Instant::now() + LONG;
    while !program.is_finished() {
        assert!(Instant::now() < end, "it waits for the device's thread for ever");
        std::thread::yield_now();
    }
    let panic: std::thread::Result<()> = program.join();
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the program's panic"));
}

#[test]
fn who_comes_too_late_to_be_told_of_a_failure_is_refused() {
    let it = side();
    it.device.fail().unwrap();
    let late = Arc::new(AsyncQueue::new().unwrap());
    assert_eq!(it.device.watch(&late), Err(Errno::IO));
}

#[test]
fn who_waits_for_the_lock_while_the_device_fails_is_refused() {
    let device = new_device(Loopback::Memory);
    let engine = device.lock().unwrap();
    let waiting = Arc::clone(&device);
    let waiting = std::thread::spawn(move || waiting.set_port(false));
    // Until it has begun to wait, or else it is refused before.
    std::thread::sleep(Duration::from_millis(20));
    device.has_failed.store(true, Ordering::Relaxed);
    drop(engine);
    assert_eq!(waiting.join().unwrap(), Err(Errno::IO));
}
