//! Protocol numbers and forwarding methods.

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMP6: u8 = 58;
/// IPv4 in IP.
pub const IPIP: u8 = 4;
/// IPv6 in IP.
pub const IPV6: u8 = 41;

/// Set in the protocol of a persistence template, so that no packet is ever taken for one of it.
pub const TEMPLATE: u8 = 0x80;

/// Set in the protocol of an answerer's key ([`crate::once`]), so that no packet is ever taken for one to it.
pub const ANSWERER: u8 = 0x40;

/// Forwarding method: masquerading (NAT).
pub const NAT: u8 = 0;
/// Forwarding method: gatewaying (direct routing).
pub const DR: u8 = 1;
/// Forwarding method: tunnelling (IP in IP).
pub const TUN: u8 = 2;
