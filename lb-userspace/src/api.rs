//! What goes over the control socket: HTTP/1.1 with JSON bodies, under `/v1/`.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/services` | | [`Services`] |
//! | `GET /v1/timeouts` | | [`crate::model::Timeouts`] |
//! | `GET /v1/connections` | | one [`Connection`] a line; see [`Wanted`] |
//! | `GET /metrics` | | Prometheus' text format |
//! | `POST /v1/edits` | [`Edits`] | `204`, or an [`ErrorBody`] and nothing changed |
//! | `GET /v1/config` | | the running configuration as TOML |
//! | `POST /v1/config` | [`Configure`] | [`Plan`], or an [`ErrorBody`] and nothing changed |
//! | `POST /v1/zero` | [`Zero`] | `204` |
//!
//! Errors have status 400 (malformed), 403 (a change, over the socket for reading), 404 (absent), 405 (not that method), 408 (too
//! slow), 409 (exists), 413 (too large), 422 (refused), 500 or 503 (too many long answers under way), and an [`ErrorBody`].

use crate::model::{Change, Edit, EditError, ServerSpec, ServiceId, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lvx/lvxd.sock";
/// Overrides [`DEFAULT_SOCKET`] in both programs.
pub const SOCKET_VARIABLE: &str = "LVX_SOCKET";

/// The socket for reading only that is beside a control socket: `lvxd-ro.sock` beside `lvxd.sock`.
#[must_use]
pub fn read_only_socket(socket: &Path) -> PathBuf {
    let mut name = socket.file_stem().unwrap_or_default().to_os_string();
    name.push("-ro");
    if let Some(extension) = socket.extension() {
        name.push(".");
        name.push(extension);
    }
    socket.with_file_name(name)
}

/// Counters since the last `-Z`. Bytes are those of IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Connections made.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients (NAT only).
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// A service as it runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServiceView {
    /// How it is configured.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Counters.
    pub stats: Stats,
    /// Per second, by the kernel's two-second estimator.
    pub rates: Stats,
    /// Servers, newest first.
    pub servers: Vec<ServerView>,
}

/// A real server as it runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServerView {
    /// How it is configured.
    #[serde(flatten)]
    pub spec: ServerSpec,
    /// Active connections.
    pub active: u64,
    /// Inactive connections.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    /// Whether its next hop is known.
    pub resolved: bool,
    /// Whether it is at its upper threshold, or was and is not yet below the lower one.
    #[serde(default)]
    pub overloaded: bool,
    /// Counters.
    pub stats: Stats,
    /// Per second.
    pub rates: Stats,
}

/// `GET /v1/services`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Services {
    /// Connections that the table of one family holds.
    pub table_size: u32,
    /// In the order of their making.
    pub services: Vec<ServiceView>,
}

/// `POST /v1/edits`: all or none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// In order.
    pub edits: Vec<Edit>,
}

/// `POST /v1/config`: services, timeouts and switches of a configuration become the running ones; all of it or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The file's name, for errors.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a configuration changes, or changed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// At once.
    pub changes: Vec<Change>,
    /// Not before `lvxd` starts anew with it.
    pub restart: Vec<Setting>,
}

/// A setting of the configuration that only a start makes true.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Its name: `sizes.connections`.
    pub key: String,
    /// As it is, as TOML; `none` if it is not set.
    pub running: String,
    /// As the configuration has it.
    pub wanted: String,
}

/// `POST /v1/zero`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zero {
    /// One service and its servers; all if absent.
    #[serde(default)]
    pub service: Option<ServiceId>,
}

/// A connection or template.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// `TCP` or `UDP`.
    pub protocol: crate::model::Protocol,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// As ipvsadm names it.
    pub state: String,
    /// Client; port 0 for a template.
    pub client: SocketAddr,
    /// Virtual service.
    #[serde(rename = "virtual")]
    pub service: SocketAddr,
    /// Real server.
    pub server: SocketAddr,
}

