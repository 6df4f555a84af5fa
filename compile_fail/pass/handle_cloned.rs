//! An address handle has one owner: it is destroyed once.

use ibverbs::AddressHandle;

fn case(ah: AddressHandle) -> [AddressHandle; 1] {
    [ah]
}

fn main() {}
