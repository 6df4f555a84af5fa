//! An address handle has one owner: it is destroyed once.
//~ error[E0599]: no method named `clone` found for struct `AddressHandle`

use ibverbs::AddressHandle;

fn case(ah: AddressHandle) -> [AddressHandle; 2] {
    [ah.clone(), ah]
}

fn main() {}
