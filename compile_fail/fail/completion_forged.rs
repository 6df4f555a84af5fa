//! Only a poll makes completions.
//~ error[E0451]: fields `raw`, `cq` and `_lent` of struct `WorkCompletion` are private

use ibverbs::WorkCompletion;

fn case(completion: WorkCompletion<'_>) -> WorkCompletion<'_> {
    WorkCompletion { ..completion }
}

fn main() {}
