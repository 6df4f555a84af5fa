//! Connections by the connection manager: both sides exchange data.

use ibverbs::rdmacm::ConnectionParams;
use ibverbs_tests::{assert_connected, connected_as, Bed, Plan};

#[test]
fn both_sides_exchange_data_and_private_data() {
    let Some(bed) = Bed::new() else { return };
    let saying = |text: &[u8]| ConnectionParams::new().set_private_data(text);
    let (mut client, mut server) = connected_as(
        &bed,
        Plan::plain().with(saying(b"from the client")),
        Plan::plain().with(saying(b"from the server")),
    );
    assert!(client.connection.peer_private_data().starts_with(b"from the server\0"));
    assert!(server.connection.peer_private_data().starts_with(b"from the client\0"));
    assert_connected(&mut client, &mut server);
}
