//! The desired state: virtual services, real servers, timeouts, and the edits that change them.
//!
//! Every way of configuring (command line, API, TOML) becomes a list of [`Edit`]s. [`Desired::apply`] takes the whole list or
//! none of it; the daemon then reconciles the maps with the result. Nothing here does I/O.

mod behaviour;
mod compare;
mod edit;
mod id;
#[cfg(test)]
pub(crate) mod random;
mod scheduler;

pub use behaviour::{Behaviour, Schedulers, StateTimeouts, Switches};
pub use compare::{Action, Change, Field, Live, compare};
pub use edit::{Edit, EditError, EditErrorKind};
pub use id::{ParseIdError, Protocol, ServerId, ServiceId};
pub use scheduler::{SchedFlags, SchedulerKind};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Largest weight that ipvsadm takes.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;
/// Persistence timeout where none is given, seconds.
pub const DEFAULT_PERSISTENCE_S: u32 = 360;
/// Longest timeout that can be set, seconds (31 days, as ipvsadm's).
pub const MAX_TIMEOUT_S: u32 = 31 * 24 * 3600;

/// How packets reach a real server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Masquerading, `-m`.
    Nat,
    /// Gatewaying, direct routing, `-g`.
    Dr,
    /// IP-in-IP tunnelling, `-i`.
    Tun,
}

impl std::fmt::Display for Forwarding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
        })
    }
}

/// A virtual service without its servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Protocol, VIP and port.
    #[serde(flatten)]
    pub id: ServiceId,
    /// Scheduler.
    pub scheduler: SchedulerKind,
    /// Scheduler flags, `-b`.
    #[serde(default, skip_serializing_if = "SchedFlags::is_empty")]
    pub sched_flags: SchedFlags,
    /// Persistence, `-p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// One-packet scheduling, `-o`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_packet: bool,
}

/// Persistence of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Seconds without a new connection until a client may be given another server.
    pub timeout_s: u32,
    /// `-M`: bits of the client's address that count. IPv4: any mask, as an address. IPv6: a prefix length, as an address
    /// with that many leading ones. `None` is the whole address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<IpAddr>,
}

/// A real server of a service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// Address and port. The port is the service's own for [`Forwarding::Dr`] and [`Forwarding::Tun`].
    #[serde(flatten)]
    pub id: ServerId,
    /// Forwarding method.
    pub forwarding: Forwarding,
    /// Weight; 0 quiesces.
    #[serde(default = "one")]
    pub weight: u32,
    /// `-x`; 0 is none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// `-y`; 0 is three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
}

const fn one() -> u32 {
    1
}

/// The three timeouts of `--set`, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP after a FIN (`FIN_WAIT`).
    pub tcpfin: u32,
    /// UDP.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcpfin: 120, udp: 300 }
    }
}

/// A service and its servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceState {
    /// The service.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Newest first: the order in which schedulers see them, as in the kernel.
    pub servers: Vec<ServerSpec>,
}

/// All that is configured. A copy shares its services with the original until one of them is edited: copies are cheap, and
/// what is the same in two of them is found by comparing pointers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Desired {
    /// In the order of their making.
    pub services: Vec<Arc<ServiceState>>,
    /// `--set`.
    pub timeouts: Timeouts,
    /// The other timeouts, switches, and settings of schedulers.
    #[serde(default)]
    pub behaviour: Behaviour,
}

impl Desired {
    /// The service of that name.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&ServiceState> {
        self.services.iter().find(|s| s.spec.id == *id).map(|s| &**s)
    }
}
