//! Names of hosts and ports, both ways.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::model::Protocol;

/// Where service names come from.
const SERVICES: &str = "/etc/services";

/// The names of ports, and how hosts are looked up.
#[derive(Debug, Default)]
pub struct Names {
    by_name: HashMap<(String, Protocol), u16>,
    by_port: HashMap<(u16, Protocol), String>,
    /// Hosts are not looked up: for tests.
    offline: bool,
}

impl Names {
    /// Those of this machine. Without /etc/services ports have no names.
    #[must_use]
    pub fn system() -> Self {
        Self::of(&std::fs::read_to_string(SERVICES).unwrap_or_default())
    }

    /// Ports named as in `text` (services(5)).
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(place)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = place.split_once('/') else { continue };
            let (Ok(port), Ok(protocol)) = (port.parse::<u16>(), protocol.parse::<Protocol>()) else { continue };
            names.by_port.entry((port, protocol)).or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                names.by_name.entry((name.to_owned(), protocol)).or_insert(port);
            }
        }
        names
    }

    /// The same, and hosts have no names.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The port of a service's name.
    #[must_use]
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.by_name.get(&(name.to_owned(), protocol)).copied()
    }

    /// The IPv4 address of a host's name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<Ipv4Addr> {
        // Both ways without asking anybody (RFC 6761).
        if name.eq_ignore_ascii_case("localhost") {
            return Some(Ipv4Addr::LOCALHOST);
        }
        if self.offline || name.is_empty() {
            return None;
        }
        (name, 0).to_socket_addrs().ok()?.find_map(|a| match a.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// An address and port, by name where there is one.
    #[must_use]
    pub fn show(&self, at: SocketAddr, protocol: Protocol, numeric: bool) -> String {
        if numeric {
            return at.to_string();
        }
        let host = match (self.host_of(at.ip()), at.ip()) {
            (Some(name), IpAddr::V4(_)) => name,
            (Some(name), IpAddr::V6(_)) => format!("[{name}]"),
            (None, IpAddr::V4(ip)) => ip.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        match self.by_port.get(&(at.port(), protocol)) {
            Some(name) => format!("{host}:{name}"),
            None => format!("{host}:{}", at.port()),
        }
    }

    fn host_of(&self, ip: IpAddr) -> Option<String> {
        if ip == Ipv4Addr::LOCALHOST {
            return Some("localhost".into());
        }
        if self.offline {
            return None;
        }
        dns_lookup::lookup_addr(&ip).ok().filter(|name| name.parse::<IpAddr>().is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_port_is_shown_and_all_are_understood() {
        let n = Names::of("http 80/tcp www # web\nhttps 443/tcp\ndomain 53/udp\nbad\nworse x/tcp\n").offline();
        assert_eq!(n.port("www", Protocol::Tcp), Some(80));
        assert_eq!(n.port("http", Protocol::Udp), None);
        let at = "192.0.2.1:80".parse().unwrap();
        assert_eq!(n.show(at, Protocol::Tcp, false), "192.0.2.1:http");
        assert_eq!(n.show(at, Protocol::Udp, false), "192.0.2.1:80");
        assert_eq!(n.show(at, Protocol::Tcp, true), "192.0.2.1:80");
        assert_eq!(n.show("127.0.0.1:80".parse().unwrap(), Protocol::Tcp, false), "localhost:http");
        // Another address of the same network has not its name: rules with names would restore another server.
        assert_eq!(n.show("127.0.0.2:80".parse().unwrap(), Protocol::Tcp, false), "127.0.0.2:http");
        assert_eq!(n.show("[2001:db8::1]:443".parse().unwrap(), Protocol::Tcp, false), "[2001:db8::1]:https");
    }
}
