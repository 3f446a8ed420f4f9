//! One-packet scheduling: what the answers of servers under NAT are known by.
//!
//! A datagram of a one-packet service leaves no connection, so its answer finds none. The kernel's IPVS lets it go untranslated. Here
//! it is translated by who sends it: an *answerer*, a server of a one-packet service under NAT, has a key of its own among those of
//! services, by its address and port with [`crate::proto::ANSWERER`] in the protocol, and a bit of the service filter; the key leads to
//! its dest, which knows VIP and port of its service. This needs no memory of the datagram and is exact, but for two things, for which
//! each datagram leaves a *trace*: where one server answers for several services ([`SHARED`]), which of them the client asked; and the
//! way by which it came, for a client that the routing tables do not lead back to.
//!
//! The trap: traces are few ([`crate::limits::TRACES`]), and a later flow of the same slot overwrites an earlier one. Without its trace
//! the answer of a shared server leaves from one of its services, right or wrong.

use crate::limits::TRACES;

/// Value of an answerer's key, beside the number of its dest: the server answers for other services too.
pub const SHARED: u32 = 1 << 31;

/// What a datagram left behind, at the slot of its answer's flow.
///
/// The first word is written last, and read before and after the second. Two CPUs that write different flows to one slot in the same
/// instant can still mix them: one datagram takes another's way then, to a neighbour of the director's that routes it or drops it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Dest (32 bits), service's port as it stands in packets (16), and a piece of the hash (16, never 0).
    pub who: u64,
    /// Where the client's packet came from ([`crate::dest::next_hop`]).
    pub hop: u64,
}

const _: () = assert!(size_of::<Trace>() == 16);

/// The slot of an answer's flow.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64) -> u32 {
    hash as u32 & (TRACES - 1)
}

const fn piece(hash: u64) -> u64 {
    (hash >> 48) | 1
}

/// [`Trace::who`].
#[inline(always)]
#[must_use]
pub const fn who(hash: u64, vport: u16, dest: u32) -> u64 {
    piece(hash) << 48 | (vport as u64) << 32 | dest as u64
}

/// Dest and service's port of a trace, if it is of the flow with this hash.
#[inline(always)]
#[must_use]
pub const fn of(who: u64, hash: u64) -> Option<(u32, u16)> {
    if who >> 48 == piece(hash) { Some((who as u32, (who >> 32) as u16)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_of_its_flow_alone() {
        for hash in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let w = who(hash, 53u16.to_be(), 77);
            assert_eq!(of(w, hash), Some((77, 53u16.to_be())));
            assert_eq!(of(w, hash ^ 1 << 50), None);
            assert_eq!(of(0, hash), None, "an empty slot is nobody's");
            assert!(slot(hash) < TRACES);
        }
    }
}
