//! Names of hosts and services.

use std::net::SocketAddr;

use ibverbs::rdmacm::{getaddrinfo, AddrInfo, AddrInfoHints, Connector, Tcp, Udp};
use ibverbs::Error;
use ibverbs_tests::{
    assert_connected, both, listen, listen_on, local_addr, local_addrs, next_request, resolve, Bed,
    Plan, DEADLINE,
};

/// Looks an address up by its digits.
#[track_caller]
fn found(node: Option<&str>, service: Option<&str>, hints: AddrInfoHints) -> AddrInfo {
    getaddrinfo(Tcp, node, service, hints).unwrap()
}

#[test]
fn addresses_are_found_by_their_digits() {
    let Some(bed) = Bed::with_cm() else { return };
    for mut address in local_addrs(&bed) {
        address.set_port(7471);
        // With its scope, if it has one.
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) if address.scope_id() == 0 => address.ip().to_string(),
            SocketAddr::V6(address) => format!("{}%{}", address.ip(), address.scope_id()),
        };
        for hints in [AddrInfoHints::new(), AddrInfoHints::new().set_numeric_host()] {
            let there = found(Some(&host), Some("7471"), hints);
            assert_eq!(there, AddrInfo { source: None, destination: Some(address) });
            let here = found(Some(&host), Some("7471"), hints.set_passive());
            assert_eq!(here, AddrInfo { source: Some(address), destination: None });
        }
        let with_source = AddrInfoHints::new().set_source(address);
        let there = found(Some(&host), Some("1"), with_source);
        assert_eq!(there.source, Some(address));
        assert_eq!(there.destination.map(|address| address.port()), Some(1));
        let datagrams = getaddrinfo(Udp, Some(&host), Some("1"), with_source).unwrap();
        assert_eq!(datagrams, there);
    }
}

#[test]
fn what_was_found_is_listened_on_and_connected_to() {
    let Some(bed) = Bed::with_cm() else { return };
    let host = local_addr(&bed).ip().to_string();
    let here = found(Some(&host), None, AddrInfoHints::new().set_passive());
    let (mut acceptor, address) = listen_on(Tcp, here.source.unwrap());
    let port = address.port().to_string();
    let hints = AddrInfoHints::new().set_source(local_addr(&bed));
    let there = found(Some(&host), Some(&port), hints);
    assert_eq!(there.destination, Some(address));
    let connector = Connector::new(Tcp).set_source(there.source.unwrap());
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || Plan::plain().dial(connector.resolve(there.destination.unwrap(), DEADLINE).unwrap()),
    );
    assert_connected(&mut client, &mut server);
}

#[test]
fn without_a_host_a_listener_gets_the_wildcard() {
    let Some(bed) = Bed::with_cm() else { return };
    // A port that is free.
    let (acceptor, address) = listen(Tcp, &bed);
    drop(acceptor);
    let port = address.port().to_string();
    let here = found(None, Some(&port), AddrInfoHints::new().set_passive()).source.unwrap();
    assert!(here.ip().is_unspecified(), "{here}");
    assert_eq!(here.port(), address.port());
    let (_acceptor, listens) = listen_on(Tcp, here);
    assert_eq!(listens, here);
    if here.is_ipv6() || address.is_ipv4() {
        // Somebody listens there, who has not answered yet.
        drop(resolve(Tcp, address));
    }
}

#[test]
fn what_is_not_found_is_named() {
    let Some(_bed) = Bed::with_cm() else { return };
    let numeric = AddrInfoHints::new().set_numeric_host();
    // The first is reserved (RFC 6761): there is no such host.
    for (node, service, hints) in [
        (Some("host.invalid"), Some("7471"), AddrInfoHints::new()),
        (Some("localhost"), Some("7471"), numeric),
        (Some("10.7.0.256"), None, numeric),
        (Some("::g"), None, numeric),
        (Some("10.7.0.1"), Some("no such service"), AddrInfoHints::new()),
    ] {
        let error = getaddrinfo(Tcp, node, service, hints).unwrap_err();
        assert!(matches!(error, Error::ResolveName { .. }), "{error:?}");
        let text = error.to_string();
        for name in [node, service].into_iter().flatten() {
            assert!(text.contains(name), "{name} is not in {text:?}");
        }
        let reason = text.rsplit(": ").next().unwrap();
        assert!(reason.len() > 5, "no reason in {text:?}");
    }
}

#[test]
fn a_zero_byte_is_refused() {
    let Some(_bed) = Bed::with_cm() else { return };
    for (node, service) in
        [(Some("10.7.0.1\0"), None), (None, Some("74\x0071")), (Some("\0"), None)]
    {
        let error = getaddrinfo(Tcp, node, service, AddrInfoHints::new()).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }), "{error:?}");
    }
}

#[test]
fn a_peer_without_a_host_is_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    let hints = AddrInfoHints::new().set_source(local_addr(&bed));
    for (service, hints) in [
        (None, AddrInfoHints::new()),
        (None, AddrInfoHints::new().set_passive()),
        (None, hints),
        (Some("7471"), hints),
    ] {
        let error = getaddrinfo(Tcp, None, service, hints).unwrap_err();
        assert!(matches!(error, Error::ResolveName { .. }), "{error:?}");
    }
}
