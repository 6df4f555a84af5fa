//! Waiting for completions.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use ibverbs::{CompletionQueue, WorkCompletion};

/// How long to wait for a completion that does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often whoever waits looks after other things.
const ROUND: Duration = Duration::from_millis(10);

/// How often an empty queue is polled again at once. Whoever waits longer lets other threads run, which may
/// be those that it waits for.
const SPINS: u32 = 1000;

/// Polls until at least `count` requests have completed, and passes each completion to `each`.
///
/// It is an error if a request failed, or none completes for 30 seconds.
pub fn wait(
    cq: &CompletionQueue,
    count: usize,
    each: impl FnMut(&WorkCompletion<'_>) -> Result<()>,
) -> Result<()> {
    wait_while(cq, count, || Ok(()), each)
}

/// As [`wait`], and calls `still` now and then while nothing completes. Its error ends the waiting.
pub fn wait_while(
    cq: &CompletionQueue,
    mut count: usize,
    still: impl Fn() -> Result<()>,
    mut each: impl FnMut(&WorkCompletion<'_>) -> Result<()>,
) -> Result<()> {
    let (mut spins, mut last, mut looked) = (0, Instant::now(), Instant::now());
    while count > 0 {
        let Some(mut completions) = cq.poll()? else {
            spins += 1;
            if spins > SPINS {
                std::thread::yield_now();
                if looked.elapsed() > ROUND {
                    still()?;
                    ensure!(last.elapsed() < PATIENCE, "nothing completed for {PATIENCE:?}");
                    looked = Instant::now();
                }
            }
            continue;
        };
        while let Some(completion) = completions.next() {
            completion
                .ok()
                .with_context(|| format!("work request {} failed", completion.wr_id()))?;
            each(&completion)?;
            count = count.saturating_sub(1);
        }
        (spins, last) = (0, Instant::now());
    }
    Ok(())
}
