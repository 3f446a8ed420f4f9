//! The keyed hash of a flow.
//!
//! Multiply and xorshift rounds over 64-bit words, keyed by two random seeds that the daemon draws when it makes the
//! table, the second of which is the secret (odd) multiplier: a sender who does not know them cannot aim flows at one
//! bucket. Three dependent multiplications for IPv4. The low bits choose the bucket, the high 32 bits are the tag kept in
//! the index.

use crate::family::Family;

/// Odd constants with well mixed bits (the fractions of the square roots of 2 and 3).
const M1: u64 = 0x6a09_e667_f3bc_c909;
const M2: u64 = 0xbb67_ae85_84ca_a73b;

/// One round: add `x`, multiply by `k`, fold the high half down.
#[inline(always)]
#[must_use]
pub const fn round(h: u64, x: u64, k: u64) -> u64 {
    let h = (h ^ x).wrapping_mul(k);
    h ^ (h >> 32)
}

/// Hash of a packet's flow in the direction in which the packet travels. `ports` is the 32-bit word that starts the TCP or
/// UDP header, as it stands in memory.
#[inline(always)]
#[must_use]
pub fn flow<F: Family>(seed: &[u64; 2], src: F::Addr, dst: F::Addr, ports: u32, proto: u8) -> u64 {
    let h = F::mix(seed, src, dst);
    let h = round(h, ((proto as u64) << 32) | ports as u64, M1);
    let h = h.wrapping_mul(M2);
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};
    use std::vec;

    const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211];

    /// Sequential ports and addresses must fill buckets as evenly as chance does: the sum of squares of the fill is close
    /// to that of a Poisson distribution.
    #[test]
    fn regular_flows_spread_evenly() {
        let buckets = 1 << 14;
        for pattern in 0..4u32 {
            let mut fill = vec![0u32; buckets];
            let mut tags = vec![0u32; buckets];
            let n = buckets as u32 * 4;
            for i in 0..n {
                let h = match pattern {
                    0 => flow::<V4>(&SEED, 0x0a00_0001, 0x0a09_0001, i.to_be(), 6),
                    1 => flow::<V4>(&SEED, i.to_be(), 0x0a09_0001, 0x5000_1234, 6),
                    2 => flow::<V6>(&SEED, [0xb80d_0120, u64::from(i).to_be()], [1, 2], 0x5000_1234, 17),
                    _ => flow::<V6>(&SEED, [0xb80d_0120, 1], [1, 2], i.to_be(), 17),
                };
                fill[h as usize & (buckets - 1)] += 1;
                tags[(h >> 32) as usize & (buckets - 1)] += 1;
            }
            for (what, f) in [("bucket", &fill), ("tag", &tags)] {
                let squares: u64 = f.iter().map(|&x| u64::from(x) * u64::from(x)).sum();
                // E[x^2] = lambda + lambda^2 = 20 a bucket.
                let mean = squares as f64 / buckets as f64;
                assert!((18.5..21.5).contains(&mean), "pattern {pattern} {what}: {mean}");
            }
        }
    }

    #[test]
    fn seed_proto_and_direction_change_the_hash() {
        let h = flow::<V4>(&SEED, 1, 2, 3, 6);
        assert_ne!(h, flow::<V4>(&[1, 3], 1, 2, 3, 6));
        assert_ne!(h, flow::<V4>(&SEED, 1, 2, 3, 17));
        assert_ne!(h, flow::<V4>(&SEED, 2, 1, 3, 6));
    }
}
