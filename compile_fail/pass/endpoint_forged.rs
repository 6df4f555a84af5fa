//! An endpoint is made of parts that are checked.

use ibverbs::QueuePairEndpoint;

fn case(endpoint: QueuePairEndpoint) -> QueuePairEndpoint {
    endpoint
}

fn main() {}
