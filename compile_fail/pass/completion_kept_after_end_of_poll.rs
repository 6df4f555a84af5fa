//! A completion is gone when its poll has ended.

use ibverbs::Completions;

fn case(mut completions: Completions<'_>) -> Option<u64> {
    let completion = completions.next()?;
    let id = completion.wr_id();
    drop(completions);
    Some(id)
}

fn main() {}
