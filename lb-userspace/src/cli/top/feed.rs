//! Asks the daemon, in a thread of its own, so that one that does not answer cannot keep keys from being heard.

use super::app::{MOST_CONNECTIONS, Message, Wish};
use super::sample::Sample;
use crate::api::Connection;
use crate::client::{Client, ClientError};
use crate::model::{ServerId, ServiceId};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A server's connections cost the daemon a walk over its table: they are asked for at most so often.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(2);

/// One sample.
pub(super) fn sample(client: &Client) -> Result<Sample, ClientError> {
    let asked = Instant::now();
    let services = client.get("/v1/services")?;
    // Taken between question and answer: half way is the best guess.
    let at = asked + asked.elapsed() / 2;
    let status = client.get("/v1/status")?;
    Ok(Sample { at, services, status })
}

fn connections(client: &Client, of: (ServiceId, ServerId)) -> Result<Vec<Connection>, ClientError> {
    let (service, server) = of;
    let protocol = service.protocol.to_string().to_ascii_lowercase();
    let address = std::net::SocketAddr::new(service.address, service.port);
    let route = format!("/v1/connections?protocol={protocol}&virtual={address}&server={server}&limit={MOST_CONNECTIONS}");
    let mut list = Vec::new();
    client.lines(&route, |c| {
        list.push(c);
        list.len() < MOST_CONNECTIONS
    })?;
    Ok(list)
}

/// Goes on until nobody listens, or the other end of `wishes` is gone.
pub(super) fn run(client: &Client, first: Wish, wishes: &Receiver<Wish>, mut tell: impl FnMut(Message) -> bool) {
    let mut wish = first;
    let mut next = Instant::now() + wish.interval;
    let mut next_connections = Instant::now();
    loop {
        let now = Instant::now();
        let mut told = Ok(());
        if let Some(of) = wish.connections
            && now >= next_connections
        {
            told = connections(client, of).map(|list| tell(Message::Connections(of, list))).map(drop);
            next_connections = Instant::now() + CONNECTIONS_EVERY.max(wish.interval);
        }
        if now >= next && !wish.paused {
            told = told.and_then(|()| sample(client).map(|s| tell(Message::Sample(Box::new(s)))).map(drop));
            // Not two at once after a long wait.
            next = (next + wish.interval).max(Instant::now() + wish.interval / 2);
        }
        if let Err(e) = told
            && !tell(Message::Lost(e.to_string()))
        {
            return;
        }
        let until = if wish.paused { Duration::from_secs(3600) } else { next.saturating_duration_since(Instant::now()) };
        match wishes.recv_timeout(until) {
            Ok(new) => {
                if new.connections != wish.connections {
                    next_connections = Instant::now();
                }
                next = next.min(Instant::now() + new.interval);
                wish = new;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
