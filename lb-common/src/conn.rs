//! A connection's record.
//!
//! Everything that decides about the record (its phase, its state, whose it is) is in one 64-bit control word, changed by
//! compare-and-swap alone: whoever wins the swap from live to claimed owns the record, its index entries and its place in
//! the counters, be it the packet path of any CPU or the sweeper. The other fields are written while the record is claimed
//! and only read while it is live, except `expires` and the cached reply, which any packet of the connection refreshes.
//!
//! The trap: a reader that found the record live may still be reading when the record is claimed and filled anew. It reads
//! the control word again after the fields, and takes the connection for gone when the word is another's
//! ([`same_owner`]).

use crate::family::{Family, V4, V6};
use crate::tcp::State;
use crate::time::Tick;

/// Phase (bits 0 to 7 of the control word): unused.
pub const FREE: u64 = 0;
/// Phase: being filled or taken down; nobody else may touch it.
pub const CLAIMED: u64 = 1;
/// Phase: in use.
pub const LIVE: u64 = 2;
/// Phase: unused, and in the stack of free records: only who takes it from there may use it.
pub const STACKED: u64 = 3;
/// Phase: as [`CLAIMED`], but by the daemon: one that starts and finds such a record knows that its forerunner was killed.
pub const SWEPT: u64 = 4;

/// Flag (control word): the answers' direction has an index entry too.
pub const REVERSE: u64 = 1 << 16;
/// Flag (control word): a persistence template.
pub const TEMPLATE: u64 = 1 << 17;
/// Flag (control word): of a UDP flow, that packets of both directions, or a second one of the client's, were seen; of a template, that
/// a connection under it was established or confirmed.
pub const CONFIRMED: u64 = 1 << 18;

const STATE_SHIFT: u32 = 8;
const GENERATION: u64 = 1 << 32;

/// The phase of a control word.
#[inline(always)]
#[must_use]
pub const fn phase(ctl: u64) -> u64 {
    ctl & 0xff
}

/// The state in a control word.
#[inline(always)]
#[must_use]
pub const fn state(ctl: u64) -> State {
    (ctl >> STATE_SHIFT) as u8
}

/// The control word with another state.
#[inline(always)]
#[must_use]
pub const fn with_state(ctl: u64, state: State) -> u64 {
    (ctl & !(0xff << STATE_SHIFT)) | (state as u64) << STATE_SHIFT
}

/// The control word of the next owner, live.
#[inline(always)]
#[must_use]
pub const fn published(claimed: u64, state: State, flags: u64) -> u64 {
    ((claimed & !(GENERATION - 1)).wrapping_add(GENERATION)) | flags | (state as u64) << STATE_SHIFT | LIVE
}

/// The control word while claimed; keeps state and flags, which the claimer needs.
#[inline(always)]
#[must_use]
pub const fn claimed(ctl: u64) -> u64 {
    (ctl & !0xff) | CLAIMED
}

/// The control word in another phase; keeps everything else.
#[inline(always)]
#[must_use]
pub const fn with_phase(ctl: u64, phase: u64) -> u64 {
    (ctl & !0xff) | phase
}

/// Whether a live connection has shown no sign that anybody is there: a TCP handshake that is not through, or a single UDP packet.
#[inline(always)]
#[must_use]
pub const fn is_embryonic(ctl: u64) -> bool {
    crate::tcp::is_embryonic(state(ctl)) || (state(ctl) == crate::tcp::UDP && ctl & CONFIRMED == 0)
}

/// The control word once free.
#[inline(always)]
#[must_use]
pub const fn freed(ctl: u64) -> u64 {
    ctl & !(GENERATION - 1)
}

/// A free control word of the next generation.
#[inline(always)]
#[must_use]
pub const fn succeeded(ctl: u64) -> u64 {
    freed(ctl).wrapping_add(GENERATION)
}

/// Whether two readings of a live record's control word belong to the same connection.
#[inline(always)]
#[must_use]
pub const fn same_owner(a: u64, b: u64) -> bool {
    (a ^ b) >> 32 == 0 && phase(b) == LIVE
}

