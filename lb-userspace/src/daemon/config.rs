//! The configuration file: TOML, every key optional, unknown keys refused.
//!
//! An error is one line that names the file, line and column, the key, and the reason. What single values must be is checked
//! while they are read (so that the error has their place); what they mean together is checked by
//! [`Desired::apply`](crate::model::Desired::apply), the same as for every other way of configuring.

mod fixed;
mod metrics;
mod place;
mod services;
#[cfg(test)]
mod tests;
mod values;
mod write;

pub use fixed::differing;
pub use metrics::Metrics;
pub use values::{LogLevel, Mode};
pub use write::write;

use crate::model::{Behaviour, Desired, Schedulers, StateTimeouts, Switches, Timeouts};
use lb_common::limits;
use lb_common::tcp::{self, DEFAULT_TIMEOUTS_S};
use serde::Deserialize;
use services::Service;
use std::path::{Path, PathBuf};
use values::{Count, FileMode, InterfaceName, Seconds};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in characters.
        column: usize,
        /// The key and the reason.
        message: String,
    },
}

/// A configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    interfaces: Vec<InterfaceName>,
    /// Where the program runs.
    pub mode: Option<Mode>,
    /// Where maps and links are pinned.
    pub pin_dir: Option<PathBuf>,
    /// Whether the program stays at exit.
    pub stay_attached: bool,
    /// How much is logged.
    pub log: Option<LogLevel>,
    /// Control socket.
    pub socket: Socket,
    /// Prometheus.
    pub metrics: Metrics,
    /// Capacities.
    pub sizes: Sizes,
    timeouts: States,
    tcp: Switches,
    schedulers: Schedulers,
    #[serde(rename = "service")]
    services: Vec<Service>,
    /// What is for the start alone, as it was written.
    #[serde(skip)]
    pub fixed: toml::Table,
}

/// `[socket]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Socket {
    /// Path.
    pub path: Option<PathBuf>,
    /// Group that may use it, by name or number; the daemon's own if absent.
    pub group: Option<String>,
    /// Group that may read, through a second socket; no such socket if absent.
    pub read_group: Option<String>,
    mode: FileMode,
}

impl Default for Socket {
    fn default() -> Self {
        Self { path: None, group: None, read_group: None, mode: FileMode(0o660) }
    }
}

impl Socket {
    /// Permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode.0
    }
}

/// `[sizes]`: all are fixed for the life of the maps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sizes {
    connections: Count<1, { limits::MAX_CONNECTIONS as i64 }, { limits::DEFAULT_CONNECTIONS as i64 }>,
    services: Count<1, 1_000_000, { limits::DEFAULT_SERVICES as i64 }>,
    servers: Count<1, 1_000_000, { limits::DEFAULT_SERVERS as i64 }>,
    picks: Count<64, { 1 << 28 }, { limits::DEFAULT_PICKS as i64 }>,
}

impl Sizes {
    /// Connections of one family.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.get()
    }

    /// Virtual services.
    #[must_use]
    pub fn services(&self) -> u32 {
        self.services.get()
    }

    /// Real server entries, removed ones that connections still use included.
    #[must_use]
    pub fn servers(&self) -> u32 {
        self.servers.get()
    }

    /// Slots for picks.
    #[must_use]
    pub fn picks(&self) -> u32 {
        self.picks.get()
    }
}

macro_rules! state_timeouts {
    ($($key:ident $state:ident,)*) => {
        /// `[timeouts]`: seconds by state; those absent are the kernel's.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct States {
            $($key: Option<Seconds>,)*
        }

        impl States {
            /// Seconds, in the order of the states.
            fn all(&self) -> [u32; tcp::STATES] {
                let mut all = DEFAULT_TIMEOUTS_S;
                $(if let Some(s) = self.$key { all[tcp::$state as usize] = s.0; })*
                all
            }
        }
    };
}

state_timeouts! {
    none NONE,
    established ESTABLISHED,
    syn_sent SYN_SENT,
    syn_recv SYN_RECV,
    fin_wait FIN_WAIT,
    time_wait TIME_WAIT,
    close CLOSE,
    close_wait CLOSE_WAIT,
    last_ack LAST_ACK,
    listen LISTEN,
    synack SYNACK,
    udp UDP,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or the first thing wrong in it.
    pub fn read(path: &Path) -> Result<(Self, Desired), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Reads text; `path` is for errors. Gives the configuration and the services in it.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Desired), ConfigError> {
        let wrong = |at: usize, message: String| {
            let (line, column) = place::line_and_column(text, at);
            ConfigError::Wrong { path: path.into(), line, column, message }
        };
        let mut config: Self = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            let reason = e.message().trim().replace('\n', "; ");
            match place::key(text, at) {
                Some(key) if !reason.contains(&format!("`{key}`")) => wrong(at, format!("{key}: {reason}")),
                _ => wrong(at, reason),
            }
        })?;
        let timeouts = config.timeouts.all();
        let mut desired = Desired {
            services: Vec::new(),
            timeouts: Timeouts {
                tcp: timeouts[tcp::ESTABLISHED as usize],
                tcpfin: timeouts[tcp::FIN_WAIT as usize],
                udp: timeouts[tcp::UDP as usize],
            },
            behaviour: Behaviour { timeouts: StateTimeouts::of(&timeouts), tcp: config.tcp, schedulers: config.schedulers },
        };
        config.fixed = fixed::of(text);
        let (mut places, mut edits) = (Vec::new(), Vec::new());
        for service in &config.services {
            let (at, edit): (Vec<_>, Vec<_>) = service.edits().map_err(|(at, message)| wrong(at, message))?.into_iter().unzip();
            places.extend(at);
            edits.extend(edit);
        }
        desired.apply(&edits).map_err(|e| wrong(places.get(e.edit).copied().unwrap_or(0), e.message))?;
        Ok((config, desired))
    }

    /// Names of interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().map(|i| i.0.as_str())
    }
}

/// Whether a name can be an interface's: the kernel's rule.
pub(super) fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
}
