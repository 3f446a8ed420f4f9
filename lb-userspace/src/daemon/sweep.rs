//! The thread of the sweeper.

use crate::engine::Sweeper;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records looked at without a pause.
const STEP: u32 = 16_384;
/// A round over a table of any usual size takes this long: so late is an expired connection seen to be gone, at most.
const ROUND: Duration = Duration::from_secs(1);
/// Larger tables are swept no faster than this, so that a round costs little of a CPU.
const RECORDS_PER_SECOND: u64 = 8_000_000;

/// From one audit to the next, at least; and at least so many times what the last one took.
const AUDIT: Duration = Duration::from_secs(5);
const AUDIT_SHARE: u32 = 100;

/// The running sweeper; it ends when this is dropped.
#[derive(Debug)]
pub struct Sweeping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeping {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(mut sweeper: Sweeper) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("sweeper".into()).spawn(move || {
            let mut audit_at = Instant::now() + AUDIT;
            while !stopped.load(Ordering::Relaxed) {
                round(&mut sweeper, &stopped);
                if Instant::now() >= audit_at {
                    let began = Instant::now();
                    sweeper.audit(|| !stopped.load(Ordering::Relaxed));
                    audit_at = Instant::now() + AUDIT.max(began.elapsed() * AUDIT_SHARE);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// One round, and the pause after it.
fn round(sweeper: &mut Sweeper, stop: &AtomicBool) {
    let start = Instant::now();
    let mut seen = 0u64;
    loop {
        let swept = sweeper.step(STEP);
        seen += u64::from(swept.seen);
        // Spread over the round, but for tables that a few steps get through.
        let due = Duration::from_nanos(seen * 1_000_000_000 / RECORDS_PER_SECOND);
        if !rest(start + due, stop) || swept.round {
            break;
        }
    }
    rest(start + ROUND, stop);
}

/// Waits until then; false if the thread is to end.
fn rest(until: Instant, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::park_timeout(left);
    }
    false
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the sweeper has failed");
            }
        }
    }
}