/// One connection. 64 bytes for IPv4, 96 for IPv6; what a client's packet needs is in the first 64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Conn<F: Family> {
    /// Control word: generation (32 bits), flags (16), state (8), phase (8).
    pub ctl: u64,
    /// When it dies, unless a packet comes.
    pub expires: Tick,
    /// Index of its real server in the dests map.
    pub dest: u32,
    /// Client's port and service's port as they stand in a client's packet.
    pub ports: u32,
    /// Server's port, network byte order.
    pub real_port: u16,
    /// Checksum delta of a client's packet's translation ([`crate::csum::l4_delta`]).
    pub l4_delta: u16,
    /// Protocol number.
    pub proto: u8,
    /// [`crate::proto::NAT`], [`crate::proto::DR`] or [`crate::proto::TUN`].
    pub method: u8,
    /// Checksum delta of a client's IPv4 header's translation ([`crate::csum::addr_delta`]).
    pub ip_delta: u16,
    /// Index of its template's record plus one; 0 is none. By then the record may be another's: it says whose reference to give back.
    pub template: u32,
    /// Client.
    pub client: F::Addr,
    /// VIP.
    pub vip: F::Addr,
    /// Server, where its family is the service's (always under NAT).
    pub real: F::Addr,
    /// [`crate::config::Config::next_hop_generation`] that `reply` was looked up in; 0 is never.
    pub reply_generation: u32,
    /// IPv6: see [`Family::REFERENCES`].
    pub pad_a: F::PadA,
    /// Next hop of answers ([`crate::dest::next_hop`]). While the record is in the stack of free ones: the next of it.
    pub reply: u64,
    /// IPv4: see [`Family::REFERENCES`].
    pub pad_b: F::PadB,
}

/// IPv4.
pub type Conn4 = Conn<V4>;
/// IPv6.
pub type Conn6 = Conn<V6>;

const _: () = assert!(size_of::<Conn4>() == 64);
const _: () = assert!(size_of::<Conn6>() == 96);
const _: () = assert!(core::mem::offset_of!(Conn4, client) == 32 && core::mem::offset_of!(Conn4, reply) == 48);
const _: () = assert!(core::mem::offset_of!(Conn6, client) == 32 && core::mem::offset_of!(Conn6, reply) == 88);
const _: () = assert!(core::mem::offset_of!(Conn4, pad_b) == V4::REFERENCES);
const _: () = assert!(core::mem::offset_of!(Conn6, reply_generation) == V6::REFERENCES);
const _: () = assert!(core::mem::offset_of!(Conn6, pad_a) == V6::REFERENCES + 4);

impl<F: Family> Conn<F> {
    /// Client's port, network byte order.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_ne_bytes([b[0], b[1]])
    }

    /// Service's port, network byte order.
    #[must_use]
    pub fn vport(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_ne_bytes([b[2], b[3]])
    }
}

/// The word of two ports as it stands at the start of a TCP or UDP header.
#[inline(always)]
#[must_use]
pub const fn ports_word(src: u16, dst: u16) -> u32 {
    let s = src.to_ne_bytes();
    let d = dst.to_ne_bytes();
    u32::from_ne_bytes([s[0], s[1], d[0], d[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp;

    #[test]
    fn control_word_parts_do_not_overlap() {
        let live = published(freed(u64::MAX), tcp::SYN_RECV, REVERSE);
        assert_eq!(phase(live), LIVE);
        assert_eq!(state(live), tcp::SYN_RECV);
        assert_eq!(live >> 32, 0, "the generation wraps");
        let established = with_state(live, tcp::ESTABLISHED);
        assert!(same_owner(live, established));
        assert_eq!(established & REVERSE, REVERSE);
        let taken = claimed(established);
        assert!(!same_owner(established, taken));
        assert_eq!(state(taken), tcp::ESTABLISHED);
        let next = published(taken, tcp::UDP, 0);
        assert!(!same_owner(established, next));
        assert_eq!(next & REVERSE, 0);
    }

    #[test]
    fn ports_word_is_the_wire_order() {
        let w = ports_word(0x1234u16.to_be(), 80u16.to_be());
        assert_eq!(w.to_ne_bytes(), [0x12, 0x34, 0, 80]);
        let c = Conn4 { ports: w, ..Default::default() };
        assert_eq!(u16::from_be(c.client_port()), 0x1234);
        assert_eq!(u16::from_be(c.vport()), 80);
    }
}
