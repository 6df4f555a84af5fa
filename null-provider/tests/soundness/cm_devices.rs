//! Rules 1, 9 and 15 for the devices of identifiers: the crate opens them for itself, those of librdmacm's own are left
//! alone, and queue pairs are of the same device.

use ibverbs::rdmacm::{Acceptor, CmEventType, CmId, ConnectionParams, Connector, Tcp, Udp};
use ibverbs::{Context, Error, Failed, Rc, Ud};
use null_provider::{Kind, Verb};

use crate::cm_common::*;
use crate::common::{null, open};

#[test]
fn identifiers_of_one_device_have_one_context() {
    let null = null();
    let (one, two, other) = (bound(Tcp, 0), bound(Udp, 0), bound(Tcp, 1));
    let contexts = [&one, &two, &one].map(|id| id.context().unwrap());
    assert!(contexts.iter().all(|context| context.as_raw() == contexts[0].as_raw()));
    assert_eq!(null.live(Kind::Context), 1);
    let other = other.context().unwrap();
    assert_ne!(other.as_raw(), contexts[0].as_raw());
    assert_eq!(null.live(Kind::Context), 2);
    // What is made of one goes with what is made of the other, as of one context.
    let (pd, cq) = (contexts[0].alloc_pd().unwrap(), contexts[1].create_cq(4).build().unwrap());
    drop(pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap());
    let foreign = other.create_cq(4).build().unwrap();
    let mixed = pd.create_qp::<Rc>(&foreign, &cq, 1).err();
    assert!(matches!(mixed, Some(Error::DeviceMismatch { .. })));
    drop((contexts, pd, cq));
    assert_eq!(null.live(Kind::Context), 1);
    drop((other, foreign));
    assert_eq!(null.live(Kind::Context), 0);
}

#[test]
fn a_context_is_closed_once_when_the_last_object_of_it_is_gone() {
    let null = null();
    let id = bound(Tcp, 0);
    let context = id.context().unwrap();
    assert_eq!(null.count(Verb::OpenDevice), 1);
    let pd = id.context().unwrap().alloc_pd().unwrap();
    let failed = context.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }));
    drop((id, failed));
    assert_eq!((null.live(Kind::Context), null.count(Verb::CloseDevice)), (1, 0));
    drop(pd);
    assert_eq!((null.live(Kind::Context), null.count(Verb::CloseDevice)), (0, 1));
    // The next is opened anew.
    let id = bound(Tcp, 0);
    id.context().unwrap().close().unwrap();
    assert_eq!((null.count(Verb::OpenDevice), null.count(Verb::CloseDevice)), (2, 2));
}

#[test]
fn librdmacm_keeps_its_devices_for_itself() {
    let null = null();
    let id = bound(Tcp, 0);
    // SAFETY: the identifier is alive, and no other thread uses it.
    let theirs = unsafe { (*id.as_raw()).verbs };
    let context = id.context().unwrap();
    assert_ne!(context.as_raw(), theirs);
    let qp = prepared::<Rc>(&context);
    // As soon as the device is gone and nobody has it, librdmacm closes its own, and ours stays.
    null.remove_cm_device(0);
    drop(id);
    assert_eq!(null.live(Kind::Context), 1);
    assert_eq!(context.query_device().unwrap().num_ports(), 1);
    assert_eq!(context.device().name(), "null0");
    drop(context);
    drop(qp.init().unwrap());
    assert_eq!((null.count(Verb::GetCmDevices), null.count(Verb::FreeCmDevices)), (0, 0));
}

#[test]
fn that_the_context_cannot_be_opened_is_an_error() {
    let null = null();
    let id = bound(Tcp, 0);
    null.fail_once(Verb::OpenDevice, libc::EACCES);
    let error = id.context().unwrap_err();
    assert!(matches!(error, Error::OpenDevice { .. }), "{error}");
    assert_eq!((error.os_error(), null.live(Kind::Context)), (Some(libc::EACCES), 0));
    null.fail_once(Verb::OpenDevice, libc::EACCES);
    let error = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap_err();
    assert_eq!((error.os_error(), null.live(Kind::CmId)), (Some(libc::EACCES), 1));
    drop(id.context().unwrap());
}

