//! The packet path of LVX: what the XDP programs in `bin/` are made of.
//!
//! [`balance`] is the way of a packet: parse ([`ip`]), find its connection ([`lb_common::table`]), or open one ([`open`]), rewrite
//! and transmit ([`forward`], [`reply`]), or answer for the server ([`icmp`]). Decisions that need no packet live in lb-common; raw
//! pointers into packets live in [`raw`] and the files that rewrite headers.
//!
//! Invariant: a packet that is not for a virtual service leaves as it came, byte for byte, and every packet is counted under
//! exactly one verdict.
//!
//! The trap: the verifier. Loops are bounded by constants, nothing panics, a packet pointer is dead after the head moves, and
//! all stack frames of a call chain share 512 bytes; cold routines are kept out of line so that the hot path keeps its registers.
#![no_std]
#![allow(unreachable_pub, reason = "global functions of the program")]
#![feature(core_intrinsics, asm_experimental_arch)]
#![expect(internal_features, reason = "core has no 64-bit atomics for this target")]

pub mod atomics;
pub mod balance;
pub mod count;
pub mod forward;
pub mod icmp;
pub mod ip;
pub mod maps;
pub mod memory;
pub mod once;
pub mod open;
pub mod raw;
pub mod reply;
pub mod transmit;
pub mod vacancy;
