//! Parsing and rewriting of the two IP versions: what differs between them, behind one trait.

mod v4;
mod v6;

use crate::memory::Maps;
use crate::raw::{ETH, fixed, frame_len, get, put};
use crate::{balance, maps};
use aya_ebpf::programs::XdpContext;
use lb_common::conn::Conn;
use lb_common::family::Family;
use lb_common::proto::{TCP, UDP};
use lb_common::table::{self, Bucket, New, Shape, Tuple};
use lb_common::time::Tick;
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
pub trait Ip: Family {
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

    /// [`crate::balance::packet`], out of line.
    fn packet(ctx: &XdpContext) -> u64;
    /// [`crate::balance::change`], out of line.
    fn change(index: u32, packet: u32, ctl: u64) -> u32;
    /// [`crate::open::open`], out of line.
    fn open(ctx: &XdpContext) -> u64;
    /// [`crate::open::stick`], out of line.
    fn stick(ctx: &XdpContext, service: u64) -> u64;
    /// [`crate::open::make`], out of line.
    fn make(ctx: &XdpContext, dest: u32, template: u32, miss: u64) -> u64;
    /// [`table::seek`], out of line.
    fn seek(hash: u64, t: &Tuple<Self>) -> u64;
    /// [`table::insert_entry`], out of line.
    fn insert(hash: u64, low: u64) -> bool;
    /// [`table::remove_entry`], out of line.
    fn remove(hash: u64, low: u64);
    /// [`table::scan`], out of line.
    fn scan(start: u32, now: Tick) -> u64;
    /// [`table::allocate`], out of line.
    fn allocate(now: Tick) -> u64;
    /// [`crate::icmp::build`], out of line.
    fn answer(ctx: &XdpContext, len: u32, message: u64) -> u32;
    /// [`crate::reply::look_up`], out of line.
    fn look_up(ctx: &XdpContext, index: u32) -> u64;

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

/// The shape of a family's table; an empty one if there is no configuration.
#[inline(always)]
fn shape<F: Ip>() -> Shape {
    match maps::LVX_CONFIG.get(0) {
        Some(config) => balance::shape::<F>(config),
        None => Shape { seed: [0; 2], mask: 0, records: 0 },
    }
}

/// [`table::seek`].
#[inline(always)]
fn seek<F: Ip>(hash: u64, t: *const Tuple<F>) -> u64 {
    // SAFETY: a tuple on the caller's stack or in a map, or null.
    match unsafe { t.as_ref() } {
        Some(t) => table::seek::<F, Maps>(&Maps, &shape::<F>(), hash, t),
        None => table::NO_RECORD,
    }
}

/// [`table::insert_entry`].
#[inline(always)]
fn insert<F: Ip>(hash: u64, low: u64) -> bool {
    table::insert_entry::<F, Maps>(&Maps, &shape::<F>(), hash, low)
}

/// [`table::remove_entry`].
#[inline(always)]
fn remove<F: Ip>(hash: u64, low: u64) {
    table::remove_entry::<F, Maps>(&Maps, &shape::<F>(), hash, low);
}

/// [`table::scan`].
#[inline(always)]
fn scan<F: Ip>(start: u32, now: Tick) -> u64 {
    table::scan::<F, Maps>(&Maps, &shape::<F>(), start, now)
}

/// [`table::allocate`].
#[inline(always)]
fn allocate<F: Ip>(now: Tick) -> u64 {
    table::allocate::<F, Maps>(&Maps, &shape::<F>(), now)
}
