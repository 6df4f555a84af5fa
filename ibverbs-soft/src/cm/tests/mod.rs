//! Two connection managers, a network between them that may lose, repeat and reorder, and a clock that is a variable.

mod connections;
mod network;
mod questions;
mod refusals;

use std::net::IpAddr;
use std::time::Duration;

use network::{Network, Side};

use super::{Accept, Addressing, Connect, Event, Listener, ListenerId, Peer, State};
use crate::transport::Path;

const SERVICE: u64 = 0x0106_1d2f;

/// Who is told, in the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Listener,
    Client,
    Server,
}

fn addr(side: Side) -> IpAddr {
    match side {
        Side::Client => [127, 0, 0, 1].into(),
        Side::Server => [127, 0, 0, 2].into(),
    }
}

fn path(from: Side) -> Path {
    let (source, dest) = (addr(from), addr(from.other()));
    Path { source, dest, traffic_class: 0x68, hop_limit: 64, flow_label: 0 }
}

fn listener() -> Listener<Owner> {
    Listener {
        service_id: SERVICE,
        addr: None,
        ipv4: true,
        ipv6: false,
        connections: true,
        datagrams: true,
        backlog: 8,
        owner: Owner::Listener,
    }
}

fn addressing() -> Addressing {
    Addressing { source: addr(Side::Client), port: 40_000, dest: addr(Side::Server) }
}

fn of_client() -> Peer {
    Peer {
        qpn: 0x11,
        responder_resources: 3,
        initiator_depth: 2,
        flow_control: false,
        retry_count: 5,
        rnr_retry_count: 4,
        srq: true,
        vendor_id: 0x15b3,
        options: 7,
    }
}

fn of_server() -> Peer {
    Peer { qpn: 0x22, responder_resources: 1, initiator_depth: 6, ..of_client() }
}

fn request() -> Connect {
    Connect {
        path: path(Side::Client),
        mtu: 5,
        ack_timeout: 17,
        service_id: SERVICE,
        local: of_client(),
        starting_psn: 0x1111,
        private_data: addressing().emit(b"please").unwrap(),
    }
}

fn acceptance() -> Accept {
    let private_data = super::filled_up(b"welcome").unwrap();
    Accept { local: of_server(), starting_psn: 0x2222, private_data }
}

impl Network {
    fn listen(&mut self) -> ListenerId {
        self.server.listen(listener())
    }

    fn ask(&mut self) -> u32 {
        let now = self.now();
        self.client.connect(now, request(), Owner::Client)
    }

    /// Asks, and waits until the request is there.
    fn asked(&mut self) -> (u32, u32) {
        let client = self.ask();
        let (server, event) = self.expect(Owner::Listener);
        assert!(matches!(event, Event::Requested(_)), "{event:?}");
        self.server.set_owner(server, Owner::Server);
        self.server.mark_read(server);
        (client, server)
    }

    fn accept(&mut self, server: u32) {
        let now = self.now();
        self.server.accept(now, server, acceptance()).unwrap();
    }

    /// A connection that stands.
    fn connected(&mut self) -> (u32, u32) {
        let (client, server) = self.asked();
        self.accept(server);
        let (_, event) = self.expect(Owner::Client);
        assert!(matches!(event, Event::Responded(_)), "{event:?}");
        self.client.confirm(client).unwrap();
        assert_eq!(self.expect(Owner::Server), (server, Event::Established));
        (client, server)
    }

    fn states(&self, client: u32, server: u32) -> [Option<State>; 2] {
        [self.client.state(client), self.server.state(server)]
    }

    /// Lets all times pass.
    fn settle(&mut self) {
        self.run_for(Duration::from_secs(30));
    }
}
