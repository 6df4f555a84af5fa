//! Drops everything in random orders, and counts what is left: in this process, and in the kernel.
//!
//! It is the only test of its binary, because it counts what belongs to its process.

use std::any::Any;

use ibverbs::{AccessFlags, Context, Rc, RecvRequest};
use ibverbs_tests::{
    choose_provider, kernel_objects, open_device_files, test_context, Numbers, PORT,
};

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

#[test]
fn objects_can_be_dropped_in_every_order_and_nothing_is_left() {
    choose_provider();
    let nothing = open_device_files();
    let keeper = test_context();
    let before = open_device_files();
    assert!(before > nothing, "an open device is an open file");
    let mut numbers = Numbers::seeded(1);
    for round in 0..60 {
        let ctx = test_context();
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
        None => {
            eprintln!("not compared with the kernel's: it has none, or there is no `rdma` program")
        }
    }
    keeper.close().expect("nothing uses the context any more");
    assert_eq!(open_device_files(), nothing);
}
