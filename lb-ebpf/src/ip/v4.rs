//! IPv4 (RFC 791).

use super::{Ip, Packet, holds, transport};
use crate::raw::{ETH, get, put};
use crate::{balance, icmp, maps, once, open, reply};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::conn::Conn;
use lb_common::csum;
use lb_common::family::V4;
use lb_common::proto::{IPIP, TCP, UDP};
use lb_common::table::{Bucket, New, Tuple};
use lb_common::time::Tick;
use lb_common::verdict::Verdict;

/// Position of the checksum.
const CHECK: usize = 10;

impl Ip for V4 {
    const HEADER: usize = 20;
    const SRC: usize = 12;
    const DST: usize = 16;
    const TTL: usize = 8;
    const ETHERTYPE: u16 = 0x0800u16.to_be();
    const ENCAPSULATED: u8 = IPIP;
    const AF: u8 = 2;

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut Bucket> {
        maps::LVX_INDEX4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn conn(index: u32) -> Option<*mut Conn<V4>> {
        maps::LVX_CONNS4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut New<V4>> {
        maps::LVX_SCRATCH4.get_ptr_mut(0)
    }

    #[inline(always)]
    fn parse(ctx: &XdpContext) -> Result<Packet<V4>, Verdict> {
        let end = ctx.data_end();
        let ip = ctx.data() + ETH;
        if ip + 20 > end {
            return Err(Verdict::PassedMalformed);
        }
        // SAFETY: compared above.
        let w: [u32; 5] = unsafe { [get(ip), get(ip + 4), get(ip + 8), get(ip + 12), get(ip + 16)] };
        let first = w[0].to_ne_bytes()[0];
        let header = (first & 15) as usize * 4;
        if first >> 4 != 4 || header < 20 {
            return Err(Verdict::PassedMalformed);
        }
        let [ttl, proto, _, _] = w[2].to_ne_bytes();
        if proto != TCP && proto != UDP {
            return Err(Verdict::PassedProtocol);
        }
        // More fragments, or an offset.
        const FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x3f, 0xff]);
        if w[1] & FRAGMENT != 0 {
            return Err(Verdict::PassedFragment);
        }
        let [_, _, hi, lo] = w[0].to_ne_bytes();
        let len = u16::from_be_bytes([hi, lo]) as u32;
        if (len as usize) < header || !holds(ctx, ip, end, len) {
            return Err(Verdict::PassedMalformed);
        }
        if header == 20 {
            let sum = w[0] as u64 + w[1] as u64 + w[2] as u64 + w[3] as u64 + w[4] as u64;
            if csum::fold(sum) != 0xffff {
                return Err(Verdict::PassedMalformed);
            }
        } else if lvx_options_v4(ctx.ctx, header as u32) == 0 {
            return Err(Verdict::PassedMalformed);
        }
        let l4 = ip + header;
        let (ports, flags, check) = transport(l4, end, proto, len - header as u32)?;
        let tuple = Tuple { src: w[3], dst: w[4], ports, proto };
        const DONT_FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x40, 0]);
        Ok(Packet { tuple, ip, l4, check, len, flags, ttl, whole: w[1] & DONT_FRAGMENT != 0 })
    }

    #[inline(always)]
    unsafe fn fix_header(ip: usize, delta: u32) {
        // SAFETY: the caller's.
        unsafe { put(ip + CHECK, csum::apply(get(ip + CHECK), delta)) }
    }

    #[inline(always)]
    fn is_martian(src: u32) -> bool {
        let [first, ..] = src.to_ne_bytes();
        first == 0 || first == 127 || first & 0xf0 == 0xe0 || src == u32::MAX
    }

    #[inline(always)]
    unsafe fn tos(ip: usize) -> u8 {
        // SAFETY: the caller's.
        unsafe { get(ip + 1) }
    }
}

/// 1 if the checksum of a header longer than 20 bytes is right, else 0. Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lvx_options_v4(ctx: *mut xdp_md, header: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (mut at, end) = (ctx.data() + ETH, ctx.data_end());
    let mut sum = 0u64;
    let mut i = 0;
    while i < 15 && i * 4 < header {
        if at + 4 > end {
            return 0;
        }
        // SAFETY: compared above.
        sum += unsafe { get::<u32>(at) } as u64;
        at += 4;
        i += 1;
    }
    (csum::fold(sum) == 0xffff) as u32
}

super::cold::out_of_line! {
    V4:
    lvx_packet_v4 lvx_change_v4 lvx_open_v4 lvx_stick_v4
    lvx_make_v4 lvx_seek_v4 lvx_insert_v4 lvx_remove_v4
    lvx_scan_v4 lvx_allocate_v4 lvx_answer_v4 lvx_look_up_v4
    lvx_send_once_v4 lvx_back_once_v4
}
