//! What a datagram came with is read from its bytes, which are checked.

use ibverbs::Grh;

fn case(grh: Grh) -> Grh {
    grh
}

fn main() {}
