//! The balancer's programs within wrappers for benchmarks by BPF_PROG_TEST_RUN.
//!
//! A test run passes one frame through a program again and again, changes and all. So each wrapper first restores the frame
//! from a template and, as asked, gives it another client: a random one of many whose connections are established (*spread*),
//! or one that was never seen (*new*), or takes client and TCP flags from a list of events. The wrappers alone are programs too: what they cost is subtracted.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "programs take their context by value")]

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use lb_common::bench::Bench;
use lb_common::csum;
use lb_common::family::{FAMILY_V4, V4, V6};
use lb_ebpf::balance;
use lb_ebpf::ip::Ip;
use lb_ebpf::raw::{ETH, fixed, frame_len, get, move_head, put};

#[map]
static LVX_BENCH: Array<Bench> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// See [`lb_common::bench::event`].
#[map]
static LVX_EVENTS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LVX_FLOOR4: HashMap<[u64; 2], u64> = HashMap::with_max_entries(1, 0);
#[map]
static LVX_FLOOR6: HashMap<[u64; 5], u64> = HashMap::with_max_entries(1, 0);

/// Restores the frame. False if that cannot be.
#[inline(always)]
fn restore<F: Ip>(ctx: &XdpContext) -> bool {
    let Some(b) = LVX_BENCH.get_ptr_mut(0) else { return false };
    // SAFETY: a map value, and nothing else runs at the same time.
    let b = unsafe { &mut *b };
    // Else the compiler takes one end for the other, of which the verifier knows nothing.
    if ctx.data() + (b.len as usize & 0xff) != fixed(ctx.data_end()) {
        let surplus = frame_len(ctx) as i64 - b.len as i64;
        if !move_head(ctx, surplus as i32) {
            return false;
        }
    }
    let (eth, end) = (ctx.data(), ctx.data_end());
    // Up to and with the transport checksum, in words.
    let words = if F::ID == FAMILY_V4 { 7 } else { 9 };
    if eth + words * 8 > end {
        return false;
    }
    let mut i = 0;
    while i < words {
        // SAFETY: compared above.
        unsafe { put(eth + i * 8, b.template[i]) };
        i += 1;
    }
    if b.mode == 0 {
        return true;
    }
    let mut flags = 0;
    let client = if b.mode == 3 {
        let Some(event) = LVX_EVENTS.get(b.count as u32) else { return false };
        b.count += 1;
        flags = (*event >> 32) as u8;
        *event as u32
    } else if b.mode == 1 {
        // SAFETY: no arguments.
        (unsafe { bpf_get_prandom_u32() as u64 * b.clients as u64 } >> 32) as u32
    } else {
        b.count += 1;
        b.count as u32
    };
    let ip = eth + ETH;
    let (addr, port) = if b.reverse == 0 { (F::SRC, 0) } else { (F::DST, 2) };
    let last = addr + if F::ID == FAMILY_V4 { 0 } else { 12 };
    // SAFETY: compared above.
    unsafe {
        let word = get::<u32>(ip + last) ^ client.to_be();
        put(ip + last, word);
        put(ip + F::HEADER + port, (client as u16) | 0x400);
        if flags != 0 {
            put(ip + F::HEADER + 13, flags);
        }
        if F::ID == FAMILY_V4 {
            // The template's address has zeros where the client's number comes: the sum grows by the number.
            let grown = client.to_be();
            put(ip + 10, csum::apply(get(ip + 10), (grown >> 16) + (grown & 0xffff)));
        }
    }
    true
}

