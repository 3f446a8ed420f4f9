//! `[[service]]` and `[[service.server]]`.

use crate::model::{
    Edit, Forwarding, Persistence, Protocol, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use serde::Deserialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use toml::Spanned;

/// A virtual service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    protocol: Protocol,
    /// VIP and port.
    address: Spanned<String>,
    scheduler: Spanned<String>,
    #[serde(default)]
    scheduler_flags: Vec<Spanned<String>>,
    /// Seconds.
    persistence: Option<Spanned<i64>>,
    persistence_netmask: Option<Spanned<NetMask>>,
    #[serde(default)]
    one_packet: bool,
    #[serde(default, rename = "server")]
    servers: Vec<Server>,
}

/// A real server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    /// Address, and port where it is not the service's own.
    address: Spanned<String>,
    forwarding: Forwarding,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    upper_threshold: u32,
    #[serde(default)]
    lower_threshold: u32,
}

const fn one() -> u32 {
    1
}

/// An IPv4 mask, or an IPv6 prefix length.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected an IPv4 mask like \"255.255.255.0\" or an IPv6 prefix length like 64")]
enum NetMask {
    Length(u8),
    Mask(std::net::Ipv4Addr),
}

/// Where, and what.
type Wrong = (usize, String);

fn wrong<T>(at: &Spanned<T>, message: impl Into<String>) -> Wrong {
    (at.span().start, message.into())
}

impl Service {
    /// The edits that add service and servers, in the order of the file, each with its place in the text.
    pub(super) fn edits(&self) -> Result<Vec<(usize, Edit)>, Wrong> {
        let service = self.spec()?;
        let id = service.id;
        let mut edits = vec![(self.address.span().start, Edit::AddService { service })];
        for server in &self.servers {
            edits.push((server.address.span().start, Edit::AddServer { service: id, server: server.spec(&id)? }));
        }
        Ok(edits)
    }

    fn spec(&self) -> Result<ServiceSpec, Wrong> {
        let at = &self.address;
        let address: SocketAddr = at
            .get_ref()
            .parse()
            .map_err(|_| wrong(at, format!("service.address: `{}` is not an address:port or [address]:port", at.get_ref())))?;
        let id = ServiceId { protocol: self.protocol, address: address.ip(), port: address.port() };
        let at = &self.scheduler;
        let scheduler: SchedulerKind = at.get_ref().parse().map_err(|()| {
            let known: Vec<_> = SchedulerKind::ALL.iter().map(|k| k.name()).collect();
            wrong(at, format!("service.scheduler: `{}` is not one of {}", at.get_ref(), known.join(", ")))
        })?;
        let mut flags = 0;
        for flag in &self.scheduler_flags {
            flags |= flag_bit(scheduler, flag.get_ref())
                .ok_or_else(|| wrong(flag, format!("service.scheduler_flags: {scheduler} has no flag `{}`", flag.get_ref())))?;
        }
        Ok(ServiceSpec {
            id,
            scheduler,
            sched_flags: SchedFlags(flags),
            persistence: self.persistence(&id)?,
            one_packet: self.one_packet,
        })
    }

    fn persistence(&self, id: &ServiceId) -> Result<Option<Persistence>, Wrong> {
        let Some(timeout) = &self.persistence else {
            return match &self.persistence_netmask {
                Some(mask) => Err(wrong(mask, "service.persistence_netmask: the service has no persistence")),
                None => Ok(None),
            };
        };
        let timeout_s = u32::try_from(*timeout.get_ref())
            .map_err(|_| wrong(timeout, format!("service.persistence: {} is no number of seconds", timeout.get_ref())))?;
        let netmask = match &self.persistence_netmask {
            None => None,
            Some(mask) => Some(match (mask.get_ref(), id.address) {
                (NetMask::Mask(m), IpAddr::V4(_)) => IpAddr::V4(*m),
                (NetMask::Length(n @ 1..=128), IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::from(u128::MAX << (128 - u32::from(*n)))),
                _ => {
                    return Err(wrong(
                        mask,
                        format!("service.persistence_netmask: {id} needs an IPv4 mask or an IPv6 prefix length of its family"),
                    ));
                }
            }),
        };
        Ok(Some(Persistence { timeout_s, netmask }))
    }
}

impl Server {
    fn spec(&self, service: &ServiceId) -> Result<ServerSpec, Wrong> {
        let text = self.address.get_ref();
        let id = match (text.parse::<SocketAddr>(), text.trim_matches(['[', ']']).parse::<IpAddr>()) {
            (Ok(a), _) => ServerId { address: a.ip(), port: a.port() },
            (_, Ok(address)) => ServerId { address, port: service.port },
            _ => {
                return Err(wrong(
                    &self.address,
                    format!("service.server.address: `{text}` is not an address, address:port or [address]:port"),
                ));
            }
        };
        if self.forwarding != Forwarding::Nat && id.port != service.port {
            return Err(wrong(
                &self.address,
                format!("service.server.address: port {} of {id} differs from that of {service}: only nat changes it", id.port),
            ));
        }
        Ok(ServerSpec {
            id,
            forwarding: self.forwarding,
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }
}

/// The bit of a scheduler's flag, by its own name or by number.
fn flag_bit(scheduler: SchedulerKind, flag: &str) -> Option<u8> {
    let own = flag.strip_prefix(scheduler.name()).filter(|_| matches!(scheduler.name(), "sh" | "mh"));
    match (own, flag) {
        (Some("-fallback"), _) | (_, "flag-1") => Some(1),
        (Some("-port"), _) | (_, "flag-2") => Some(2),
        (_, "flag-3") => Some(4),
        _ => None,
    }
}
