//! A service with servers on a director without a daemon, and one packet at a time.

use crate::director::{DIRECTOR_MAC, Director};
use crate::packet::{CLIENT_MAC, Frame};
use anyhow::Result;
use lb_userspace::model::{Desired, Edit, Forwarding, Protocol, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec};
use lb_userspace::object::PROGRAM;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What became of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// See [`crate::director::action`].
    pub action: u32,
    /// Its verdict: the only counter that moved, by one.
    pub verdict: String,
    /// The frame after it.
    pub frame: Vec<u8>,
}

/// A director with one service.
pub struct Scene {
    /// The director.
    pub d: Director,
    /// The configuration.
    pub desired: Desired,
    /// The service.
    pub id: ServiceId,
    /// How its servers are reached.
    pub method: Forwarding,
}

/// A client of a family, told apart by its port.
#[must_use]
pub fn client(v6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 { "2001:db8:1::7" } else { "198.51.100.7" }.parse().expect("an address");
    SocketAddr::new(ip, port)
}

/// Server `n` of a family, from 1. NAT translates port 80 to 8080.
#[must_use]
pub fn server(v6: bool, n: u8, method: Forwarding) -> SocketAddr {
    let ip: IpAddr = if v6 { format!("fd00::{}", 10 + n) } else { format!("10.0.0.{}", 10 + n) }.parse().expect("an address");
    SocketAddr::new(ip, if method == Forwarding::Nat { 8080 } else { 80 })
}

/// MAC of server `n`.
#[must_use]
pub fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// Where tunnelled packets leave from.
#[must_use]
pub fn tunnel_source(v6: bool) -> IpAddr {
    if v6 { "fd00::fe" } else { "10.0.0.254" }.parse().expect("an address")
}

impl Scene {
    /// A service on port 80 with `servers` servers of the family `server_v6`, all resolved.
    ///
    /// # Errors
    /// The kernel's, or the engine's.
    pub fn new(v6: bool, protocol: Protocol, method: Forwarding, servers: u8, server_v6: bool) -> Result<Self> {
        let address: IpAddr = if v6 { "2001:db8::1" } else { "192.0.2.1" }.parse()?;
        let id = ServiceId { protocol, address, port: 80 };
        let mut s = Self { d: Director::new()?, desired: Desired::default(), id, method };
        s.edit(Edit::AddService {
            service: ServiceSpec {
                id,
                scheduler: SchedulerKind::Rr,
                sched_flags: Default::default(),
                persistence: None,
                one_packet: false,
            },
        })?;
        for n in 1..=servers {
            let server = s.spec(n, server_v6);
            s.edit(Edit::AddServer { service: id, server })?;
            s.d.reach(self::server(server_v6, n, method).ip(), server_mac(n), tunnel_source(server_v6));
        }
        Ok(s)
    }

    /// Server `n` as it is configured.
    #[must_use]
    pub fn spec(&self, n: u8, v6: bool) -> ServerSpec {
        let at = server(v6, n, self.method);
        ServerSpec {
            id: ServerId { address: at.ip(), port: at.port() },
            forwarding: self.method,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    /// The service's address.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.id.address, self.id.port)
    }

    /// Changes the configuration.
    ///
    /// # Errors
    /// The model's or the engine's.
    pub fn edit(&mut self, edit: Edit) -> Result<()> {
        self.desired.apply(&[edit]).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.d.configure(&self.desired)
    }

    fn verdicts(&self) -> BTreeMap<String, u64> {
        self.d.engine.verdicts().into_iter().map(|v| (v.name, v.packets)).collect()
    }

    /// Passes a frame through the program.
    ///
    /// # Panics
    /// If not exactly one verdict was counted, once.
    pub fn pass(&mut self, frame: &[u8]) -> Step {
        let before = self.verdicts();
        let answer = self.d.run(PROGRAM, frame).expect("a test run");
        let moved: Vec<_> = self.verdicts().into_iter().filter(|(name, n)| before[name] != *n).collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        let (verdict, n) = moved[0].clone();
        assert_eq!(n, before[&verdict] + 1);
        Step { action: answer.action, verdict, frame: answer.frame }
    }

    /// The client's packet.
    #[must_use]
    pub fn from_client(&self, port: u16, flags: u8) -> Frame {
        let (src, dst) = (client(self.id.address.is_ipv6(), port), self.vip());
        match self.id.protocol {
            Protocol::Tcp => Frame::tcp(src, dst, flags).payload(b"from the client"),
            Protocol::Udp => Frame::udp(src, dst, b"from the client"),
        }
    }

    /// Number of connections in the table.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.d.engine.connections().count()
    }

    /// Active and inactive connections of all servers.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let services = self.d.engine.services();
        let servers = services.services.iter().flat_map(|s| &s.servers);
        servers.fold((0, 0), |(a, i), s| (a + s.active, i + s.inactive))
    }

    /// The only connection's state.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[must_use]
    pub fn state(&self) -> String {
        let all: Vec<_> = self.d.engine.connections().collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].state.clone()
    }
}

/// A frame with these MAC addresses.
#[must_use]
pub fn with_macs(mut frame: Vec<u8>, dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame
}

/// A frame as the director sends it to server `n`.
#[must_use]
pub fn to_server(frame: Vec<u8>, n: u8) -> Vec<u8> {
    with_macs(frame, server_mac(n), DIRECTOR_MAC)
}

/// A frame as the director sends it back to the client.
#[must_use]
pub fn to_client(frame: Vec<u8>) -> Vec<u8> {
    with_macs(frame, CLIENT_MAC, DIRECTOR_MAC)
}
