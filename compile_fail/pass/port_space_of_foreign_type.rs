//! Only the crate's own port spaces are port spaces.

use ibverbs::rdmacm::CmId;

use ibverbs::rdmacm::Tcp as Mine;

fn case() -> ibverbs::Result<CmId> {
    CmId::create(Mine)
}

fn main() {}
