//! Routines that are kept out of line: global functions of the program, which the verifier looks at once, by themselves, and not at
//! every call.
//!
//! A global function has a name of its own for each family and takes scalars, the context, and pointers to plain memory. The macro
//! makes both sets from one text.

use super::Ip;
use crate::memory::Maps;
use crate::{balance, maps};
use aya_ebpf::programs::XdpContext;
use lb_common::family::Family;
use lb_common::table::{self, Shape, Tuple};
use lb_common::time::Tick;

/// The routines of a family.
pub trait Cold: Family {
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
    /// [`crate::once::send`], out of line.
    fn send_once(ctx: &XdpContext, dest: u32) -> u64;
    /// [`crate::once::back`], out of line.
    fn back_once(ctx: &XdpContext) -> u64;
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
}

/// The shape of a family's table; an empty one if there is no configuration.
#[inline(always)]
pub(super) fn shape<F: Ip>() -> Shape {
    match maps::LVX_CONFIG.get(0) {
        Some(config) => balance::shape::<F>(config),
        None => Shape { seed: [0; 2], mask: 0, records: 0 },
    }
}

/// [`table::seek`].
#[inline(always)]
pub(super) fn seek<F: Ip>(hash: u64, t: *const Tuple<F>) -> u64 {
    // SAFETY: a tuple on the caller's stack or in a map, or null.
    match unsafe { t.as_ref() } {
        Some(t) => table::seek::<F, Maps>(&Maps, &shape::<F>(), hash, t),
        None => table::NO_RECORD,
    }
}

/// [`table::insert_entry`].
#[inline(always)]
pub(super) fn insert<F: Ip>(hash: u64, low: u64) -> bool {
    table::insert_entry::<F, Maps>(&Maps, &shape::<F>(), hash, low)
}

/// [`table::remove_entry`].
#[inline(always)]
pub(super) fn remove<F: Ip>(hash: u64, low: u64) {
    table::remove_entry::<F, Maps>(&Maps, &shape::<F>(), hash, low);
}

/// [`table::scan`].
#[inline(always)]
pub(super) fn scan<F: Ip>(start: u32, now: Tick) -> u64 {
    table::scan::<F, Maps>(&Maps, &shape::<F>(), start, now)
}

/// [`table::allocate`].
#[inline(always)]
pub(super) fn allocate<F: Ip>(now: Tick) -> u64 {
    table::allocate::<F, Maps>(&Maps, &shape::<F>(), now)
}

/// Makes a family's routines, under these names.
macro_rules! out_of_line {
    ($family:ty: $packet:ident $change:ident $open:ident $stick:ident $make:ident $seek:ident $insert:ident $remove:ident $scan:ident $allocate:ident $answer:ident $look_up:ident $send_once:ident $back_once:ident) => {
        impl $crate::ip::Cold for $family {
            #[inline(always)]
            fn packet(ctx: &XdpContext) -> u64 {
                $packet(ctx.ctx)
            }

            #[inline(always)]
            fn change(index: u32, packet: u32, ctl: u64) -> u32 {
                $change(index, packet, ctl)
            }

            #[inline(always)]
            fn open(ctx: &XdpContext) -> u64 {
                $open(ctx.ctx)
            }

            #[inline(always)]
            fn stick(ctx: &XdpContext, service: u64) -> u64 {
                $stick(ctx.ctx, service)
            }

            #[inline(always)]
            fn make(ctx: &XdpContext, dest: u32, template: u32, miss: u64) -> u64 {
                $make(ctx.ctx, dest, template, miss)
            }

            #[inline(always)]
            fn send_once(ctx: &XdpContext, dest: u32) -> u64 {
                $send_once(ctx.ctx, dest)
            }

            #[inline(always)]
            fn back_once(ctx: &XdpContext) -> u64 {
                $back_once(ctx.ctx)
            }

            #[inline(always)]
            fn seek(hash: u64, t: &Tuple<$family>) -> u64 {
                $seek(hash, t)
            }

            #[inline(always)]
            fn insert(hash: u64, low: u64) -> bool {
                $insert(hash, low) != 0
            }

            #[inline(always)]
            fn remove(hash: u64, low: u64) {
                $remove(hash, low);
            }

            #[inline(always)]
            fn scan(start: u32, now: Tick) -> u64 {
                $scan(start, now)
            }

            #[inline(always)]
            fn allocate(now: Tick) -> u64 {
                $allocate(now)
            }

            #[inline(always)]
            fn answer(ctx: &XdpContext, len: u32, message: u64) -> u32 {
                $answer(ctx.ctx, len, message)
            }

            #[inline(always)]
            fn look_up(ctx: &XdpContext, index: u32) -> u64 {
                $look_up(ctx.ctx, index)
            }
        }

        /// [`balance::packet`]. Global: verified once, by itself, and so are the others below.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $packet(ctx: *mut xdp_md) -> u64 {
            balance::packet::<$family>(&XdpContext::new(ctx))
        }

        /// [`balance::change`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $change(index: u32, packet: u32, ctl: u64) -> u32 {
            balance::change::<$family>(index, packet, ctl)
        }

        /// [`open::open`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut xdp_md) -> u64 {
            open::open::<$family>(&XdpContext::new(ctx))
        }

        /// [`open::make`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $make(ctx: *mut xdp_md, dest: u32, template: u32, miss: u64) -> u64 {
            open::make::<$family>(&XdpContext::new(ctx), dest, template, miss)
        }

        /// [`open::stick`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $stick(ctx: *mut xdp_md, service: u64) -> u64 {
            open::stick::<$family>(&XdpContext::new(ctx), service)
        }

        /// [`once::send`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $send_once(ctx: *mut xdp_md, dest: u32) -> u64 {
            once::send::<$family>(&XdpContext::new(ctx), dest)
        }

        /// [`once::back`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $back_once(ctx: *mut xdp_md) -> u64 {
            once::back::<$family>(&XdpContext::new(ctx))
        }

        /// [`icmp::build`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $answer(ctx: *mut xdp_md, len: u32, message: u64) -> u32 {
            icmp::build::<$family>(&XdpContext::new(ctx), len, message)
        }

        /// [`reply::look_up`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $look_up(ctx: *mut xdp_md, index: u32) -> u64 {
            reply::look_up::<$family>(&XdpContext::new(ctx), index)
        }

        /// [`lb_common::table::insert_entry`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $insert(hash: u64, low: u64) -> u32 {
            $crate::ip::cold::insert::<$family>(hash, low) as u32
        }

        /// [`lb_common::table::remove_entry`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $remove(hash: u64, low: u64) -> u32 {
            $crate::ip::cold::remove::<$family>(hash, low);
            0
        }

        /// [`lb_common::table::allocate`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $allocate(now: Tick) -> u64 {
            $crate::ip::cold::allocate::<$family>(now)
        }

        /// [`lb_common::table::scan`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $scan(start: u32, now: Tick) -> u64 {
            $crate::ip::cold::scan::<$family>(start, now)
        }

        /// [`lb_common::table::seek`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $seek(hash: u64, t: *const Tuple<$family>) -> u64 {
            $crate::ip::cold::seek::<$family>(hash, t)
        }
    };
}

pub(super) use out_of_line;
