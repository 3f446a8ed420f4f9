//! What the XDP program and the daemon share.
//!
//! Everything here is pure: layouts of map keys and values, the connection table's algorithm, checksum deltas, the TCP
//! state table, verdict names. The XDP program supplies memory and atomics from BPF maps, the daemon from the same maps
//! mapped into its address space, the tests from plain vectors. Nothing here touches a packet pointer or a socket.
//!
//! Invariant: every type that crosses the kernel boundary is `repr(C)`, without implicit padding, with its size asserted
//! at compile time; any change to one of them bumps [`limits::ABI_VERSION`].
#![no_std]

#[cfg(any(test, feature = "user"))]
extern crate std;

pub mod bench;
pub mod config;
pub mod conn;
pub mod csum;
pub mod dest;
pub mod family;
pub mod filter;
pub mod hash;
pub mod limits;
pub mod load;
pub mod note;
pub mod once;
pub mod proto;
pub mod sched_hash;
pub mod service;
pub mod stats;
pub mod table;
pub mod tcp;
pub mod time;
pub mod verdict;

#[cfg(feature = "user")]
mod pod;
