//! The two address families behind one sealed trait: every packet routine is written once and monomorphised for [`V4`]
//! and [`V6`].
//!
//! Addresses are held as they stand in the packet (network byte order in memory), in the widest aligned words, so that a
//! comparison costs one instruction a word.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}

/// `family` fields hold this for IPv4.
pub const FAMILY_V4: u8 = 4;
/// `family` fields hold this for IPv6.
pub const FAMILY_V6: u8 = 6;

/// One address family.
pub trait Family: sealed::Sealed + Copy + Sized + 'static {
    /// An address, network byte order in memory.
    type Addr: Copy + Eq + Default + core::fmt::Debug + Send + Sync + 'static;
    /// Fills [`crate::conn::Conn`] up to the alignment of its last `u64`.
    type PadA: Copy + Default + core::fmt::Debug + Send + Sync + 'static;
    /// Fills [`crate::conn::Conn`] to its size.
    type PadB: Copy + Default + core::fmt::Debug + Send + Sync + 'static;
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    const ID: u8;
    /// Where in [`crate::conn::Conn`] the 64-bit word is whose one half counts connections under the template in that record
    /// ([`crate::table::references`]). IPv6 has [`crate::conn::Conn::reply_generation`] in the other half, which a template does not use.
    const REFERENCES: usize;
    /// Folds both addresses into the flow hash, starting from the first seed.
    fn mix(seed: &[u64; 2], src: Self::Addr, dst: Self::Addr) -> u64;
    /// One's complement sum of the address's 16-bit words, as they stand in memory.
    fn sum(addr: Self::Addr) -> u64;
    /// The address in the 16 bytes that family-neutral layouts keep; IPv4 takes the first four, the rest is zero.
    fn wide(addr: Self::Addr) -> [u64; 2];
    /// Back from [`Family::wide`].
    fn narrow(wide: [u64; 2]) -> Self::Addr;
    /// For people.
    fn ip(addr: Self::Addr) -> IpAddr;
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default)]
pub struct V6;

impl Family for V4 {
    type Addr = u32;
    type PadA = [u32; 0];
    type PadB = [u32; 2];
    const ID: u8 = FAMILY_V4;
    const REFERENCES: usize = 56;

    #[inline(always)]
    fn mix(seed: &[u64; 2], src: u32, dst: u32) -> u64 {
        crate::hash::round(seed[0], ((src as u64) << 32) | dst as u64, seed[1])
    }

    #[inline(always)]
    fn sum(addr: u32) -> u64 {
        (addr >> 16) as u64 + (addr & 0xffff) as u64
    }

    #[inline(always)]
    fn wide(addr: u32) -> [u64; 2] {
        [if cfg!(target_endian = "little") { addr as u64 } else { (addr as u64) << 32 }, 0]
    }

    #[inline(always)]
    fn narrow(wide: [u64; 2]) -> u32 {
        (if cfg!(target_endian = "little") { wide[0] } else { wide[0] >> 32 }) as u32
    }

    fn ip(addr: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(addr.to_ne_bytes()))
    }
}

impl Family for V6 {
    type Addr = [u64; 2];
    type PadA = [u32; 1];
    type PadB = [u32; 0];
    const ID: u8 = FAMILY_V6;
    const REFERENCES: usize = 80;

    #[inline(always)]
    fn mix(seed: &[u64; 2], src: [u64; 2], dst: [u64; 2]) -> u64 {
        use crate::hash::round;
        // Two independent chains, so that the multiplications overlap.
        let a = round(round(seed[0], src[0], seed[1]), src[1], seed[1]);
        let b = round(round(seed[1], dst[0], seed[0] | 1), dst[1], seed[1]);
        a ^ b.rotate_left(23)
    }

    #[inline(always)]
    fn sum(addr: [u64; 2]) -> u64 {
        let mut s = 0;
        let mut i = 0;
        while i < 2 {
            let w = addr[i];
            s += (w >> 48) + ((w >> 32) & 0xffff) + ((w >> 16) & 0xffff) + (w & 0xffff);
            i += 1;
        }
        s
    }

    #[inline(always)]
    fn wide(addr: [u64; 2]) -> [u64; 2] {
        addr
    }

    #[inline(always)]
    fn narrow(wide: [u64; 2]) -> [u64; 2] {
        wide
    }

    fn ip(addr: [u64; 2]) -> IpAddr {
        let mut b = [0; 16];
        b[..8].copy_from_slice(&addr[0].to_ne_bytes());
        b[8..].copy_from_slice(&addr[1].to_ne_bytes());
        IpAddr::V6(Ipv6Addr::from(b))
    }
}

/// An IPv4 address as [`V4`] keeps it.
#[must_use]
pub fn v4_addr(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

/// An IPv6 address as [`V6`] keeps it.
#[must_use]
pub fn v6_addr(ip: Ipv6Addr) -> [u64; 2] {
    let o = ip.octets();
    let mut a = [0; 8];
    let mut b = [0; 8];
    a.copy_from_slice(&o[..8]);
    b.copy_from_slice(&o[8..]);
    [u64::from_ne_bytes(a), u64::from_ne_bytes(b)]
}

/// The family-neutral form of an address and its family.
#[must_use]
pub fn wide_of(ip: IpAddr) -> ([u64; 2], u8) {
    match ip {
        IpAddr::V4(ip) => (V4::wide(v4_addr(ip)), FAMILY_V4),
        IpAddr::V6(ip) => (v6_addr(ip), FAMILY_V6),
    }
}

/// The address that a family-neutral layout holds; `None` for an unknown family.
#[must_use]
pub fn ip_of(wide: [u64; 2], family: u8) -> Option<IpAddr> {
    match family {
        FAMILY_V4 => Some(V4::ip(V4::narrow(wide))),
        FAMILY_V6 => Some(V6::ip(wide)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_wide_form() {
        for ip in ["192.0.2.7", "0.0.0.0", "255.255.255.255", "2001:db8::7", "::"] {
            let ip: IpAddr = ip.parse().unwrap();
            let (wide, family) = wide_of(ip);
            assert_eq!(ip_of(wide, family), Some(ip));
        }
        assert_eq!(ip_of([0, 0], 5), None);
    }
}
