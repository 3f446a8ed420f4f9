//! Timeouts by state, the switches of the kernel's IPVS, and settings of schedulers: what the configuration sets beside services.

use crate::sched::TableSize;
use lb_common::config;
use lb_common::tcp::{self, DEFAULT_TIMEOUTS_S, STATES, State};
use serde::{Deserialize, Serialize};

macro_rules! states {
    ($($key:ident $state:ident,)*) => {
        /// Seconds that a connection in a state lasts without packets. Those of `--set` are in [`super::Timeouts`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[expect(missing_docs, reason = "they are the states' names")]
        pub struct StateTimeouts {
            $(pub $key: u32,)*
        }

        impl Default for StateTimeouts {
            fn default() -> Self {
                Self { $($key: DEFAULT_TIMEOUTS_S[tcp::$state as usize],)* }
            }
        }

        impl StateTimeouts {
            /// From a list in the order of the states.
            #[must_use]
            pub fn of(all: &[u32; STATES]) -> Self {
                Self { $($key: all[tcp::$state as usize],)* }
            }

            /// State, name, seconds.
            pub fn each(&self) -> impl Iterator<Item = (State, &'static str, u32)> + use<> {
                [$((tcp::$state, stringify!($key), self.$key),)*].into_iter()
            }
        }
    };
}

states! {
    none NONE,
    syn_sent SYN_SENT,
    syn_recv SYN_RECV,
    time_wait TIME_WAIT,
    close CLOSE,
    close_wait CLOSE_WAIT,
    last_ack LAST_ACK,
    listen LISTEN,
    synack SYNACK,
}

/// The kernel's switches, under the kernel's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// A TCP packet that is no SYN may start a connection.
    pub sloppy_tcp: bool,
    /// A connection whose real server is gone ends at its next packet.
    pub expire_nodest_conn: bool,
    /// The persistence of clients on a quiesced real server ends.
    pub expire_quiescent_template: bool,
    /// A SYN on a closing connection starts a new one.
    pub conn_reuse: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self { sloppy_tcp: false, expire_nodest_conn: false, expire_quiescent_template: false, conn_reuse: true }
    }
}

impl Switches {
    /// Name and value of each.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, bool)> + use<> {
        [
            ("sloppy_tcp", self.sloppy_tcp),
            ("expire_nodest_conn", self.expire_nodest_conn),
            ("expire_quiescent_template", self.expire_quiescent_template),
            ("conn_reuse", self.conn_reuse),
        ]
        .into_iter()
    }

    /// For the XDP program: flags of [`lb_common::config`].
    #[must_use]
    pub fn flags(&self) -> u32 {
        [
            (self.sloppy_tcp, config::SLOPPY_TCP),
            (self.expire_nodest_conn, config::EXPIRE_NODEST),
            (self.expire_quiescent_template, config::EXPIRE_QUIESCENT_TEMPLATE),
            (!self.conn_reuse, config::NO_CONN_REUSE),
        ]
        .into_iter()
        .filter_map(|(set, bit)| set.then_some(bit))
        .sum()
    }
}

/// `[schedulers]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedulers {
    /// Size of the tables of `mh`, by the kernel's number.
    pub mh_tab_index: TableSize,
}

/// All of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// By state.
    pub timeouts: StateTimeouts,
    /// `[tcp]` of the configuration.
    pub tcp: Switches,
    /// Of schedulers.
    pub schedulers: Schedulers,
}
