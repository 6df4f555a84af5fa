//! Completions are lent one at a time: what is kept of them is copied.
//~ error[E0499]: cannot borrow `*completions` as mutable more than once at a time

use ibverbs::Completions;

fn case(completions: &mut Completions<'_>) -> usize {
    let mut kept = Vec::new();
    while let Some(completion) = completions.next() {
        kept.push(completion);
    }
    kept.len()
}

fn main() {}
