//! A virtual service as the packet path sees it: its key, and its picks.
//!
//! *Picks* are real servers for the next new connections, in order, written by the daemon into a region of the picks map.
//! A service has two such regions; the cursor names the one in use in its highest bit and counts positions in its low half, so
//! that the daemon replaces a plan with one compare-and-swap on the cursor and knows exactly how many picks of the old
//! one were taken.

use crate::limits::VACANCIES;
use crate::load::Measure;

/// Key of the services hash. Port in network byte order; an IPv4 address in the first four bytes of `addr`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceKey {
    /// VIP, in the wide form of [`crate::family::Family::wide`].
    pub addr: [u64; 2],
    /// Port as it stands in the packet; 0 is every port (persistent services).
    pub port: u16,
    /// Protocol number.
    pub proto: u8,
    /// [`crate::family::FAMILY_V4`] or [`crate::family::FAMILY_V6`].
    pub family: u8,
    /// Zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 24);

/// [`Service::cursor`]: which plan is in use.
pub const CURSOR_PLAN: u64 = 1 << 63;
/// [`Service::cursor`]: adding one to this part marks a new plan, so that a stale compare-and-swap fails.
pub const CURSOR_EPOCH: u64 = 1 << 32;

/// [`Service::flags`]: connections are not kept, every datagram is scheduled (`--ops`).
pub const ONE_PACKET: u32 = 1 << 0;
/// [`Service::flags`]: persistent.
pub const PERSISTENT: u32 = 1 << 1;
/// [`Service::flags`]: picks are a table indexed by a hash of the client's address.
pub const HASHED: u32 = 1 << 2;
/// [`Service::flags`], with [`HASHED`]: the client's port takes part.
pub const HASH_PORT: u32 = 1 << 3;
/// [`Service::flags`], with [`HASHED`]: the hash is that of `mh`, else that of `sh`.
pub const HASH_SIP: u32 = 1 << 4;
/// [`Service::flags`], with [`HASHED`]: another slot is tried where the server of the first is unusable.
pub const HASH_FALLBACK: u32 = 1 << 5;
/// [`Service::flags`]: the plan depends on connection counts: the daemon wants to know when they change.
pub const COUNTED: u32 = 1 << 6;

/// [`Service::flags`]: the next connection is the least loaded server's, so that a server with one connection less is a better choice than
/// the plan knew ([`Service::vacancies`]); by which [`Measure`] is in [`EXPECTED`] and [`WEIGHTED`].
pub const LEAST: u32 = 1 << 7;
/// With [`LEAST`]: [`Measure::Weighted`].
pub const WEIGHTED: u32 = 1 << 8;
/// With [`LEAST`]: [`Measure::Expected`].
pub const EXPECTED: u32 = 1 << 9;
/// With [`LEAST`]: but a server without active connections comes first, whatever its weight.
pub const IDLE_FIRST: u32 = 1 << 10;

/// A region of the picks map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// First element.
    pub base: u32,
    /// Elements; 0 means that there is no server to pick.
    pub len: u32,
}

/// Element of the services map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    /// [`CURSOR_PLAN`], an epoch, and in the low 32 bits the number of picks taken from the plan in use.
    pub cursor: u64,
    /// The two plans.
    pub plans: [Plan; 2],
    /// Bits above.
    pub flags: u32,
    /// Persistence timeout, in ticks.
    pub persist_ticks: u32,
    /// Persistence netmask, in the wide form.
    pub persist_mask: [u64; 2],
    /// Number of taken picks from which on every pick tells the daemon; `u32::MAX` is never.
    pub low_water: u32,
    /// Set while a message to the daemon is on its way.
    pub signalled: u32,
    /// For each plan the position at which it goes on after its last pick, below its length (or 0). What comes before is right for the
    /// counts that the plan was made for, once; what follows is a cycle for as long as nobody makes another plan.
    pub again: [u32; 2],
    /// Servers that lost an active connection so far.
    pub vacated: u64,
    /// How many of these were looked at, or are in the plan.
    pub filled: u64,
    /// The last of them, at their number modulo the length.
    ///
    /// A plan of the least loaded servers is made for the counts of one moment. New connections make it no worse: it has counted them
    /// ahead. Connections that end do, by one place each; that place is here until a new connection takes it or the daemon, which is told at the
    /// same time, has made the next plan. So the choice is as good as if it were made anew for each connection, however late the daemon is.
    pub vacancies: [u32; VACANCIES],
    /// Zero.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Service>() == 256);

impl Plan {
    /// Position of a pick, if `taken` were taken before it, in a plan that goes on at `again`; 0 in an empty one.
    #[inline(always)]
    #[must_use]
    pub const fn position(&self, taken: u32, again: u32) -> u32 {
        if taken < self.len {
            return taken;
        }
        match (taken.wrapping_sub(again)).checked_rem(self.len.wrapping_sub(again)) {
            Some(rest) => again.wrapping_add(rest),
            None => 0,
        }
    }
}

impl Service {
    /// The plan that a cursor names.
    #[inline(always)]
    #[must_use]
    pub const fn plan_of(cursor: u64) -> usize {
        (cursor >> 63) as usize
    }

    /// What is load to a service with these flags, if it wants the least loaded server.
    #[inline(always)]
    #[must_use]
    pub const fn measure(flags: u32) -> Option<Measure> {
        if flags & LEAST == 0 {
            None
        } else if flags & EXPECTED != 0 {
            Some(Measure::Expected)
        } else if flags & WEIGHTED != 0 {
            Some(Measure::Weighted)
        } else {
            Some(Measure::Plain)
        }
    }

    /// Picks taken from the plan in use.
    #[inline(always)]
    #[must_use]
    pub const fn taken(cursor: u64) -> u32 {
        cursor as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_goes_on_behind_its_beginning() {
        let plan = Plan { base: 0, len: 5 };
        let positions = |again| [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|taken| plan.position(taken, again));
        assert_eq!(positions(0), [0, 1, 2, 3, 4, 0, 1, 2, 3]);
        assert_eq!(positions(3), [0, 1, 2, 3, 4, 3, 4, 3, 4]);
        assert_eq!(Plan::default().position(7, 0), 0);
        assert!(plan.position(u32::MAX, 4) < 5);
    }
}
