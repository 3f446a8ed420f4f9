//! IPv6 (RFC 8200): the fixed header, and the extension headers on the way to the transport header.

use super::{Ip, Packet, holds, transport};
use crate::raw::{ETH, get};
use crate::{balance, icmp, maps, once, open, reply};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::conn::Conn;
use lb_common::family::V6;
use lb_common::proto::{IPV6, TCP, UDP};
use lb_common::table::{Bucket, New, Tuple};
use lb_common::time::Tick;
use lb_common::verdict::Verdict;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Extension headers that are skipped; a packet with more is left to the kernel.
const MAX_EXTENSIONS: u32 = 4;

impl Ip for V6 {
    const HEADER: usize = 40;
    const SRC: usize = 8;
    const DST: usize = 24;
    const TTL: usize = 7;
    const ETHERTYPE: u16 = 0x86ddu16.to_be();
    const ENCAPSULATED: u8 = IPV6;
    const AF: u8 = 10;

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut Bucket> {
        maps::LVX_INDEX6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn conn(index: u32) -> Option<*mut Conn<V6>> {
        maps::LVX_CONNS6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut New<V6>> {
        maps::LVX_SCRATCH6.get_ptr_mut(0)
    }

    #[inline(always)]
    fn parse(ctx: &XdpContext) -> Result<Packet<V6>, Verdict> {
        let end = ctx.data_end();
        let ip = ctx.data() + ETH;
        if ip + 40 > end {
            return Err(Verdict::PassedMalformed);
        }
        // SAFETY: compared above.
        let (first, w1): (u8, u32) = unsafe { (get(ip), get(ip + 4)) };
        if first >> 4 != 6 {
            return Err(Verdict::PassedMalformed);
        }
        let [hi, lo, next, ttl] = w1.to_ne_bytes();
        let payload = u16::from_be_bytes([hi, lo]) as u32;
        let len = 40 + payload;
        let (proto, skipped) = if next == TCP || next == UDP {
            (next, 0)
        } else {
            let found = lvx_extensions(ctx.ctx, next as u32);
            if found >> 32 != 0 {
                return Err(match (found >> 32) as u8 {
                    1 => Verdict::PassedProtocol,
                    2 => Verdict::PassedFragment,
                    _ => Verdict::PassedMalformed,
                });
            }
            // The mask is what the verifier needs; four headers are at most 8192 bytes.
            ((found >> 16) as u8, found as usize & 0x3ff8)
        };
        if (proto != TCP && proto != UDP) || skipped as u32 > payload || !holds(ctx, ip, end, len) {
            return Err(Verdict::PassedMalformed);
        }
        let l4 = ip + 40 + skipped;
        let (ports, flags, check) = transport(l4, end, proto, payload - skipped as u32)?;
        // SAFETY: compared above.
        let (src, dst) = unsafe { ([get(ip + 8), get(ip + 16)], [get(ip + 24), get(ip + 32)]) };
        let tuple = Tuple { src, dst, ports, proto };
        Ok(Packet { tuple, ip, l4, check, len, flags, ttl, whole: true })
    }

    #[inline(always)]
    unsafe fn fix_header(_ip: usize, _delta: u32) {}

    #[inline(always)]
    fn is_martian(src: [u64; 2]) -> bool {
        // Multicast, unspecified, loopback.
        src[0].to_ne_bytes()[0] == 0xff || (src[0] == 0 && (src[1] == 0 || src[1] == 1u64.to_be()))
    }

    #[inline(always)]
    unsafe fn tos(ip: usize) -> u8 {
        // SAFETY: the caller's.
        let [a, b]: [u8; 2] = unsafe { get(ip) };
        a << 4 | b >> 4
    }
}

/// Skips extension headers. Their length and, from bit 16, the transport protocol; or a reason from bit 32: 1 not TCP or UDP,
/// 2 a fragment, 3 malformed.
///
/// Global: verified once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lvx_extensions(ctx: *mut xdp_md, first: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let end = ctx.data_end();
    let base = ctx.data() + ETH + 40;
    let mut next = first as u8;
    let mut skipped = 0usize;
    let mut i = 0;
    while i < MAX_EXTENSIONS {
        i += 1;
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {}
            TCP | UDP => return (next as u64) << 16 | skipped as u64,
            FRAGMENT => return 2 << 32,
            _ => return 1 << 32,
        }
        let at = base + (skipped & 0x3fff);
        if at + 8 > end {
            return 3 << 32;
        }
        // SAFETY: compared above.
        let [following, units]: [u8; 2] = unsafe { get(at) };
        next = following;
        skipped += (units as usize + 1) * 8;
    }
    match next {
        TCP | UDP => (next as u64) << 16 | skipped as u64,
        FRAGMENT => 2 << 32,
        _ => 1 << 32,
    }
}

super::cold::out_of_line! {
    V6:
    lvx_packet_v6 lvx_change_v6 lvx_open_v6 lvx_stick_v6
    lvx_make_v6 lvx_seek_v6 lvx_insert_v6 lvx_remove_v6
    lvx_scan_v6 lvx_allocate_v6 lvx_answer_v6 lvx_look_up_v6
    lvx_send_once_v6 lvx_back_once_v6
}
