//! Posting levels are the crate's own.

use ibverbs::Level;

#[derive(Clone, Copy, Debug)]
enum Mine {}

fn case<L: Level>(_: L::Slice<'_>, _: Mine) {}

fn main() {}
