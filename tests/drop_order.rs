//! Drops everything in random orders, and counts what is left: in this process, and in the kernel.
//!
//! It is the only test of its binary, because it counts what belongs to its process.

use std::any::Any;
use std::path::Path;
use std::process::Command;

use ibverbs::{AccessFlags, Context, Rc, RecvRequest};
use ibverbs_tests::{test_context, PORT};

/// A small generator of numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    fn drop_all(&mut self, mut objects: Vec<Box<dyn Any>>) {
        while !objects.is_empty() {
            drop(objects.swap_remove(self.below(objects.len())));
        }
    }
}

/// Everything of a connection to oneself, with a receive posted and a message sent.
fn objects(ctx: Context) -> Vec<Box<dyn Any>> {
    let pd = ctx.alloc_pd().unwrap();
    let (send_cq, recv_cq) = (ctx.create_cq(4).build().unwrap(), ctx.create_cq(4).build().unwrap());
    let qp = pd.create_qp::<Rc>(&send_cq, &recv_cq, PORT).unwrap().build().unwrap();
    let endpoint = qp.endpoint().unwrap();
    let mut qp = qp.handshake(endpoint).unwrap();
    let regions = [64, 8192].map(|len| pd.allocate(len, AccessFlags::PERMISSIVE).unwrap());
    let requests = [1, 2].map(|id| RecvRequest::new(id, &[]));
    // SAFETY: the requests have no memory.
    unsafe { qp.post_recv(requests) }.unwrap();
    let mut batch = qp.start_send();
    batch.op().signaled().imm(1).send(3, ibverbs::Payload::EMPTY);
    // SAFETY: as above.
    unsafe { batch.submit() }.unwrap();
    // SAFETY: no peer learns of it.
    unsafe { regions[0].remote() }.unwrap();
    let mut objects: Vec<Box<dyn Any>> =
        vec![Box::new(ctx), Box::new(pd), Box::new(send_cq), Box::new(recv_cq), Box::new(qp)];
    for region in regions {
        objects.push(Box::new(region));
    }
    objects
}

/// How many files of the RDMA devices this process has open, and how many mappings of them.
fn open_device_files() -> usize {
    let is_device = |path: &Path| path.starts_with("/dev/infiniband");
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mappings = maps.lines().filter(|line| line.contains("/dev/infiniband"));
    links.filter(|link| is_device(link)).count() + mappings.count()
}

/// What the kernel's resource tracker has of this thread, without its contexts; `None` if there is no
/// `rdma` program to ask.
fn kernel_objects() -> Option<Vec<String>> {
    // What the tracker calls a process is a thread.
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let id = thread.file_name().and_then(|id| id.to_str()).unwrap();
    let pid = format!("\"pid\":{id},");
    let mut found = Vec::new();
    for kind in ["qp", "cq", "mr", "pd"] {
        let output = Command::new("rdma").args(["-j", "resource", "show", kind]).output().ok()?;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let objects = text.split('{').filter(|object| object.contains(&pid));
        found.extend(objects.map(|object| format!("{kind}: {object}")));
    }
    Some(found)
}

#[test]
fn objects_can_be_dropped_in_every_order_and_nothing_is_left() {
    let Some(keeper) = test_context() else { return };
    let before = open_device_files();
    assert!(before > 0, "an open device is an open file");
    let mut numbers = Numbers(1);
    for round in 0..60 {
        let ctx = test_context().expect("the device was there a moment ago");
        let objects = objects(ctx);
        if round == 0 {
            assert!(open_device_files() > before);
            if let Some(found) = kernel_objects() {
                assert!(found.len() >= 6, "the tracker shows too little: {found:?}");
            }
        }
        numbers.drop_all(objects);
        assert_eq!(open_device_files(), before, "round {round}");
    }
    // Of one context that stays open, too.
    for _ in 0..60 {
        numbers.drop_all(objects(keeper.clone()));
    }
    match kernel_objects() {
        Some(found) => assert_eq!(found, [""; 0], "the kernel still has objects"),
        None => eprintln!("not compared with the kernel's: there is no `rdma` program"),
    }
    keeper.close().expect("nothing uses the context any more");
    assert_eq!(open_device_files(), 0);
}
