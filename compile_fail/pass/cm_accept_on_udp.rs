//! A request of the datagram port space is answered, not accepted.

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Incoming};
use ibverbs::{PreparedQueuePair, Rc};

type Request = Incoming<ibverbs::rdmacm::Tcp>;

fn case(request: Request, prepared: PreparedQueuePair<Rc>) {
    let _connection = request.accept(prepared, &ConnectionParams::new(), Duration::from_secs(1));
}

fn main() {}
