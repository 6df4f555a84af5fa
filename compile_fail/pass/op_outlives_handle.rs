//! An operation does not outlive the address handle that it goes to.

use ibverbs::{AddressVector, ProtectionDomain, SendBatch, SendOp, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, pd: &ProtectionDomain, address: &AddressVector) {
    let op: SendOp<'_, Ud>;
    let ah = pd.create_ah(address).unwrap();
    {
        op = batch.to(&ah, 17, 0x1234);
    }
    op.send(1, b"hello");
}

fn main() {}
