//! Only the crate's own port spaces are port spaces.
//~ error[E0277]: `Mine` is not a port space

use ibverbs::rdmacm::CmId;

#[derive(Clone, Copy)]
struct Mine;

fn case() -> ibverbs::Result<CmId> {
    CmId::create(Mine)
}

fn main() {}
