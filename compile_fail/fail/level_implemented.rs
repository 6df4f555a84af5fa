//! Posting levels are the crate's own.
//~ error[E0277]: the trait bound `Mine: ibverbs::post::level::sealed::Sealed` is not satisfied

use ibverbs::Level;

#[derive(Clone, Copy, Debug)]
enum Mine {}

impl Level for Mine {
    type Slice<'r> = u8;
}

fn main() {}
