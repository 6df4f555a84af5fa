//! A port space is what the crate says it is.
//~ error[E0117]: only traits defined in the current crate can be implemented for types defined outside of the crate

use ibverbs::rdmacm::{ConnectedSpace, Udp};

impl ConnectedSpace for Udp {}

fn main() {}
