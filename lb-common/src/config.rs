//! What the daemon tells the XDP program: one element, read by every packet, written rarely.

use crate::tcp::{DEFAULT_TIMEOUTS_S, STATES};
use crate::time::ticks_of_seconds;

/// [`Config::flags`]: a TCP packet that is no SYN may start a connection (the kernel's `sloppy_tcp`).
pub const SLOPPY_TCP: u32 = 1 << 0;
/// [`Config::flags`]: a connection whose server is gone ends at its next packet (`expire_nodest_conn`).
pub const EXPIRE_NODEST: u32 = 1 << 1;
/// [`Config::flags`]: a template of a quiesced server is not used (`expire_quiescent_template`).
pub const EXPIRE_QUIESCENT_TEMPLATE: u32 = 1 << 2;
/// [`Config::flags`]: a SYN on a closing connection continues it (the kernel's `conn_reuse_mode = 0`).
pub const NO_CONN_REUSE: u32 = 1 << 3;
/// [`Config::flags`]: there are one-packet services under NAT, so a packet for no service may be an answer of theirs ([`crate::once`]).
/// Set by the daemon while it is so, not by its user.
pub const ANSWERERS: u32 = 1 << 4;

/// Run-time configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// [`crate::limits::ABI_VERSION`].
    pub abi: u32,
    /// Bits above.
    pub flags: u32,
    /// Seeds of the flow hash; drawn once for the life of the table. The second is odd.
    pub seed: [u64; 2],
    /// Buckets of the index minus one (a power of two minus one), IPv4 and IPv6.
    pub bucket_mask: [u32; 2],
    /// Connection records, IPv4 and IPv6.
    pub records: [u32; 2],
    /// Cached replies' next hops of another generation are looked up again; bumped when routes or neighbours change.
    pub next_hop_generation: u32,
    /// Added to the clock, in ticks: tests move time with it.
    pub clock_offset: u32,
    /// Elements of the services, servers and picks maps.
    pub services: u32,
    /// See `services`.
    pub servers: u32,
    /// See `services`.
    pub picks: u32,
    /// ICMP errors a CPU may send in a second.
    pub icmp_per_second: u32,
    /// Timeout by state, in ticks.
    pub timeouts: [u32; 16],
}

const _: () = assert!(size_of::<Config>() == 128);

impl Config {
    /// The defaults of the kernel's IPVS; sizes and seeds are the caller's.
    #[must_use]
    pub fn new(seed: [u64; 2]) -> Self {
        let mut timeouts = [0; 16];
        let mut s = 0;
        while s < STATES {
            timeouts[s] = ticks_of_seconds(DEFAULT_TIMEOUTS_S[s]);
            s += 1;
        }
        Self {
            abi: crate::limits::ABI_VERSION,
            flags: 0,
            seed: [seed[0], seed[1] | 1],
            bucket_mask: [0; 2],
            records: [0; 2],
            next_hop_generation: 1,
            clock_offset: 0,
            services: 0,
            servers: 0,
            picks: 0,
            icmp_per_second: crate::limits::ICMP_PER_SECOND,
            timeouts,
        }
    }

    /// Index of a family in `bucket_mask` and `records`.
    #[inline(always)]
    #[must_use]
    pub const fn slot(family: u8) -> usize {
        if family == crate::family::FAMILY_V6 { 1 } else { 0 }
    }
}
