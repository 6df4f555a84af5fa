//! Transports are sealed.
//~ error[E0277]: the trait bound `Mine: ibverbs::qp::transport::sealed::TransportSpec` is not satisfied

use ibverbs::Transport;

struct Mine;

impl Transport for Mine {}

fn main() {}
