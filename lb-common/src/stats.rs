//! Counters that only one CPU writes: plain additions there, sums in user space.

use crate::verdict::VERDICTS;

/// Counters of one dest on one CPU. Bytes are IP packets' total lengths, as IPVS counts them.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestStats {
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets from the server, where it answers through the director.
    pub out_packets: u64,
    /// Bytes from the server.
    pub out_bytes: u64,
    /// Connections made.
    pub connections: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<DestStats>() == 64);

/// Counters of one CPU.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Packets by [`crate::verdict::Verdict`].
    pub verdicts: [u64; 64],
    /// ICMP errors left in this second.
    pub icmp_left: u64,
    /// The second.
    pub icmp_second: u64,
    /// Connections that gave way: expired ones found by the packet path.
    pub reclaimed_expired: u64,
    /// Connections that gave way: embryonic ones.
    pub evicted_embryonic: u64,
    /// Connections that gave way: those that one side or both were done with.
    pub evicted_closing: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<Cpu>() == 576);
const _: () = assert!(VERDICTS <= 64);

impl Default for Cpu {
    fn default() -> Self {
        Self {
            verdicts: [0; 64],
            icmp_left: 0,
            icmp_second: 0,
            reclaimed_expired: 0,
            evicted_embryonic: 0,
            evicted_closing: 0,
            reserved: [0; 3],
        }
    }
}
