//! What a transport can do is not for others to say.

trait RdmaRead {}

impl RdmaRead for ibverbs::Uc {}

fn main() {}
