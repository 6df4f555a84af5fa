//! Connections by the connection manager: blocking helpers.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use ibverbs::rdmacm::{Acceptor, ConnectionParams, Connector, Tcp};
use ibverbs::{AccessFlags, Rc, RecvRequest};
use ibverbs_tests::Bed;

const SECONDS: Duration = Duration::from_secs(20);

fn address(bed: &Bed) -> SocketAddr {
    let ip = bed.gid().gid().to_ipv4_mapped().expect("the tests' GID is one of IPv4");
    SocketAddr::new(ip.into(), 0)
}

#[test]
fn both_sides_exchange_data_and_private_data() {
    let Some(bed) = Bed::new() else { return };
    let mut acceptor = Acceptor::bind(Tcp, address(&bed)).unwrap();
    let to = acceptor.local_addr().unwrap();
    assert_ne!(to.port(), 0);
    let server = thread::spawn(move || {
        let incoming = acceptor.accept(Some(SECONDS)).unwrap().expect("no request came");
        assert!(incoming.peer_private_data().starts_with(b"from the client\0"));
        let (ctx, port) = (incoming.context().clone(), incoming.port());
        let (cq, pd) = (ctx.create_cq(16).build().unwrap(), ctx.alloc_pd().unwrap());
        let qp = pd.create_qp::<Rc>(&cq, &cq, port).unwrap().build().unwrap();
        let params = ConnectionParams::new().set_private_data(*b"from the server");
        let mut connection = incoming.accept(qp, &params, SECONDS).unwrap();
        let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
        unsafe { connection.queue_pair.post_recv([RecvRequest::new(7, &[region.slice(..)])]) }
            .unwrap();
        let mut done = false;
        while !done {
            if let Some(mut completions) = cq.poll().unwrap() {
                while let Some(wc) = completions.next() {
                    wc.ok().unwrap();
                    assert_eq!((wc.wr_id(), wc.len()), (7, 5));
                    done = true;
                }
            }
        }
        assert_eq!(&region.bytes()[..5], b"hello");
        assert!(connection.wait_disconnected(Some(SECONDS)).unwrap());
    });
    let resolved = Connector::new(Tcp).resolve(to, SECONDS).unwrap();
    let (ctx, port) = (resolved.context().clone(), resolved.port());
    let (cq, pd) = (ctx.create_cq(16).build().unwrap(), ctx.alloc_pd().unwrap());
    let builder = pd.create_qp::<Rc>(&cq, &cq, port).unwrap().set_max_inline_data(5);
    let qp = builder.build().unwrap();
    let params = ConnectionParams::new().set_private_data(*b"from the client");
    let mut connection = resolved.connect(qp, &params, SECONDS).unwrap();
    assert!(connection.peer_private_data().starts_with(b"from the server\0"));
    let mut batch = connection.queue_pair.start_send();
    batch.op().signaled().send(1, b"hello");
    unsafe { batch.submit() }.unwrap();
    let mut done = false;
    while !done {
        if let Some(mut completions) = cq.poll().unwrap() {
            while let Some(wc) = completions.next() {
                wc.ok().unwrap();
                done = true;
            }
        }
    }
    connection.disconnect().unwrap();
    assert!(connection.wait_disconnected(Some(SECONDS)).unwrap());
    server.join().unwrap();
}
