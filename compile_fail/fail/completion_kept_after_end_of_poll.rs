//! A completion is gone when its poll has ended.
//~ error[E0505]: cannot move out of `completions` because it is borrowed

use ibverbs::Completions;

fn case(mut completions: Completions<'_>) -> Option<u64> {
    let completion = completions.next()?;
    drop(completions);
    let id = completion.wr_id();
    Some(id)
}

fn main() {}
