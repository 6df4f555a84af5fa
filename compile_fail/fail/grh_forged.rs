//! What a datagram came with is read from its bytes, which are checked.
//~ error[E0451]: fields `sgid`, `dgid`, `traffic_class`, `flow_label`, `hop_limit` and `roce_v2` of struct `Grh` are private

use ibverbs::Grh;

fn case(grh: Grh) -> Grh {
    Grh { ..grh }
}

fn main() {}
