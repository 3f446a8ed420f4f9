//! A walk over the live connections, for `GET /v1/connections`, on a thread of its own while packets go on.
//!
//! What comes and goes meanwhile may be in it or not; each connection shown was live as shown at some instant.

use super::Engine;
use super::memory::TableMemory;
use crate::api::Connection;
use crate::model::Protocol;
use aya::Pod;
use lb_common::conn::{self, CONFIRMED, Conn, LIVE, TEMPLATE};
use lb_common::family::{Family, V4, V6, ip_of};
use lb_common::proto::NAT;
use lb_common::tcp::{NONE, STATE_NAMES};
use lb_common::time::{left, ms_of_ticks, reached};
use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Iterates over the connections that are live and not expired, IPv4 first.
#[derive(Debug)]
pub struct Connections {
    table4: Arc<TableMemory<V4>>,
    table6: Arc<TableMemory<V6>>,
    at: u64,
}

impl Engine {
    /// All connections and templates.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections { table4: self.table4.clone(), table6: self.table6.clone(), at: 0 }
    }
}

impl Iterator for Connections {
    type Item = Connection;

    fn next(&mut self) -> Option<Connection> {
        let first = u64::from(self.table4.conns.len());
        let all = first + u64::from(self.table6.conns.len());
        while self.at < all {
            let at = self.at;
            self.at += 1;
            let shown = if at < first { show(&*self.table4, at as u32) } else { show(&*self.table6, (at - first) as u32) };
            if shown.is_some() {
                return shown;
            }
        }
        None
    }
}

/// A record as it is shown; `None` if it is not live.
fn show<F: Family>(table: &TableMemory<F>, index: u32) -> Option<Connection>
where
    Conn<F>: Pod,
{
    let word = table.conns.u64(index, offset_of!(Conn<F>, ctl));
    let ctl = word.load(Ordering::Acquire);
    if conn::phase(ctl) != LIVE {
        return None;
    }
    let c = table.conns.read(index)?;
    fence(Ordering::Acquire);
    // Filled anew while it was read?
    if !conn::same_owner(ctl, word.load(Ordering::Acquire)) {
        return None;
    }
    let now = table.now();
    if reached(now, c.expires) {
        return None;
    }
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.number() == c.proto & !lb_common::proto::TEMPLATE)?;
    let server = if c.method == NAT {
        F::ip(c.real)
    } else {
        let dest = table.dests.read(c.dest)?;
        ip_of(dest.real, dest.family)?
    };
    let port = |p: u16| u16::from_be(p);
    // A template is for all ports of its client.
    let client_port = if ctl & TEMPLATE != 0 { 0 } else { port(c.client_port()) };
    // A template is assured once a connection under it was established.
    let state = if ctl & TEMPLATE != 0 && ctl & CONFIRMED == 0 { NONE } else { conn::state(ctl) };
    Some(Connection {
        protocol,
        expires_ms: ms_of_ticks(left(now, c.expires)),
        state: STATE_NAMES.get(state as usize).copied().unwrap_or("NONE").into(),
        client: SocketAddr::new(F::ip(c.client), client_port),
        service: SocketAddr::new(F::ip(c.vip), port(c.vport())),
        server: SocketAddr::new(server, port(c.real_port)),
    })
}
