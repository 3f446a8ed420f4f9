//! Client, director, switch and real servers, cabled and addressed.
//!
//! ```text
//! two arms:    client --out- director -in-- switch -- servers
//!                 +------------------------+           (the way back under DR and TUN)
//! on a stick:  client -- switch -- servers
//!                          |
//!                       director
//! ```
//! Client 10.1.0.2 and fd01::2, director 10.1.0.1, 10.2.0.1, fd01::1, fd02::1, servers 10.2.0.11, fd02::11 and on, VIPs 10.9.0.1
//! and fd09::1. Under DR and TUN servers answer the client past the director, by its second leg, 10.2.0.2.

use super::{Lvxd, Ns, PassAll};
use anyhow::Result;
use std::net::IpAddr;

/// How the director is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Outside and inside.
    TwoArms,
    /// By one interface.
    Stick,
}

/// Forwarding method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `-m`
    Nat,
    /// `-g`
    Dr,
    /// `-i`
    Tun,
}

impl Method {
    /// The option of lvxadm.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::Dr => "-g",
            Self::Tun => "-i",
        }
    }
}

/// Everything but the programs.
#[derive(Debug)]
pub struct Lab {
    /// Sends requests.
    pub client: Ns,
    /// Balances.
    pub director: Ns,
    /// Real servers.
    pub servers: Vec<Ns>,
    /// Interfaces of the director.
    pub interfaces: Vec<&'static str>,
    /// How servers are reached.
    pub method: Method,
    _switch: Ns,
    _pass: Vec<PassAll>,
}

/// VIP of a family.
#[must_use]
fn vip(v6: bool) -> IpAddr {
    if v6 { "fd09::1" } else { "10.9.0.1" }.parse().expect("an address")
}

/// Address of server `i`, from 0.
#[must_use]
fn server(v6: bool, i: usize) -> IpAddr {
    let text = if v6 { format!("fd02::{}", 11 + i) } else { format!("10.2.0.{}", 11 + i) };
    text.parse().expect("an address")
}

impl Lab {
    /// VIP of a family.
    #[must_use]
    pub fn vip(&self, v6: bool) -> IpAddr {
        vip(v6)
    }

    /// Address of server `i`, from 0.
    #[must_use]
    pub fn server(&self, v6: bool, i: usize) -> IpAddr {
        server(v6, i)
    }

    /// Counters of interfaces that say that packets were lost, or could not be sent: all that are not zero.
    ///
    /// # Errors
    /// As [`Ns::sh`].
    pub fn losses(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let fixed = [("client", &self.client), ("director", &self.director), ("switch", &self._switch)];
        for (name, ns) in fixed.into_iter().chain(self.servers.iter().map(|s| ("server", s))) {
            let links: serde_json::Value = serde_json::from_str(&ns.ip("-s -j link show type veth")?)?;
            for link in links.as_array().into_iter().flatten() {
                let device = link["ifname"].as_str().unwrap_or_default();
                let counters = ["rx", "tx"].map(|way| format!("{way} dropped: {}", link["stats64"][way]["dropped"]));
                let more = ns.sh(&format!("ethtool -S {device}"))?;
                let more = more.lines().filter(|l| l.contains("drop") || l.contains("error"));
                let lost = counters.iter().map(String::as_str).chain(more).filter(|l| !l.ends_with(": 0"));
                all.extend(lost.map(|l| format!("{name}, {device}: {}", l.trim())));
            }
        }
        Ok(all)
    }

    /// How many packets the cables lost: no fewer than they did; a loss may be counted at both ends.
    ///
    /// # Errors
    /// As [`Lab::losses`].
    pub fn lost(&self) -> Result<u64> {
        let all = self.losses()?;
        let numbers = all.iter().filter_map(|l| l.split_once("x dropped: ")).map(|(_, n)| n.parse::<u64>());
        Ok(numbers.sum::<Result<_, _>>()?)
    }

