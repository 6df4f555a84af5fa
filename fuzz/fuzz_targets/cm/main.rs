//! Two connection managers to which anything is done that can happen: no panic, no event that does not fit what was done, no
//! message that is not due, and in the end nothing that is left.
#![no_main]

mod input;
mod network;
mod node;
mod record;

use libfuzzer_sys::fuzz_target;

use input::Input;
use network::Network;

fuzz_target!(|input: Input| {
    let mut network = Network::new(input.first);
    for action in input.actions {
        network.act(action);
    }
    network.finish();
});
