//! What is left of a connection when its queue pair was taken out is none.

use ibverbs::rdmacm::Connection;

fn case(mut connection: Connection) -> ibverbs::Result<()> {
    let qp = &connection.queue_pair;
    println!("{}", qp.qp_num());
    connection.disconnect()
}

fn main() {}