    /// Builds it.
    ///
    /// # Errors
    /// Privilege, or programs that are not installed.
    pub fn new(layout: Layout, method: Method, servers: usize) -> Result<Self> {
        let (client, director, switch) = (Ns::new()?, Ns::new()?, Ns::new()?);
        // Outer headers need room between director and servers.
        let inside_mtu = if method == Method::Tun { 1600 } else { 1500 };
        let mut pass = Vec::new();
        let bridge = |ns: &Ns| -> Result<()> {
            ns.ip("link add name sw0 type bridge")?;
            ns.sh("sysctl -qw net.ipv6.conf.sw0.disable_ipv6=1")?;
            ns.ip("link set dev sw0 up")?;
            Ok(())
        };
        bridge(&switch)?;
        let plug = |name: &str| switch.ip(&format!("link set dev {name} master sw0"));
        let (client_if, outside, inside, interfaces) = match layout {
            Layout::TwoArms => {
                client.cable("eth0", &director, "out", 1500)?;
                director.cable("in", &switch, "dir", inside_mtu)?;
                plug("dir")?;
                pass.push(PassAll::on(&client, "eth0")?);
                pass.push(PassAll::on(&switch, "dir")?);
                ("eth0", "out", "in", vec!["out", "in"])
            }
            Layout::Stick => {
                client.cable("eth0", &switch, "cli", 1500)?;
                director.cable("eth0", &switch, "dir", inside_mtu)?;
                plug("cli")?;
                plug("dir")?;
                pass.push(PassAll::on(&switch, "dir")?);
                ("eth0", "eth0", "eth0", vec!["eth0"])
            }
        };
        client.cable("back", &switch, "back", 1500)?;
        plug("back")?;
        for a in ["addr add 10.1.0.2/24", "-6 addr add fd01::2/64 nodad"] {
            client.ip(&format!("{a} dev {client_if}"))?;
        }
        for a in ["addr add 10.2.0.2/24", "-6 addr add fd02::2/64 nodad"] {
            client.ip(&format!("{a} dev back"))?;
        }
        client.ip("route add 10.9.0.0/24 via 10.1.0.1")?;
        client.ip("-6 route add fd09::/64 via fd01::1")?;
        client.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0")?;
        for a in ["addr add 10.1.0.1/24", "-6 addr add fd01::1/64 nodad"] {
            director.ip(&format!("{a} dev {outside}"))?;
        }
        for a in ["addr add 10.2.0.1/24", "-6 addr add fd02::1/64 nodad"] {
            director.ip(&format!("{a} dev {inside}"))?;
        }
        director.ip("addr add 10.9.0.1/32 dev lo")?;
        director.ip("-6 addr add fd09::1/128 dev lo nodad")?;
        director.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0")?;
        if layout == Layout::Stick {
            // Else its kernel tells servers and client of each other as soon as it routes a packet between them, and answers go
            // past the director.
            director.sh("sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0")?;
        }
        let mut lab = Self { client, director, servers: Vec::new(), interfaces, method, _switch: switch.clone(), _pass: pass };
        for i in 0..servers {
            let s = Ns::new()?;
            s.cable("eth0", &switch, &format!("srv{i}"), inside_mtu)?;
            switch.ip(&format!("link set dev srv{i} master sw0"))?;
            s.ip(&format!("addr add {}/24 dev eth0", server(false, i)))?;
            s.ip(&format!("-6 addr add {}/64 dev eth0 nodad", server(true, i)))?;
            lab.set_up_server(&s)?;
            lab.servers.push(s);
        }
        Ok(lab)
    }

    /// Routes, and what DR and TUN ask of a real server.
    fn set_up_server(&self, s: &Ns) -> Result<()> {
        let back = if self.method == Method::Nat { 1 } else { 2 };
        s.ip(&format!("route add default via 10.2.0.{back}"))?;
        s.ip(&format!("-6 route add default via fd02::{back}"))?;
        if self.method != Method::Nat {
            s.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.all.rp_filter=0")?;
            s.ip("addr add 10.9.0.1/32 dev lo")?;
            s.ip("-6 addr add fd09::1/128 dev lo nodad")?;
        }
        Ok(())
    }

    /// Starts lvxd on the director, and under TUN the decapsulating program on every server.
    ///
    /// # Errors
    /// They do not start; with what they said.
    pub fn start(&self) -> Result<Lvxd> {
        self.start_with(&[])
    }

    /// The same, with more words on the command line of lvxd.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_with(&self, more: &[&str]) -> Result<Lvxd> {
        let lvxd = Lvxd::start(&self.director, &self.interfaces, more)?;
        if self.method == Method::Tun {
            for (i, s) in self.servers.iter().enumerate() {
                lvxd.decap(s, "eth0", i)?;
            }
        }
        Ok(lvxd)
    }
}