#[test]
fn a_device_that_librdmacm_cannot_open_is_an_error() {
    let null = null();
    null.fail(Verb::OpenDevice, libc::EACCES);
    let mut id = CmId::create(Tcp).unwrap();
    assert!(matches!(id.bind_addr(address(0)), Err(Error::BindAddress { .. })));
    assert!(matches!(id.context(), Err(Error::NotBound)));
    let mut id = CmId::create(Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    next(&mut id, CmEventType::ADDR_ERROR);
    assert!(matches!(id.context(), Err(Error::NotBound)));
}

/// That this failed because of the device, with what was given for it.
#[track_caller]
fn expect_mismatch<T, R>(result: Result<T, Failed<R>>) -> R {
    match result {
        Err(Failed { resource, error: Error::DeviceMismatch { what: "queue pair" } }) => resource,
        Err(failed) => panic!("{}", failed.error),
        Ok(_) => panic!("a queue pair of another device"),
    }
}

#[test]
fn a_queue_pair_of_another_device_is_refused() {
    let null = null();
    let (listener, foreign) = (listening(Tcp, 0), open(1));
    let mut id = resolved(Tcp, 0);
    null.take_calls();
    let qp = expect_mismatch(id.bring_up(prepared::<Rc>(&foreign)));
    let qp = expect_mismatch(id.init(qp));
    let qp = expect_mismatch(id.ready_to_receive(qp.init().unwrap()));
    drop(expect_mismatch(id.bring_up(qp)));
    for verb in [Verb::InitQpAttr, Verb::Connect, Verb::Accept] {
        assert_eq!(null.count(verb), 0);
    }
    drop((listener, id));
    let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
    let params = ConnectionParams::new();
    let qp = expect_mismatch(way.connect(prepared::<Rc>(&foreign), &params, TIMEOUT));
    assert_eq!(null.count(Verb::Connect), 0);
    drop(qp.init().unwrap());
}

#[test]
fn a_queue_pair_of_another_device_does_not_accept() {
    let null = null();
    let Asked { listener, client, client_qp } = asked();
    let foreign = open(1);
    let acceptor = Acceptor::from_id(Tcp, listener);
    let mut acceptor = acceptor.map_err(|failed| failed.error).unwrap();
    let incoming = acceptor.poll().unwrap().unwrap();
    let params = ConnectionParams::new();
    drop(expect_mismatch(incoming.accept(prepared::<Rc>(&foreign), &params, TIMEOUT)));
    assert_eq!((null.count(Verb::Accept), null.count(Verb::ModifyQp)), (0, 0));
    drop((client, client_qp));
}

#[test]
fn a_queue_pair_of_another_device_is_not_told() {
    let null = null();
    let (listener, client) = asked_for_datagrams();
    let foreign = open(1);
    let acceptor = Acceptor::from_id(Udp, listener);
    let mut acceptor = acceptor.map_err(|failed| failed.error).unwrap();
    let mut incoming = acceptor.poll().unwrap().unwrap();
    let qp = expect_mismatch(incoming.activate(prepared::<Ud>(&foreign)));
    let error = incoming.answer(&qp.init().unwrap(), b"").unwrap_err();
    assert!(matches!(error, Error::DeviceMismatch { .. }));
    assert_eq!(null.count(Verb::Accept), 0);
    drop(client);
}

#[test]
fn a_queue_pair_of_the_programs_own_context_will_do() {
    let null = null();
    let Asked { mut listener, client, client_qp } = asked();
    let mut server = request(&mut listener);
    let own: Context = open(0);
    assert_ne!(own.as_raw(), server.context().unwrap().as_raw());
    let qp = server.bring_up(prepared::<Rc>(&own)).unwrap();
    server.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
    // The two contexts are two all the same.
    let (pd, cq) = (own.alloc_pd().unwrap(), server.context().unwrap().create_cq(4).build());
    assert!(pd.create_qp::<Rc>(&cq.unwrap(), &own.create_cq(4).build().unwrap(), 1).is_err());
    drop((client, client_qp));
    drop((server, qp, pd, own));
    assert_eq!((null.count(Verb::OpenDevice), null.count(Verb::CloseDevice)), (2, 2));
}

#[test]
fn the_kind_of_the_queue_pair_is_that_of_the_port_space() {
    let null = null();
    let (mut connected, mut datagrams) = (bound(Tcp, 0), bound(Udp, 0));
    let failed = connected.activate(prepared_for::<Ud>(&connected)).unwrap_err();
    assert!(matches!(failed.error, Error::PortSpaceMismatch { .. }));
    let failed = datagrams.bring_up(prepared_for::<Rc>(&datagrams)).unwrap_err();
    assert!(matches!(failed.error, Error::PortSpaceMismatch { .. }));
    assert_eq!((null.count(Verb::InitQpAttr), null.count(Verb::ModifyQp)), (0, 0));
}

/// librdmacm does more than it is asked for as soon as an identifier has a queue pair. That it has none at any call
/// is what the provider checks; here it is looked at in the end.
#[test]
fn librdmacm_never_learns_of_a_queue_pair() {
    let _null = null();
    let Ends { listener, client, client_qp, server, server_qp } = ends();
    for id in [&listener, &client, &server] {
        // SAFETY: the identifier is alive, and no other thread uses it.
        let raw = unsafe { id.as_raw().read() };
        assert!(raw.qp.is_null() && raw.srq.is_null());
        assert!(raw.send_cq.is_null() && raw.recv_cq.is_null());
    }
    drop((client_qp, server_qp));
}

#[test]
fn two_threads_open_and_close_one_context() {
    let null = null();
    let ids = [bound(Tcp, 0), bound(Tcp, 0), bound(Tcp, 1)];
    let rounds = if cfg!(miri) { 5 } else { 300 };
    std::thread::scope(|scope| {
        for id in ids {
            scope.spawn(move || {
                for _ in 0..rounds {
                    let ctx = id.context().unwrap();
                    drop(ctx.alloc_pd().unwrap());
                    drop(ctx);
                }
            });
        }
    });
    assert_eq!(null.count(Verb::OpenDevice), null.count(Verb::CloseDevice));
}
