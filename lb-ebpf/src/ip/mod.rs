//! Parsing and rewriting of the two IP versions: what differs between them, behind one trait.

mod cold;
mod v4;
mod v6;

pub use cold::Cold;

use crate::raw::{ETH, fixed, frame_len, get, put};
use aya_ebpf::programs::XdpContext;
use lb_common::conn::Conn;
use lb_common::family::Family;
use lb_common::proto::{TCP, UDP};
use lb_common::table::{Bucket, New, Tuple};
use lb_common::verdict::Verdict;
use lb_common::{csum, tcp};

/// A packet that could belong to a connection: a whole TCP or UDP header, lengths that fit.
#[derive(Clone, Copy)]
pub struct Packet<F: Ip> {
    /// Its flow.
    pub tuple: Tuple<F>,
    /// Position of the IP header.
    pub ip: usize,
    /// Position of the TCP or UDP header.
    pub l4: usize,
    /// Position of the TCP or UDP checksum.
    pub check: usize,
    /// Bytes of the IP packet.
    pub len: u32,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Longer than the way takes, it must not be fragmented.
    pub whole: bool,
}

/// A family as the packet path needs it.
pub trait Ip: Family + Cold {
    /// Bytes of a header without options.
    const HEADER: usize;
    /// Position of the source address in the header.
    const SRC: usize;
    /// Position of the destination address.
    const DST: usize;
    /// Position of TTL or hop limit.
    const TTL: usize;
    /// EtherType, as it stands in memory.
    const ETHERTYPE: u16;
    /// Protocol number of such a packet within another.
    const ENCAPSULATED: u8;
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;

    /// A bucket of the family's index.
    fn bucket(index: u32) -> Option<*mut Bucket>;
    /// A record of the family's.
    fn conn(index: u32) -> Option<*mut Conn<Self>>;

    /// Room for a connection in the making, of this CPU's.
    fn scratch() -> Option<*mut New<Self>>;

    /// Checks and reads the headers.
    ///
    /// # Errors
    /// The verdict on a packet that cannot belong to a connection.
    fn parse(ctx: &XdpContext) -> Result<Packet<Self>, Verdict>;

    /// Updates the header's checksum, if it has one, by `delta`.
    ///
    /// # Safety
    /// A whole header is at `ip`.
    unsafe fn fix_header(ip: usize, delta: u32);

    /// Whether no answer can ever go to this source: the kernel would drop such a packet as martian.
    fn is_martian(src: Self::Addr) -> bool;

    /// TOS or traffic class.
    ///
    /// # Safety
    /// As [`Ip::fix_header`].
    unsafe fn tos(ip: usize) -> u8;
}

/// Lowers TTL or hop limit by one, and with it changes the header's checksum by `delta` (that of other changes).
///
/// # Safety
/// A whole header is at `ip`.
#[inline(always)]
pub unsafe fn lower_ttl<F: Ip>(p: &Packet<F>, delta: u32) {
    // SAFETY: the caller's.
    unsafe {
        put(p.ip + F::TTL, p.ttl.wrapping_sub(1));
        F::fix_header(p.ip, delta + csum::TTL_DELTA as u32);
    }
}

/// What the transport header says: both ports, the TCP flags, and where the checksum is. `room` is the length that the IP
/// header leaves.
#[inline(always)]
fn transport(l4: usize, end: usize, proto: u8, room: u32) -> Result<(u32, u8, usize), Verdict> {
    if proto == TCP {
        if l4 + 20 > end || room < 20 {
            return Err(Verdict::PassedMalformed);
        }
        // SAFETY: compared above.
        let (ports, offset, flags) = unsafe { (get::<u32>(l4), get::<u8>(l4 + 12), get::<u8>(l4 + 13)) };
        let header = (offset >> 4) as u32 * 4;
        if header < 20 || header > room {
            return Err(Verdict::PassedMalformed);
        }
        return Ok((ports, flags, fixed(l4 + 16)));
    }
    debug_assert!(proto == UDP);
    if l4 + 8 > end {
        return Err(Verdict::PassedMalformed);
    }
    // SAFETY: compared above.
    let (ports, len) = unsafe { (get::<u32>(l4), u16::from_be(get::<u16>(l4 + 4)) as u32) };
    if len < 8 || len > room {
        return Err(Verdict::PassedMalformed);
    }
    Ok((ports, 0, fixed(l4 + 6)))
}

/// Whether the frame holds an IP packet of `len` bytes at `ip`, further buffers included.
#[inline(always)]
fn holds(ctx: &XdpContext, ip: usize, end: usize, len: u32) -> bool {
    // A difference, not a sum: kernels before 6.13 know no bounds of a swapped `len`, and refuse to add it to a position.
    len as usize <= end - ip || (ETH + len as usize) as u64 <= frame_len(ctx)
}

/// Whether a TCP packet asks for a new connection.
#[inline(always)]
#[must_use]
pub const fn is_syn(proto: u8, flags: u8) -> bool {
    proto == TCP && flags & (tcp::FLAG_SYN | tcp::FLAG_RST) == tcp::FLAG_SYN
}
