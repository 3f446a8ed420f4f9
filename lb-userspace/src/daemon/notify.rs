//! Words with the service manager, where there is one.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Interval, interval};

fn say(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(false, states) {
        tracing::debug!("service manager: {e}");
    }
}

/// Packets are balanced and requests answered.
pub(super) fn ready() {
    say(&[NotifyState::Ready]);
}

/// The start takes longer than usual, but no longer than this from now on.
pub(super) fn starting(more: Duration) {
    say(&[NotifyState::ExtendTimeoutUsec(more.as_micros().try_into().unwrap_or(u32::MAX))]);
}

/// The configuration is being read again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// For the watchdog.
pub(super) fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// Ticks when the watchdog wants to hear, twice as often as it must.
pub(super) fn watchdog() -> Interval {
    let mut micros = 0;
    let period =
        if sd_notify::watchdog_enabled(false, &mut micros) { Duration::from_micros(micros / 2) } else { Duration::from_secs(5) };
    interval(period.max(Duration::from_millis(100)))
}
