//! Two queue pairs to which anything is done that can happen: no panic, nothing that was not allowed, nothing lost, nothing twice.
#![no_main]

mod host;
mod input;
mod pair;

use libfuzzer_sys::fuzz_target;

use input::Input;
use pair::Pair;

fuzz_target!(|input: Input| {
    let mut input = input;
    let actions = std::mem::take(&mut input.actions);
    let mut pair = Pair::new(&input);
    for action in actions {
        pair.act(action, &input);
    }
    pair.finish();
});
