//! When a measurement is over, and how far it is.

use std::time::Instant;

use ibverbs_examples::Progress;

use crate::plan::Extent;

/// How many operations are done between two looks at how far it is.
const STRIDE: u64 = 256;

/// Counts operations.
pub(crate) struct Pace {
    extent: Extent,
    start: Instant,
    done: u64,
    said: u64,
    progress: Progress,
}

impl Pace {
    /// Begins now; `each` is how many queue pairs there are.
    pub(crate) fn new(extent: Extent, queue_pairs: u64) -> Pace {
        let progress = match extent {
            Extent::Iterations(each) => {
                Progress::of(each.saturating_mul(queue_pairs), "operations")
            }
            Extent::Time(time) => Progress::of(time.as_millis() as u64, "ms"),
        };
        Pace { extent, start: Instant::now(), done: 0, said: 0, progress }
    }

    /// So many operations are done; says so now and then. Returns whether it is time to look around.
    #[inline]
    pub(crate) fn add(&mut self, operations: u64) -> bool {
        self.done += operations;
        let is_time = self.done - self.said >= STRIDE;
        if is_time {
            self.say();
        }
        is_time
    }

    #[cold]
    fn say(&mut self) {
        self.said = self.done;
        self.progress.step(match self.extent {
            Extent::Iterations(_) => self.done,
            Extent::Time(_) => self.start.elapsed().as_millis() as u64,
        });
    }

    /// How many operations may be posted on a queue pair that has posted so many.
    #[inline]
    pub(crate) fn left(&self, posted: u64, now: impl FnOnce() -> Instant) -> u64 {
        match self.extent {
            Extent::Iterations(all) => all - posted,
            Extent::Time(time) if now().duration_since(self.start) < time => u64::MAX,
            Extent::Time(_) => 0,
        }
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_queue_pair_has_its_operations() {
        let pace = Pace::new(Extent::Iterations(10), 4);
        let left = |posted| pace.left(posted, || unreachable!("no time is needed"));
        assert_eq!([0, 9, 10].map(left), [10, 1, 0]);
    }

    #[test]
    fn time_passes_for_all() {
        let pace = Pace::new(Extent::Time(Duration::from_secs(2)), 4);
        let left = |seconds| pace.left(7, || pace.start() + Duration::from_secs_f64(seconds));
        assert_eq!([0.0, 1.9, 2.0, 9.0].map(left), [u64::MAX, u64::MAX, 0, 0]);
    }

    #[test]
    fn it_is_seldom_time_to_look_around() {
        let mut pace = Pace::new(Extent::Iterations(10_000), 1);
        let times = (0..10 * STRIDE).filter(|_| pace.add(1)).count();
        assert_eq!(times, 10);
        assert!(pace.add(5 * STRIDE));
    }
}
