//! A queue pair that was connected is the connection's.
//~ error[E0382]: borrow of moved value: `prepared`

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(resolved: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let params = ConnectionParams::new();
    let connection = resolved.connect(prepared, &params, Duration::from_secs(1))?;
    println!("{}", prepared.qp_num());
    Ok(())
}

fn main() {}
