//! The hashes by which the schedulers `sh`, `dh` and `mh` find a server, equal to those of the kernel's IPVS, so that a director
//! can change sides without moving a client.
//!
//! What is hashed is a 32-bit number: the address in host byte order (an IPv6 address is folded: its four words exclusive-ored),
//! plus the client's port in host byte order if the service's flags say so.
//!
//! * `sh`, `dh`: the number times 0x61c88647, the 8 highest bits of the product: 256 slots.
//! * `mh`: SipHash-1-3 under a fixed key of the number's four bytes, little-endian; its low 32 bits modulo the size of the table.

use crate::family::Family;

/// Which of the two hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `sh` and `dh`.
    Multiply,
    /// `mh`.
    Sip,
}

/// Slots of the tables of `sh` and `dh`.
pub const MULTIPLY_SLOTS: u32 = 256;
/// Slots of the table of `mh`: the kernel's default.
pub const SIP_SLOTS: u32 = 4093;

/// Both halves of the key under which `mh` hashes clients, and servers to find their first slot.
pub const SIP_KEY: u64 = 2_654_435_761;
/// Both halves of the key under which `mh` hashes servers to find their step.
pub const SIP_STEP_KEY: u64 = 2_654_446_892;

/// The address as a 32-bit number.
#[inline(always)]
#[must_use]
pub fn fold<F: Family>(addr: F::Addr) -> u32 {
    let wide = F::wide(addr);
    let both = wide[0] ^ wide[1];
    u32::from_be((both >> 32) as u32 ^ both as u32)
}

/// SipHash-1-3 of a 32-bit number under the key (`key`, `key`), low 32 bits.
#[inline(always)]
#[must_use]
pub const fn sip(key: u64, number: u32) -> u32 {
    let mut v =
        [0x736f_6d65_7073_6575 ^ key, 0x646f_7261_6e64_6f6d ^ key, 0x6c79_6765_6e65_7261 ^ key, 0x7465_6462_7974_6573 ^ key];
    let last = (4 << 56) | number as u64;
    v[3] ^= last;
    v = sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(v)));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline(always)]
const fn sip_round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// Remainder that cannot panic, which BPF could not compile: 0 in an empty table.
#[inline(always)]
const fn modulo(number: u32, slots: u32) -> u32 {
    match number.checked_rem(slots) {
        Some(rest) => rest,
        None => 0,
    }
}

/// Slot of a client (or, for `dh`, a destination) in a table of `slots` slots. `port` is 0 where it takes no part.
#[inline(always)]
#[must_use]
pub const fn slot(kind: Kind, folded: u32, port: u16, slots: u32) -> u32 {
    let number = folded.wrapping_add(port as u32);
    match kind {
        Kind::Multiply => modulo(number.wrapping_mul(0x61c8_8647) >> 24, slots),
        Kind::Sip => modulo(sip(SIP_KEY, number), slots),
    }
}

/// With the fallback flag: the slot to look at when the server of `first`, which [`slot`] gave, is unusable, and then those of the
/// `attempts` before; `attempt` counts from 0 to `slots - 1`.
#[inline(always)]
#[must_use]
pub const fn fallback_slot(kind: Kind, folded: u32, port: u16, slots: u32, first: u32, attempt: u32) -> u32 {
    let offset = modulo(attempt.wrapping_add(first), slots);
    match kind {
        Kind::Multiply => modulo(offset.wrapping_add(first), slots),
        Kind::Sip => modulo(sip(SIP_KEY, folded.wrapping_add(port as u32).wrapping_add(offset)), slots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};

    #[test]
    fn addresses_fold_to_host_order() {
        assert_eq!(fold::<V4>(u32::from_ne_bytes([10, 1, 0, 2])), 0x0a01_0002);
        let words = [0x2001_0db8u32, 0, 0x1122_3344, 0x0000_00ff];
        let mut bytes = [0u8; 16];
        for (i, w) in words.iter().enumerate() {
            bytes[i * 4..][..4].copy_from_slice(&w.to_be_bytes());
        }
        let half = |i: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|j| bytes[i * 8 + j]));
        assert_eq!(fold::<V6>([half(0), half(1)]), words.iter().fold(0, |x, w| x ^ w));
    }

    #[test]
    fn slots_stay_within_the_table() {
        for i in 0..2000u32 {
            let number = i.wrapping_mul(0x0101_6b2d);
            assert!(slot(Kind::Multiply, number, i as u16, MULTIPLY_SLOTS) < MULTIPLY_SLOTS);
            let first = slot(Kind::Sip, number, i as u16, SIP_SLOTS);
            assert!(first < SIP_SLOTS);
            assert!(fallback_slot(Kind::Sip, number, i as u16, SIP_SLOTS, first, SIP_SLOTS - 1) < SIP_SLOTS);
            assert!(fallback_slot(Kind::Multiply, number, 0, 256, 255, 255) < MULTIPLY_SLOTS);
            assert_eq!(slot(Kind::Sip, number, 0, 0), 0);
        }
    }
}
