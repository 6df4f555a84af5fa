//! Time, of all implementations of a case side by side.

use std::time::{Duration, Instant};

use crate::cases::Case;
use crate::rig::{Raw, Rig};

/// How many times each implementation takes its turn.
const ROUNDS: usize = 2000;
/// About how long a turn lasts: long enough for the clock, and so short that most turns are not interrupted.
const TURN: Duration = Duration::from_micros(20);

/// The medians over all turns, in nanoseconds for doing it once.
///
/// The implementations take turns, and begin in turn, so that whatever else the machine does meets all of them.
pub(crate) fn medians(case: &Case, rig: &mut Rig, raw: &Raw) -> Vec<f64> {
    let implementations = &case.implementations;
    let mut turn = |place: usize, n: u64| {
        let start = Instant::now();
        implementations[place].run(rig, raw, n);
        start.elapsed()
    };
    let n = repetitions(|n| turn(0, n));
    let mut times = vec![Vec::with_capacity(ROUNDS); implementations.len()];
    for round in 0..ROUNDS {
        for place in 0..implementations.len() {
            let place = (round + place) % implementations.len();
            times[place].push(turn(place, n));
        }
    }
    times.iter_mut().map(|times| median(times).as_nanos() as f64 / n as f64).collect()
}

/// How often it must be done to last for a turn: a power of two.
fn repetitions(mut run: impl FnMut(u64) -> Duration) -> u64 {
    let mut n = 1;
    while run(n) < TURN {
        n *= 2;
    }
    n
}

fn median(times: &mut [Duration]) -> Duration {
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_lasts() {
        assert_eq!(repetitions(Duration::from_micros), 32);
        assert_eq!(repetitions(|_| Duration::from_millis(1)), 1);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let times = [5, 900, 1, 3, 4].map(Duration::from_nanos);
        assert_eq!(median(&mut times.clone()), Duration::from_nanos(4));
    }
}
