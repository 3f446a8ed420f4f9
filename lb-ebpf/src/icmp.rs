//! ICMP errors on the server's behalf (RFC 792, RFC 1812 section 4.3; RFC 4443): the packet becomes its own answer.
//!
//! As the kernel's: from the VIP, quoting as much of the packet as fits 576 bytes (IPv4) or 1280 bytes (IPv6), and limited in
//! number, by CPU.

use crate::balance::Outcome;
use crate::count;
use crate::ip::{Ip, Packet};
use crate::memory::Maps;
use crate::raw::{ETH, get, move_head, put};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_common::csum;
use lb_common::family::{FAMILY_V4, Family, V4, V6};
use lb_common::proto::{ICMP, ICMP6};
use lb_common::verdict::Verdict;

/// Quoted bytes at most.
const QUOTE4: u32 = 576 - 28;
const QUOTE6: u32 = 1280 - 48;
/// ICMP header.
const ICMP_HEADER: usize = 8;
const TTL: u8 = 64;

/// Why a packet cannot go on.
#[derive(Clone, Copy)]
pub enum Problem {
    /// No usable real server: port unreachable.
    NoServer,
    /// TTL or hop limit used up.
    TtlUsedUp,
    /// Larger than this many bytes, which is what the way takes.
    TooBig(u32),
}

/// Answers a packet with an ICMP error, or drops it when there were too many this second.
#[inline(always)]
pub fn answer<F: Ip>(ctx: &XdpContext, p: &Packet<F>, problem: Problem) -> Outcome {
    // Type, code and the four bytes after the checksum, as one scalar; the verdicts with and without an answer.
    let v4 = F::ID == FAMILY_V4;
    let (kind, code, word, replied, dropped) = match problem {
        Problem::NoServer if v4 => (3u8, 3u8, 0u32, Verdict::RepliedNoServer, Verdict::DroppedNoServer),
        Problem::NoServer => (1, 4, 0, Verdict::RepliedNoServer, Verdict::DroppedNoServer),
        Problem::TtlUsedUp if v4 => (11, 0, 0, Verdict::RepliedTtl, Verdict::DroppedTtl),
        Problem::TtlUsedUp => (3, 0, 0, Verdict::RepliedTtl, Verdict::DroppedTtl),
        Problem::TooBig(mtu) if v4 => (3, 4, mtu, Verdict::RepliedTooBig, Verdict::DroppedTooBig),
        Problem::TooBig(mtu) => (2, 0, mtu, Verdict::RepliedTooBig, Verdict::DroppedTooBig),
    };
    let message = (word as u64) << 32 | (code as u64) << 8 | kind as u64;
    let sent = if allowed() { F::answer(ctx, p.len, message) } else { 0 };
    if sent != 0 { Outcome::answer(replied) } else { Outcome::drop(dropped) }
}

/// Takes one from this second's allowance.
#[inline(always)]
fn allowed() -> bool {
    let Some(c) = count::of_cpu() else { return false };
    let Some(config) = crate::maps::LVX_CONFIG.get(0) else { return false };
    // SAFETY: no arguments; and this CPU's map value. About a second: 2^30 ns.
    unsafe {
        let second = bpf_ktime_get_coarse_ns() >> 30;
        if (*c).icmp_second != second {
            (*c).icmp_second = second;
            (*c).icmp_left = config.icmp_per_second as u64;
        }
        if (*c).icmp_left == 0 {
            return false;
        }
        (*c).icmp_left -= 1;
    }
    true
}

/// Makes the frame; 0 if that failed.
#[inline(always)]
pub fn build<F: Ip>(ctx: &XdpContext, len: u32, message: u64) -> u32 {
    let v4 = F::ID == FAMILY_V4;
    let limit = if v4 { QUOTE4 } else { QUOTE6 };
    let quote = if len < limit { len } else { limit } as usize;
    let header = F::HEADER + ICMP_HEADER;
    if !move_head(ctx, -(header as i32)) {
        return 0;
    }
    let spare = (ETH + header + quote) as i64 - crate::raw::frame_len(ctx) as i64;
    // SAFETY: the program's own context.
    if spare != 0 && unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), spare as i32) } != 0 {
        return 0;
    }
    let eth = ctx.data();
    let end = ctx.data_end();
    let quoted = eth + ETH + header;
    if quoted + F::HEADER > end {
        return 0;
    }
    let ip = eth + ETH;
    let icmp = ip + F::HEADER;
    // SAFETY: compared above.
    unsafe {
        // The frame's old header lies before the quote, except where the new one is longer than it: read first.
        let (dst, src): ([u8; 6], [u8; 6]) = (get(eth + header), get(eth + header + 6));
        put(eth, src);
        put(eth + 6, dst);
        put(eth + 12, F::ETHERTYPE);
        let (from, to): (F::Addr, F::Addr) = (get(quoted + F::DST), get(quoted + F::SRC));
        let total = (header + quote) as u16;
        if v4 {
            let tos = (get::<u8>(quoted + 1) & 0x1e) | 0xc0;
            put(ip, [0x45, tos]);
            put(ip + 2, total.to_be());
            put(ip + 4, 0u16);
            put(ip + 6, 0x4000u16.to_be());
            put(ip + 8, [TTL, ICMP]);
            put(ip + 10, 0u16);
        } else {
            put(ip, 0x6000_0000u32.to_be());
            put(ip + 4, (total - F::HEADER as u16).to_be());
            put(ip + 6, [ICMP6, TTL]);
        }
        put(ip + F::SRC, from);
        put(ip + F::DST, to);
        let mut sum = 0u64;
        if v4 {
            let w: [u32; 5] = [get(ip), get(ip + 4), get(ip + 8), get(ip + 12), get(ip + 16)];
            let header_sum = w[0] as u64 + w[1] as u64 + w[2] as u64 + w[3] as u64 + w[4] as u64;
            put(ip + 10, !csum::fold(header_sum));
        } else {
            // The pseudo header.
            sum += F::sum(from) + F::sum(to) + (total - F::HEADER as u16).to_be() as u64 + (ICMP6 as u16).to_be() as u64;
        }
        put(icmp, [message as u8, (message >> 8) as u8]);
        put(icmp + 2, 0u16);
        put(icmp + 4, ((message >> 32) as u32).to_be());
        sum += sum_to_end(icmp, end);
        put(icmp + 2, !csum::fold(sum));
    }
    1
}

/// One's complement sum from `from` to the end of the packet.
#[inline(always)]
fn sum_to_end(from: usize, end: usize) -> u64 {
    const WORDS: u32 = (QUOTE6 + ICMP_HEADER as u32) / 4 + 1;
    let mut sum = 0u64;
    Maps::turns(WORDS, &mut |i| {
        if i >= WORDS {
            return false;
        }
        let at = from + i as usize * 4;
        if at + 4 <= end {
            // SAFETY: compared above.
            sum += unsafe { get::<u32>(at) } as u64;
            return true;
        }
        if at + 2 <= end {
            // SAFETY: compared above.
            sum += unsafe { get::<u16>(at) } as u64;
            if at + 3 <= end {
                // SAFETY: compared above.
                sum += u16::from_ne_bytes([unsafe { get::<u8>(at + 2) }, 0]) as u64;
            }
        } else if at < end {
            // SAFETY: compared above.
            sum += u16::from_ne_bytes([unsafe { get::<u8>(at) }, 0]) as u64;
        }
        false
    });
    sum
}

const _: () = assert!(<V4 as Ip>::HEADER == 20 && <V6 as Ip>::HEADER == 40 && V6::ID != V4::ID);
