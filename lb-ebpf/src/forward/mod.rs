//! Sending a client's packet to its real server, by the three methods.

pub mod dr;
pub mod nat;
pub mod tun;

use crate::balance::Outcome;
use crate::icmp::{self, Problem};
use crate::ip::{Ip, Packet};
use aya_ebpf::programs::XdpContext;
use lb_common::conn::Conn;
use lb_common::dest::Dest;
use lb_common::proto;

/// What a connection says about the way of a client's packet, read before the control word is checked again.
#[derive(Clone, Copy)]
pub struct Way<F: Ip> {
    /// Forwarding method.
    pub method: u8,
    /// Server's port.
    pub real_port: u16,
    /// Delta of the transport checksum.
    pub l4_delta: u16,
    /// Delta of the header's checksum.
    pub ip_delta: u16,
    /// Server's address.
    pub real: F::Addr,
}

impl<F: Ip> Way<F> {
    /// Reads it.
    ///
    /// # Safety
    /// `c` is a record.
    #[inline(always)]
    #[must_use]
    pub unsafe fn read(c: *const Conn<F>) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                method: (*c).method,
                real_port: (*c).real_port,
                l4_delta: (*c).l4_delta,
                ip_delta: (*c).ip_delta,
                real: (*c).real,
            }
        }
    }
}

/// Rewrites and transmits.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest, way: &Way<F>) -> Outcome {
    if way.method == proto::NAT {
        nat::send(ctx, p, d, way)
    } else if way.method == proto::DR {
        dr::send(ctx, p, d)
    } else {
        tun::send(ctx, p, d)
    }
}

/// Whether a packet fits the way to its server, `extra` bytes of outer header included. `mtu` 0 is unknown.
#[inline(always)]
fn fits(len: u32, extra: u32, d: &Dest) -> bool {
    d.mtu == 0 || len + extra <= d.mtu as u32
}

/// A packet that does not fit: its sender is told.
#[inline(always)]
fn too_big<F: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest, extra: u32) -> Outcome {
    icmp::answer(ctx, p, Problem::TooBig((d.mtu as u32).saturating_sub(extra)))
}
