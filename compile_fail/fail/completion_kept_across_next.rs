//! A completion is valid until the next one is asked for.
//~ error[E0499]: cannot borrow `*completions` as mutable more than once at a time

use ibverbs::Completions;

fn case(completions: &mut Completions<'_>) -> Option<u64> {
    let first = completions.next()?;
    let second = completions.next()?;
    let id = first.wr_id();
    Some(id + second.wr_id())
}

fn main() {}