/// Which connections `GET /v1/connections` is for, as its query: `?virtual=192.0.2.1:80&server=10.0.0.1:80&limit=100`. All if absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Of this protocol.
    #[serde(default)]
    pub protocol: Option<crate::model::Protocol>,
    /// To this VIP and port; port 0 is every port.
    #[serde(default, rename = "virtual")]
    pub service: Option<SocketAddr>,
    /// At this real server; port 0 is every port.
    #[serde(default)]
    pub server: Option<SocketAddr>,
    /// So many at most.
    #[serde(default)]
    pub limit: Option<usize>,
}

impl Wanted {
    /// Whether a connection is one of them, but for the limit.
    #[must_use]
    pub fn has(&self, c: &Connection) -> bool {
        let at = |want: Option<SocketAddr>, is: SocketAddr| {
            want.is_none_or(|w| w.ip() == is.ip() && (w.port() == 0 || w.port() == is.port()))
        };
        self.protocol.is_none_or(|p| p == c.protocol) && at(self.service, c.service) && at(self.server, c.server)
    }
}

/// `GET /v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Connection tables, IPv4 first.
    pub tables: Vec<TableView>,
    /// The sweeper, which goes through both tables.
    pub sweeper: SweeperView,
    /// The making of plans.
    #[serde(default)]
    pub planner: PlannerView,
    /// Packets by verdict, in the order of [`lb_common::verdict::NAMES`].
    pub verdicts: Vec<VerdictView>,
}

/// An interface that the program is on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Name.
    pub name: String,
    /// Index; 0 while it is away.
    pub index: u32,
    /// `native` or `generic`; `absent` while it is away.
    pub mode: String,
}

/// A connection table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableView {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Connections that it holds at most.
    pub size: u32,
    /// Connections and templates in it, those past their time that nobody took down yet included.
    pub used: u64,
    /// Of these: active connections.
    pub active: u64,
    /// Of these: inactive connections.
    pub inactive: u64,
    /// Of these: persistence templates.
    pub templates: u64,
    /// Connections past their time that a new one took the place of before the sweeper came by, since the maps were made.
    pub reclaimed_expired: u64,
    /// Connections without a finished handshake (and single UDP packets' and their templates) that gave way to new ones.
    pub evicted_embryonic: u64,
    /// Connections that one side or both were done with, which gave way to new ones.
    pub evicted_closing: u64,
    /// Connections and templates past their time that the sweeper took down since the daemon's start.
    pub swept: u64,
    /// Connections by state, as the sweeper found them in its last round: at most some seconds ago.
    #[serde(default)]
    pub states: BTreeMap<String, u64>,
}

/// The sweeper, since the daemon's start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SweeperView {
    /// Rounds through both tables.
    pub rounds: u64,
    /// Records that the last round looked at.
    pub records: u64,
    /// Microseconds that the last round took, pauses included.
    pub round_us: u64,
    /// Microseconds of a CPU that the last round took.
    pub cpu_us: u64,
    /// Rounds of the audit, which compares real servers' counts with the tables.
    pub audits: u64,
    /// Real servers whose counts differed from the tables and were put right.
    pub healed: u64,
    /// Connections that an earlier daemon, killed at it, had left half taken down.
    pub orphans: u64,
}

/// The making of plans for the next connections, since the daemon's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PlannerView {
    /// Requests of the packet path to plan a service anew.
    pub signals: u64,
    /// Plans made, for whatever reason.
    pub plans: u64,
    /// Microseconds that it took.
    pub plan_us: u64,
}

/// A verdict's count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerdictView {
    /// Name.
    pub name: String,
    /// What it means.
    pub meaning: String,
    /// Packets.
    pub packets: u64,
}

/// Body of every error.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong.
    pub error: ApiError,
}

/// An error over the API.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ApiError {
    /// An edit that was refused.
    Edit(EditError),
    /// Anything else.
    Other {
        /// What was wrong.
        message: String,
    },
}
