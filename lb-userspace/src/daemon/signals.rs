//! Messages of the packet path: services whose schedulers want to be asked again, and how much of a CPU may be spent on them.
//!
//! A service signals at most once until it has a new plan. Under a flood it does so again at once, so that a plan of the counts of
//! every moment would keep a CPU busy, and be hardly better for it: connections that end make room for new ones without a plan
//! ([`lb_common::service::Service::vacancies`]). So planning gets a share of a CPU: it is never late where there is little to do, and under a
//! flood it rests, three times as long as it worked.

use aya::maps::{MapData, RingBuf};
use std::future::pending;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Rest for each time of work.
const REST: u32 = 3;
/// Rest that may be owed: as much work as goes with it is done at once.
const CREDIT: Duration = Duration::from_millis(3);

/// The messages.
pub type Ring = RingBuf<MapData>;

/// Where messages come in.
pub(super) struct Signals {
    ring: Option<AsyncFd<Ring>>,
    pace: Pace,
}

impl Signals {
    /// From this ring buffer; none ever, if there is none.
    pub(super) fn new(ring: Option<Ring>) -> Self {
        let ring = ring.and_then(|ring| {
            // SAFETY: the ring buffer owns its file descriptor, which is open as long as it lives; it is dropped with the `AsyncFd`.
            match unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) } {
                Ok(ring) => Some(ring),
                Err(e) => {
                    tracing::error!("signals of the packet path: {e}: plans are made anew every two seconds only");
                    None
                }
            }
        });
        Self { ring, pace: Pace::new(Instant::now()) }
    }

    /// Waits for messages, and for the rest after what was done for those before. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> Vec<u32> {
        let Some(ring) = &mut self.ring else { return pending().await };
        sleep_until(self.pace.open()).await;
        match ring.readable_mut().await {
            Ok(mut ready) => {
                // Before the ring is drained: what comes in meanwhile makes it readable again.
                ready.clear_ready();
                drain(ready.get_inner_mut())
            }
            Err(_) => pending().await,
        }
    }

    /// What they asked for is done; it was begun then.
    pub(super) fn done(&mut self, began: Instant) {
        self.pace.worked(began, Instant::now());
    }
}

/// The services in all messages that came in, each once.
fn drain(ring: &mut Ring) -> Vec<u32> {
    let mut slots = Vec::new();
    while let Some(message) = ring.next() {
        if let Ok(bytes) = <[u8; 4]>::try_from(&message[..]) {
            slots.push(u32::from_ne_bytes(bytes));
        }
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// When there is work again.
struct Pace {
    /// When all work so far is rested from.
    rested: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { rested: now }
    }

    fn open(&self) -> Instant {
        self.rested.checked_sub(CREDIT).unwrap_or(self.rested)
    }

    fn worked(&mut self, began: Instant, ended: Instant) {
        self.rested = self.rested.max(began) + (ended - began) * (1 + REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Works whenever it may for as long as there is something to do, and gives the share of time it worked.
    fn share(work: Duration, every: Duration) -> (f64, Duration) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut worked, mut late) = (start, Duration::ZERO, Duration::ZERO);
        while now - start < Duration::from_secs(10) {
            let began = now.max(pace.open());
            late = late.max(began - now);
            pace.worked(began, began + work);
            worked += work;
            now = (began + work).max(now + every);
        }
        (worked.as_secs_f64() / (now - start).as_secs_f64(), late)
    }

    #[test]
    fn what_is_little_is_never_late() {
        // Plans of three, a hundred and a thousand servers.
        for (work, every) in [(20 * US, 80 * US), (100 * US, 400 * US), (500 * US, 2000 * US)] {
            let (share, late) = share(work, every);
            assert!((0.24..0.26).contains(&share), "{share}");
            assert_eq!(late, Duration::ZERO, "{work:?}");
        }
    }

    #[test]
    fn a_flood_leaves_three_parts_of_four() {
        for work in [20 * US, 100 * US, 1000 * US, 20_000 * US] {
            let (share, late) = share(work, Duration::ZERO);
            assert!((0.24..0.26).contains(&share), "{work:?}: {share}");
            assert!(late <= REST * work, "{work:?}: {late:?}");
        }
    }
}
