//! What the daemon notes for the daemon after it: the packet path never looks here.
//!
//! Counters in the maps only ever grow. What is shown is what they grew by since a *base*: when a server was added, or zeroed last.
//! The bases lie in maps of their own, written in place, so that they outlive the daemon however it ends, and counters go on
//! to the packet. Whose an element is stands here too: a removed server's connections know it only by the element's number.

use crate::service::ServiceKey;

/// Connections, packets in and out, bytes in and out.
pub type Five = [u64; 5];

/// A real server's: element of the same number as its [`crate::dest::Dest`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestNote {
    /// Its service.
    pub service: ServiceKey,
    /// Its address, in the wide form.
    pub real: [u64; 2],
    /// Which making of its service it belongs to; 0: this element is nobody's.
    pub incarnation: u64,
    /// Counters when it was added or zeroed.
    pub base: Five,
    /// Counters when it joined its service, or was zeroed.
    pub joined: Five,
    /// Counters when it was made.
    pub origin: Five,
    /// Counters since the base at the estimator's last step.
    pub last: Five,
    /// The estimator's averages.
    pub average: Five,
    /// Its port as it stands in packets.
    pub port: u16,
    /// Its family.
    pub family: u8,
    /// Zero.
    pub zero: [u8; 5],
}

const _: () = assert!(size_of::<DestNote>() == 256);

/// A service's: element of the same number as its [`crate::service::Service`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceNote {
    /// Which making it is; from 1.
    pub incarnation: u64,
    /// What servers that left had counted since the last zeroing.
    pub gone: Five,
    /// What had been counted until the last zeroing.
    pub zeroed: Five,
    /// Counters at the estimator's last step.
    pub last: Five,
    /// The estimator's averages.
    pub average: Five,
    /// When that step was, in nanoseconds of the monotonic clock.
    pub stepped_ns: u64,
    /// First elements of the two regions of the picks map that its plans have.
    pub regions: [u32; 2],
    /// One more than log2 of their size; 0 if it has none.
    pub order: u32,
    /// Zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<ServiceNote>() == 192);
