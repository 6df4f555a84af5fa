//! Listeners without file descriptors for their requests. The limit is that of the whole process, so that this is a
//! test binary of its own.

use ibverbs::rdmacm::{Acceptor, ConnectionParams, RejectReason, Tcp};
use ibverbs::{Error, Rc};
use ibverbs_tests::{
    assert_connected, both, eventually, is_readable, limit_resource, listen, next_request, resolve,
    unconnected, Bed, Plan, DEADLINE,
};

#[test]
fn a_request_that_there_is_no_file_for_is_rejected() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let prepared = unconnected::<Rc>(&bed, |builder| builder);
    let resolved = resolve(Tcp, to);
    let (error, failed) = both(
        || {
            eventually("a request comes", || is_readable(&acceptor));
            // Not none: then no thread could wait for a descriptor either (ppoll(2)). The first one is taken.
            let before = limit_resource(libc::RLIMIT_NOFILE, 1);
            let result = acceptor.accept(Some(DEADLINE));
            let other = Acceptor::bind(Tcp, to);
            limit_resource(libc::RLIMIT_NOFILE, before);
            assert!(matches!(other.unwrap_err(), Error::EventChannel { .. }));
            result.unwrap_err()
        },
        || resolved.connect(prepared.qp, &ConnectionParams::new(), DEADLINE).unwrap_err(),
    );
    assert!(matches!(error, Error::EventChannel { .. }), "{error:?}");
    assert_eq!(error.os_error(), Some(libc::EMFILE));
    let Error::Connection(failure) = failed.error else { panic!("{failed}") };
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));

    // The listener goes on.
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    assert_connected(&mut client, &mut server);
}
