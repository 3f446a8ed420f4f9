//! What a test that measures waiting may not blame on what it tests: CPUs that did nothing for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Measures how long a CPU runs nothing of this machine's: the host gives it to another, or something with real-time priority has it.
///
/// A thread on each CPU, before all others there, sleeps for a millisecond again and again; what it sleeps beyond that is such a stall.
pub struct Stalls {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Stalls {
    /// Begins.
    #[must_use]
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let one = |cpu| {
            let stop = stop.clone();
            std::thread::spawn(move || longest(cpu, &stop))
        };
        let threads = (0..cpus).map(one).collect();
        Self { stop, threads }
    }

    /// The longest stall of a CPU since then.
    #[must_use]
    pub fn longest(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().filter_map(|t| t.join().ok()).max().unwrap_or_default()
    }
}

fn longest(cpu: usize, stop: &AtomicBool) -> Duration {
    // Without these it measures too much, never too little.
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
    let (nap, mut longest) = (Duration::from_millis(1), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(nap);
        longest = longest.max(began.elapsed().saturating_sub(nap));
    }
    longest
}
