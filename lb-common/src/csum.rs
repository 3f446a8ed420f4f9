//! Internet checksum deltas (RFC 1624, equation 3), on words as they stand in memory: one's complement sums do not care
//! about byte order as long as all words are taken alike.
//!
//! A *delta* is the folded sum `~m + m'` over everything that changes. The same change backwards is its complement, so a
//! NAT connection stores one delta for both directions.

use crate::family::Family;

/// Folds a sum of 16-bit words to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Delta of replacing address and port: what the TCP and UDP checksums see.
#[inline(always)]
#[must_use]
pub fn l4_delta<F: Family>(old: F::Addr, old_port: u16, new: F::Addr, new_port: u16) -> u16 {
    // ~x of a folded sum subtracts it.
    let old_sum = fold(F::sum(old) + old_port as u64);
    fold((!old_sum) as u64 + F::sum(new) + new_port as u64)
}

/// Delta of replacing an address: what the IPv4 header checksum sees.
#[inline(always)]
#[must_use]
pub fn addr_delta<F: Family>(old: F::Addr, new: F::Addr) -> u16 {
    fold((!fold(F::sum(old))) as u64 + F::sum(new))
}

/// The checksum after a change of `delta` (which may be the sum of several deltas).
#[inline(always)]
#[must_use]
pub const fn apply(check: u16, delta: u32) -> u16 {
    let sum = (!check) as u32 + delta;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// [`apply`] for a UDP checksum: 0 means that there is none and stays; a sum of 0 is sent as all ones (RFC 768).
#[inline(always)]
#[must_use]
pub const fn apply_udp(check: u16, delta: u32) -> u16 {
    if check == 0 {
        return 0;
    }
    let new = apply(check, delta);
    if new == 0 { 0xffff } else { new }
}

/// Delta of lowering the TTL by one: the word (TTL, protocol) falls by 0x0100 in network order.
pub const TTL_DELTA: u16 = !0x0100u16.to_be();

/// Sum of a byte string's 16-bit words, an odd last byte padded with zero. For headers built whole and for tests.
#[must_use]
pub fn sum_bytes(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut chunks = bytes.chunks_exact(2);
    for c in &mut chunks {
        sum += u16::from_ne_bytes([c[0], c[1]]) as u64;
    }
    if let [last] = chunks.remainder() {
        sum += u16::from_ne_bytes([*last, 0]) as u64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn check_of(bytes: &[u8]) -> u16 {
        !fold(sum_bytes(bytes))
    }

    /// One's complement zero has two forms; a receiver cannot tell them apart.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4: HC 0xDD2F, field 0x5555 -> 0x3285 gives 0x0000.
        let delta = fold((!0x5555u16) as u64 + 0x3285);
        assert_eq!(apply(0xdd2f, delta as u32), 0x0000);
    }

    proptest! {
        #[test]
        fn nat_of_ipv4_matches_a_full_sum(mut p in prop::collection::vec(any::<u8>(), 12..200), new in any::<u32>(), port in any::<u16>()) {
            // p: 4 bytes address, 2 bytes port, the rest anything.
            let before = check_of(&p);
            let old = u32::from_ne_bytes([p[0], p[1], p[2], p[3]]);
            let old_port = u16::from_ne_bytes([p[4], p[5]]);
            let delta = l4_delta::<V4>(old, old_port, new, port);
            p[..4].copy_from_slice(&new.to_ne_bytes());
            p[4..6].copy_from_slice(&port.to_ne_bytes());
            let after = check_of(&p);
            prop_assert!(same(apply(before, delta as u32), after));
            prop_assert!(same(apply(after, (!delta) as u32), before), "the complement must undo it");
            if before != 0 {
                prop_assert!(same(apply_udp(before, delta as u32), after));
                prop_assert_ne!(apply_udp(before, delta as u32), 0);
            }
        }

        #[test]
        fn nat_of_ipv6_matches_a_full_sum(mut p in prop::collection::vec(any::<u8>(), 20..200), new in any::<[u64; 2]>(), port in any::<u16>()) {
            let before = check_of(&p);
            let w = |b: &[u8]| u64::from_ne_bytes(b.try_into().unwrap());
            let old = [w(&p[..8]), w(&p[8..16])];
            let old_port = u16::from_ne_bytes([p[16], p[17]]);
            let delta = l4_delta::<V6>(old, old_port, new, port);
            let bytes: Vec<u8> = new.iter().flat_map(|x| x.to_ne_bytes()).collect();
            p[..16].copy_from_slice(&bytes);
            p[16..18].copy_from_slice(&port.to_ne_bytes());
            prop_assert!(same(apply(before, delta as u32), check_of(&p)));
        }

        #[test]
        fn header_of_ipv4_with_ttl_and_address(mut h in any::<[u8; 20]>(), new in any::<u32>()) {
            h[8] = h[8].max(1);
            h[10] = 0;
            h[11] = 0;
            let before = check_of(&h);
            let old = u32::from_ne_bytes([h[16], h[17], h[18], h[19]]);
            let delta = addr_delta::<V4>(old, new) as u32 + TTL_DELTA as u32;
            h[8] -= 1;
            h[16..].copy_from_slice(&new.to_ne_bytes());
            prop_assert!(same(apply(before, delta), check_of(&h)));
        }
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        assert_eq!(apply_udp(0, 0x1234), 0);
    }
}
