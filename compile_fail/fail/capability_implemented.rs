//! What a transport can do is not for others to say.
//~ error[E0117]: only traits defined in the current crate can be implemented for types defined outside of the crate

use ibverbs::RdmaRead;

impl RdmaRead for ibverbs::Uc {}

fn main() {}
