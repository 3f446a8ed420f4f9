//! Real servers and the ways out, as the packet path sees them.
//!
//! A *dest* is one real server of one service. Its element outlives its removal for as long as connections refer to it (the
//! kernel's trash list): they find it gone, and find it again when the server returns.

/// [`Dest::flags`]: the server is in the service.
pub const PRESENT: u32 = 1 << 0;
/// [`Dest::flags`]: the weight is above zero.
pub const WEIGHTED: u32 = 1 << 1;
/// [`Dest::flags`]: the address is the director's own: packets go to its own stack unchanged.
pub const LOCAL: u32 = 1 << 2;
/// What a pick needs.
pub const USABLE: u32 = PRESENT | WEIGHTED;

/// Element of the dests map. Written field by field by the daemon; every field that must change together with another is in
/// one aligned 64-bit word.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Dest {
    /// Next hop's MAC in the low 48 bits (first byte lowest), [`Port`] index above; 0 while unresolved.
    pub next_hop: u64,
    /// Source MAC for it.
    pub src_mac: [u8; 6],
    /// Largest IP packet that the way to the server takes, outer header included.
    pub mtu: u16,
    /// Interface of the port, to tell transmission from redirection.
    pub ifindex: u32,
    /// Bits above.
    pub flags: u32,
    /// Index of its service; meaningless once removed.
    pub service: u32,
    /// Port in network byte order.
    pub port: u16,
    /// [`crate::proto::NAT`], [`crate::proto::DR`] or [`crate::proto::TUN`].
    pub method: u8,
    /// Family of `real` and `tunnel_src`.
    pub family: u8,
    /// Address of the server, in the wide form.
    pub real: [u64; 2],
    /// Outer source address of tunnelled packets.
    pub tunnel_src: [u64; 2],
    /// Upper threshold; 0 is none.
    pub upper: u32,
    /// Lower threshold; 0 is three quarters of the upper.
    pub lower: u32,
    /// Weight, for schedulers that the packet path might run.
    pub weight: u32,
    /// IPv4 tunnels: one's complement sum of the outer header without length, TOS and TTL.
    pub tunnel_sum: u32,
    /// Address of its service, in the wide form.
    pub vip: [u64; 2],
    /// Port of its service, network byte order; 0 is every port.
    pub vport: u16,
    /// Zero.
    pub zero: [u16; 3],
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<Dest>() == 128);

impl Dest {
    /// An empty element.
    pub const EMPTY: Self = Self {
        next_hop: 0,
        src_mac: [0; 6],
        mtu: 0,
        ifindex: 0,
        flags: 0,
        service: 0,
        port: 0,
        method: 0,
        family: 0,
        real: [0; 2],
        tunnel_src: [0; 2],
        upper: 0,
        lower: 0,
        weight: 0,
        tunnel_sum: 0,
        vip: [0; 2],
        vport: 0,
        zero: [0; 3],
        reserved: [0; 3],
    };
}

/// The word of [`Dest::next_hop`] and of a connection's cached reply.
#[inline(always)]
#[must_use]
pub const fn next_hop(mac: [u8; 6], port: u16) -> u64 {
    u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]) | (port as u64) << 48
}

/// Number of live connections of a dest, changed with atomic additions by the packet path and by the sweeper alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestConns {
    /// Active ones.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
    /// 1 from reaching the upper threshold until falling below the lower one.
    pub overloaded: u64,
    /// Persistence templates.
    pub templates: u64,
}

const _: () = assert!(size_of::<DestConns>() == 32);

/// Whether a dest with `connections` is overloaded now, if it was `was`.
///
/// As `ip_vs_dest_update_overload` in the kernel: set at the upper threshold; cleared below the lower one, or below three
/// quarters of the upper one where no lower one is set.
#[inline(always)]
#[must_use]
pub const fn overloaded(was: bool, connections: u64, upper: u32, lower: u32) -> bool {
    if upper == 0 {
        return false;
    }
    if connections >= upper as u64 {
        return true;
    }
    if !was {
        return false;
    }
    if lower != 0 { connections >= lower as u64 } else { connections * 4 >= upper as u64 * 3 }
}

/// A way out: element of the ports map, at the index that the device map has too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Interface; 0 while the port is unused.
    pub ifindex: u32,
    /// Its MTU.
    pub mtu: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub zero: u16,
}

const _: () = assert!(size_of::<Port>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_has_the_kernels_hysteresis() {
        // -x 4: on at 4, off below 3.
        assert!(!overloaded(false, 3, 4, 0));
        assert!(overloaded(false, 4, 4, 0));
        assert!(overloaded(true, 3, 4, 0));
        assert!(!overloaded(true, 2, 4, 0));
        // -x 4 -y 1: off below 1.
        assert!(overloaded(true, 1, 4, 1));
        assert!(!overloaded(true, 0, 4, 1));
        assert!(!overloaded(true, 99, 0, 0));
    }

    #[test]
    fn next_hop_keeps_mac_order_and_port() {
        let w = next_hop([2, 0, 0, 0, 1, 9], 5);
        assert_eq!(w.to_le_bytes(), [2, 0, 0, 0, 1, 9, 5, 0]);
    }
}
