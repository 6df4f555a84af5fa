//! An endpoint is made of parts that are checked.
//~ error[E0451]: fields `qp_num`, `psn`, `lid` and `gid` of struct `QueuePairEndpoint` are private

use ibverbs::QueuePairEndpoint;

fn case(endpoint: QueuePairEndpoint) -> QueuePairEndpoint {
    QueuePairEndpoint { ..endpoint }
}

fn main() {}
