//! A completion is valid until the next one is asked for.

use ibverbs::Completions;

fn case(completions: &mut Completions<'_>) -> Option<u64> {
    let first = completions.next()?;
    let id = first.wr_id();
    let second = completions.next()?;
    Some(id + second.wr_id())
}

fn main() {}
