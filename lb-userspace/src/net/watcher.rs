//! Watches what the director's packets depend on.

use super::Event;
use std::net::IpAddr;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Tells of changes for as long as it lives.
#[derive(Debug)]
pub struct Watcher {
    _events: UnboundedSender<Event>,
}

impl Watcher {
    /// Starts in the network namespace of this thread.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn start() -> std::io::Result<(Self, UnboundedReceiver<Event>)> {
        let (events, receiver) = unbounded_channel();
        Ok((Self { _events: events }, receiver))
    }

    /// Sets the addresses that are to be resolved.
    pub fn set_targets(&self, targets: Vec<IpAddr>) {
        tracing::debug!("to be resolved: {targets:?}");
    }
}
