//! Port spaces are sealed.
//~ error[E0277]: the trait bound `Mine: rdmacm::port_space::sealed::Sealed` is not satisfied

use ibverbs::rdmacm::PortSpace;

#[derive(Clone, Copy)]
struct Mine;

impl PortSpace for Mine {}

fn main() {}
