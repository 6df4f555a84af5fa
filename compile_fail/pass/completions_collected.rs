//! Completions are lent one at a time: what is kept of them is copied.

use ibverbs::Completions;

fn case(completions: &mut Completions<'_>) -> usize {
    let mut kept = Vec::new();
    while let Some(completion) = completions.next() {
        kept.push(completion.wr_id());
    }
    kept.len()
}

fn main() {}
