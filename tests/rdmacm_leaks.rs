//! Counts what connections leave behind, however they end: in this process, and in the kernel.
//!
//! It is the only test of its binary, because it counts what belongs to its process.

use std::time::Duration;

use ibverbs::rdmacm::{CmId, ConnectionParams, Tcp, Udp};
use ibverbs::{Rc, Ud};
use ibverbs_tests::{
    accept, both, dial, kernel_objects, listen, next_request, open_device_files, resolve,
    unconnected, Bed, Numbers, DEADLINE,
};

const SHORT: Duration = Duration::from_millis(50);

/// All files that this process has open.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Connects, and returns everything that there is then.
fn connection(bed: &Bed) -> Vec<Box<dyn std::any::Any>> {
    let (mut acceptor, to) = listen(Tcp, bed);
    let [one, other] = [(); 2].map(|()| unconnected::<Rc>(bed, |builder| builder));
    let params = ConnectionParams::new().set_private_data(*b"data");
    let (server, client) = both(
        || accept(next_request(&mut acceptor), one, &params),
        || dial(resolve(Tcp, to), other, &params),
    );
    vec![Box::new(server), Box::new(client), Box::new(acceptor)]
}

/// Tries what fails, at each step.
fn failures(bed: &Bed) {
    let params = ConnectionParams::new();
    let qp = || unconnected::<Rc>(bed, |builder| builder).qp;
    let (mut acceptor, to) = listen(Tcp, bed);
    // A way that is not gone, a listener that does not answer, and a request that is taken too late.
    drop(resolve(Tcp, to));
    resolve(Tcp, to).connect(qp(), &params, SHORT).unwrap_err();
    let late = next_request(&mut acceptor);
    late.accept(qp(), &params, DEADLINE).unwrap_err();
    // A refusal with a message and one without, and too much private data.
    for message in [Some(b"no"), None] {
        both(
            || match (message, next_request(&mut acceptor)) {
                (Some(message), incoming) => incoming.reject(message).unwrap(),
                (None, incoming) => drop(incoming),
            },
            || resolve(Tcp, to).connect(qp(), &params, DEADLINE).unwrap_err(),
        );
    }
    let too_long = params.clone().set_private_data([0; 57]);
    resolve(Tcp, to).connect(qp(), &too_long, DEADLINE).unwrap_err();
    // A request that nobody takes, and then nobody who listens.
    resolve(Tcp, to).connect(qp(), &params, SHORT).unwrap_err();
    drop(acceptor);
    resolve(Tcp, to).connect(qp(), &params, DEADLINE).unwrap_err();
    // A peer that does not confirm.
    let (mut acceptor, to) = listen(Tcp, bed);
    let mut client: CmId = resolve(Tcp, to).into_id();
    let of_client = qp();
    client.connect(&params.clone().for_queue_pair(&of_client)).unwrap();
    next_request(&mut acceptor).accept(qp(), &params, SHORT).unwrap_err();
}

/// Asks for a queue pair of datagrams, which is told, refused or not answered.
fn datagrams(bed: &Bed) {
    let (mut acceptor, to) = listen(Udp, bed);
    both(
        || {
            let mut incoming = next_request(&mut acceptor);
            let qp = incoming.activate(unconnected::<Ud>(bed, |builder| builder).qp).unwrap();
            incoming.answer(&qp, b"here").unwrap();
            drop(next_request(&mut acceptor));
        },
        || {
            let found = resolve(Udp, to).find_peer(b"where?", DEADLINE).unwrap();
            found.peer.create_ah(bed.pd()).unwrap();
            resolve(Udp, to).find_peer(b"where?", DEADLINE).unwrap_err();
        },
    );
    resolve(Udp, to).find_peer(b"where?", SHORT).unwrap_err();
}

#[test]
fn nothing_is_left_however_a_connection_ends() {
    let Some(bed) = Bed::with_cm() else { return };
    let round = |numbers: &mut Numbers| {
        numbers.drop_all(connection(&bed));
        failures(&bed);
        datagrams(&bed);
    };
    // librdmacm opens the devices when it is used first, and keeps them open.
    let mut numbers = Numbers::seeded(1);
    round(&mut numbers);
    let (files, device_files, objects) = (open_files(), open_device_files(), kernel_objects());
    for n in 0..30 {
        round(&mut numbers);
        assert_eq!((open_files(), open_device_files()), (files, device_files), "round {n}");
    }
    let now = kernel_objects();
    assert_eq!(now.map(|now| now.len()), objects.map(|before| before.len()), "objects are left");
    let objects = connection(&bed);
    assert!(open_files() > files);
    drop(objects);
    assert_eq!(open_files(), files);
}
