//! What the integration tests share: the device that they run on, memory, queue pairs and connections that are ready,
//! peers in processes of their own, and waiting with a deadline.
//!
//! A test begins with `let bed = Bed::new();`. The device is the one that `IBVERBS_TEST_DEVICE` names, or else the software
//! device in the process: one of both is always there. A test that needs more than every device has begins with
//! `let Some(bed) = Bed::with([Ability::Multicast]) else { return };`. What each device must have is listed in `abilities.md`,
//! and a device that is not there fails.

mod ability;
mod connection;
mod datagram;
mod device;
pub mod ids;
mod link;
mod memory;
mod owned;
mod pair;
mod peer;
mod process;
mod program;
mod resources;
mod told;
mod wait;

pub use ability::{column, kernel_version, Ability};
pub use connection::{
    accept, assert_connected, both, connected, connected_as, dial, listen, listen_on, local_addr,
    local_addrs, local_ipv6, local_link_local, next_request, resolve, scope, transfer, End, Plan,
};
pub use datagram::{activated, activated_with, longest_datagram, way, way_from, GRH, QKEY};
pub use device::{
    choose_provider, is_soft, other_context, say_skipped, soft_bed, test_context,
    test_context_with, Bed, PORT,
};
pub use link::Link;
pub use memory::{pattern, Mem};
pub use owned::{
    filled, owned_cq, owned_pair, owned_pair_with, poll_owned, prepare_owned, wait_owned, Done,
    OwnedSide,
};
pub use pair::{
    connect, pair, pair_with, post_pieces, post_recv, prepare, prepare_on, submit, unconnected,
    Prepared, Side,
};
pub use peer::{be_peer, connect_to};
pub use process::{alone, alone_with_each, hear, role, tell, wait_for_death, PeerProcess};
pub use program::{Ended, Program, Running};
pub use resources::{kernel_objects, limit_resource, open_device_files, Numbers};
pub use told::{Peer, Route};
pub use wait::{
    assert_silent, eventually, is_readable, wait, wait_event, wait_ok, wait_one, within_deadline,
    Wc, DEADLINE,
};
