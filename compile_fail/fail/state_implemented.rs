//! States are sealed.
//~ error[E0277]: the trait bound `Mine: ibverbs::qp::state::sealed::Sealed` is not satisfied

use ibverbs::State;

struct Mine;

impl State for Mine {}

fn main() {}
