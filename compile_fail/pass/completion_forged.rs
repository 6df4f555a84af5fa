//! Only a poll makes completions.

use ibverbs::WorkCompletion;

fn case(completion: WorkCompletion<'_>) -> WorkCompletion<'_> {
    completion
}

fn main() {}
