//! Counters that only one CPU writes: plain additions there, sums in user space.

use crate::table::Reclaimed;
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
    /// Connections and templates that gave way, by [`crate::config::Config::slot`] of their family.
    pub gave_way: [GaveWay; 2],
}

/// Connections and templates that gave way to new ones, by why they could.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GaveWay {
    /// Past their time, found by the packet path before the sweeper came by.
    pub expired: u64,
    /// Embryonic.
    pub embryonic: u64,
    /// One side or both were done with them.
    pub closing: u64,
}

impl GaveWay {
    /// The counter of a reclaimed record; `None` if nobody had it.
    #[inline(always)]
    pub const fn of(&mut self, reclaimed: Reclaimed) -> Option<&mut u64> {
        match reclaimed {
            Reclaimed::Nothing => None,
            Reclaimed::Expired => Some(&mut self.expired),
            Reclaimed::Embryonic => Some(&mut self.embryonic),
            Reclaimed::Closing => Some(&mut self.closing),
        }
    }
}

const _: () = assert!(size_of::<Cpu>() == 576);
const _: () = assert!(VERDICTS <= 64);

impl Default for Cpu {
    fn default() -> Self {
        Self { verdicts: [0; 64], icmp_left: 0, icmp_second: 0, gave_way: [GaveWay { expired: 0, embryonic: 0, closing: 0 }; 2] }
    }
}