/// Returns at once.
#[xdp(frags)]
fn bench_empty(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn wrapper<F: Ip>(ctx: &XdpContext) -> u32 {
    if restore::<F>(ctx) { XDP_PASS } else { XDP_DROP }
}

/// The wrapper alone, IPv4.
#[xdp(frags)]
fn bench_wrapper4(ctx: XdpContext) -> u32 {
    wrapper::<V4>(&ctx)
}

/// The wrapper alone, IPv6.
#[xdp(frags)]
fn bench_wrapper6(ctx: XdpContext) -> u32 {
    wrapper::<V6>(&ctx)
}

/// The wrapper, and room for an outer header, which its next run takes away again: a tunnelled packet leaves it that to do. The frame's
/// head moves twice then, of which once is the balancer's own doing.
#[inline(always)]
fn grow<F: Ip>(ctx: &XdpContext) -> u32 {
    if restore::<F>(ctx) && move_head(ctx, -(F::HEADER as i32)) { XDP_PASS } else { XDP_DROP }
}

/// See [`grow`], IPv4.
#[xdp(frags)]
fn bench_grow4(ctx: XdpContext) -> u32 {
    grow::<V4>(&ctx)
}

/// See [`grow`], IPv6.
#[xdp(frags)]
fn bench_grow6(ctx: XdpContext) -> u32 {
    grow::<V6>(&ctx)
}

/// Makes the frame a segment of its own client, checksum and all, and sends it: a generator, by live frames.
#[inline(always)]
fn send<F: Ip>(ctx: &XdpContext) -> u32 {
    if !restore::<F>(ctx) {
        return XDP_DROP;
    }
    let Some(b) = LVX_BENCH.get(0) else { return XDP_DROP };
    let l4 = ctx.data() + ETH + F::HEADER;
    if l4 + 20 > ctx.data_end() {
        return XDP_DROP;
    }
    let client = (b.count as u32).to_be();
    // SAFETY: within the template, and compared above.
    unsafe {
        let old = b.template.as_ptr().cast::<u8>().add(ETH + F::HEADER).cast::<u16>().read_unaligned();
        let ports = get::<u16>(l4) as u32 + !old as u32;
        put(l4 + 16, csum::apply(get(l4 + 16), (client >> 16) + (client & 0xffff) + ports));
    }
    XDP_TX
}

/// The generator, IPv4.
#[xdp(frags)]
fn bench_send4(ctx: XdpContext) -> u32 {
    send::<V4>(&ctx)
}

/// The generator, IPv6.
#[xdp(frags)]
fn bench_send6(ctx: XdpContext) -> u32 {
    send::<V6>(&ctx)
}

/// The floor: parses, and looks up one key in a hash as large as the connection table. IPv4.
#[xdp(frags)]
fn bench_floor4(ctx: XdpContext) -> u32 {
    if !restore::<V4>(&ctx) {
        return XDP_DROP;
    }
    let Ok(p) = V4::parse(&ctx) else { return XDP_DROP };
    let t = p.tuple;
    let key = [(t.src as u64) << 32 | t.dst as u64, (t.ports as u64) << 32 | t.proto as u64];
    if LVX_FLOOR4.get_ptr(key).is_some() { XDP_PASS } else { XDP_DROP }
}

/// The floor, IPv6.
#[xdp(frags)]
fn bench_floor6(ctx: XdpContext) -> u32 {
    if !restore::<V6>(&ctx) {
        return XDP_DROP;
    }
    let Ok(p) = V6::parse(&ctx) else { return XDP_DROP };
    let t = p.tuple;
    let key = [t.src[0], t.src[1], t.dst[0], t.dst[1], (t.ports as u64) << 32 | t.proto as u64];
    if LVX_FLOOR6.get_ptr(key).is_some() { XDP_PASS } else { XDP_DROP }
}

/// The balancer, IPv4.
#[xdp(frags)]
fn bench_lvx4(ctx: XdpContext) -> u32 {
    if !restore::<V4>(&ctx) {
        return XDP_DROP;
    }
    balance::run(&ctx)
}

/// The balancer, IPv6.
#[xdp(frags)]
fn bench_lvx6(ctx: XdpContext) -> u32 {
    if !restore::<V6>(&ctx) {
        return XDP_DROP;
    }
    balance::run(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics; the linker removes this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
