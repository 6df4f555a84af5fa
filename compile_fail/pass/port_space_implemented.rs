//! Port spaces are sealed.

use ibverbs::rdmacm::PortSpace;

#[derive(Clone, Copy)]
struct Mine<P: PortSpace>(P);

fn main() {}
