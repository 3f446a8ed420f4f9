//! The kernel's IPVS, told and asked by generic netlink: a process for each command, as with ipvsadm, would take most of the time in
//! an emulated machine.

use super::player::{Balancer, Service};
use super::{Count, History, PORT, SERVER_PORT, Setting};
use anyhow::{Context, Result, bail};
use lb_userspace::model::{Protocol, SchedFlags};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// `linux/netlink.h`, `linux/genetlink.h`, `linux/ip_vs.h`.
mod numbers {
    pub(super) const REQUEST: u16 = 1;
    pub(super) const ACK: u16 = 4;
    pub(super) const DUMP: u16 = 0x300;
    pub(super) const ERROR: u16 = 2;
    pub(super) const DONE: u16 = 3;
    pub(super) const CONTROLLER: u16 = 16;
    pub(super) const GET_FAMILY: u8 = 3;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const NEW_SERVICE: u8 = 1;
    pub(super) const SET_SERVICE: u8 = 2;
    pub(super) const DEL_SERVICE: u8 = 3;
    pub(super) const NEW_DEST: u8 = 5;
    pub(super) const SET_DEST: u8 = 6;
    pub(super) const DEL_DEST: u8 = 7;
    pub(super) const GET_DEST: u8 = 8;
    pub(super) const SERVICE: u16 = 1;
    pub(super) const DEST: u16 = 2;
    pub(super) const SVC_AF: u16 = 1;
    pub(super) const SVC_PROTOCOL: u16 = 2;
    pub(super) const SVC_ADDR: u16 = 3;
    pub(super) const SVC_PORT: u16 = 4;
    pub(super) const SVC_FWMARK: u16 = 5;
    pub(super) const SVC_SCHED_NAME: u16 = 6;
    pub(super) const SVC_FLAGS: u16 = 7;
    pub(super) const SVC_TIMEOUT: u16 = 8;
    pub(super) const SVC_NETMASK: u16 = 9;
    pub(super) const DEST_ADDR: u16 = 1;
    pub(super) const DEST_PORT: u16 = 2;
    pub(super) const DEST_METHOD: u16 = 3;
    pub(super) const DEST_WEIGHT: u16 = 4;
    pub(super) const DEST_UPPER: u16 = 5;
    pub(super) const DEST_LOWER: u16 = 6;
    pub(super) const DEST_ACTIVE: u16 = 7;
    pub(super) const DEST_INACTIVE: u16 = 8;
    pub(super) const DEST_FAMILY: u16 = 11;
    pub(super) const NESTED: u16 = 0x8000;
    pub(super) const SCHED1: u32 = 8;
    pub(super) const SCHED2: u32 = 16;
}
use numbers::*;

/// See the module.
#[derive(Debug)]
pub struct Ipvs {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

/// Attributes in the making.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn u16(self, kind: u16, value: u16) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    fn u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    fn name(self, kind: u16, name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    fn address(self, kind: u16, address: IpAddr) -> Self {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(a) => bytes[..4].copy_from_slice(&a.octets()),
            IpAddr::V6(a) => bytes = a.octets(),
        }
        self.put(kind, &bytes)
    }

    fn nest(self, kind: u16, inner: &Self) -> Self {
        self.put(kind | NESTED, &inner.0)
    }
}

/// The attributes in some bytes.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let [a, b, c, d, ..] = *bytes {
        let len = u16::from_ne_bytes([a, b]) as usize;
        let Some(value) = bytes.get(4..len) else { break };
        all.push((u16::from_ne_bytes([c, d]) & !NESTED, value));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn find(bytes: &[u8], kind: u16) -> Result<&[u8]> {
    let found = attributes(bytes).into_iter().find(|(k, _)| *k == kind);
    found.map(|(_, value)| value).with_context(|| format!("the kernel sent no attribute {kind}"))
}

fn number(bytes: &[u8], kind: u16) -> Result<u32> {
    let value = find(bytes, kind)?;
    Ok(u32::from_ne_bytes(value.try_into().context("an attribute of 32 bits")?))
}

const fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u16,
        IpAddr::V6(_) => libc::AF_INET6 as u16,
    }
}

impl Ipvs {
    /// Of this network namespace.
    ///
    /// # Errors
    /// The kernel has none, or its module is not loaded.
    pub fn new() -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(GENERIC));
        let socket = socket.context("make a netlink socket")?;
        let mut it = Self { socket, family: CONTROLLER, sequence: 0 };
        let answers = it.ask(GET_FAMILY, 0, &Attributes::default().name(FAMILY_NAME, "IPVS")).context("look for IPVS")?;
        let id = find(answers.first().context("no IPVS in this kernel")?, FAMILY_ID)?;
        it.family = u16::from_ne_bytes(id.try_into().context("a family's number")?);
        Ok(it)
    }

    /// Sends a request; gives the attributes of each answer.
    fn ask(&mut self, command: u8, flags: u16, body: &Attributes) -> Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let mut message = Vec::new();
        message.extend(((20 + body.0.len()) as u32).to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend((REQUEST | ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0, 0, 0, 0, command, 1, 0, 0]);
        message.extend(&body.0);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).context("send to the kernel")?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let (n, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()).context("hear from the kernel")?;
            let mut rest = &buffer[..n];
            while rest.len() >= 16 {
                let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let message = rest.get(..len.max(16)).context("a truncated message")?;
                match kind {
                    DONE => return Ok(answers),
                    ERROR => {
                        let code = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(-1, i32::from_ne_bytes);
                        if code != 0 {
                            return Err(std::io::Error::from_raw_os_error(-code)).with_context(|| format!("command {command}"));
                        }
                        return Ok(answers);
                    }
                    _ => answers.push(message.get(20..).unwrap_or_default().to_vec()),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn name(service: &Service<'_>) -> Attributes {
        let vip = service.history.vip(0);
        let start = Attributes::default().u16(SVC_AF, family(vip));
        match service.mark() {
            Some(mark) => start.u32(SVC_FWMARK, mark),
            None => {
                let protocol = if service.history.protocol == Protocol::Tcp { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
                start.u16(SVC_PROTOCOL, protocol as u16).address(SVC_ADDR, vip).put(SVC_PORT, &PORT.to_be_bytes())
            }
        }
    }

    fn service(&mut self, command: u8, service: &Service<'_>) -> Result<()> {
        let has = |flag, bit| if service.schedule.flags.contains(flag) { bit } else { 0 };
        let flags = has(SchedFlags::FALLBACK, SCHED1) | has(SchedFlags::PORT, SCHED2);
        let pair: Vec<u8> = [flags, u32::MAX].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let netmask = if service.history.v6 { 128 } else { u32::MAX };
        let body = Self::name(service)
            .name(SVC_SCHED_NAME, service.schedule.kind.name())
            .put(SVC_FLAGS, &pair)
            .u32(SVC_TIMEOUT, 0)
            .u32(SVC_NETMASK, netmask);
        self.ask(command, 0, &Attributes::default().nest(SERVICE, &body)).map(drop)
    }

    fn server(&mut self, command: u8, service: &Service<'_>, server: u32, setting: Setting) -> Result<()> {
        let address = service.history.server(server);
        let dest = Attributes::default()
            .address(DEST_ADDR, address)
            .u16(DEST_FAMILY, family(address))
            .put(DEST_PORT, &SERVER_PORT.to_be_bytes())
            .u32(DEST_METHOD, 0)
            .u32(DEST_WEIGHT, setting.weight)
            .u32(DEST_UPPER, setting.upper)
            .u32(DEST_LOWER, setting.lower);
        let body = Attributes::default().nest(SERVICE, &Self::name(service)).nest(DEST, &dest);
        self.ask(command, 0, &body).map(drop)
    }
}

impl Balancer for Ipvs {
    fn add_service(&mut self, service: &Service<'_>) -> Result<()> {
        self.service(NEW_SERVICE, service)
    }

    fn edit_service(&mut self, service: &Service<'_>) -> Result<()> {
        self.service(SET_SERVICE, service)
    }

    fn delete_service(&mut self, service: &Service<'_>) -> Result<()> {
        let body = Attributes::default().nest(SERVICE, &Self::name(service));
        self.ask(DEL_SERVICE, 0, &body).map(drop)
    }

    fn add_server(&mut self, service: &Service<'_>, server: u32, setting: Setting) -> Result<()> {
        self.server(NEW_DEST, service, server, setting)
    }

    fn edit_server(&mut self, service: &Service<'_>, server: u32, setting: Setting) -> Result<()> {
        self.server(SET_DEST, service, server, setting)
    }

    fn delete_server(&mut self, service: &Service<'_>, server: u32) -> Result<()> {
        self.server(DEL_DEST, service, server, Setting { weight: 0, upper: 0, lower: 0 })
    }

    fn counts(&mut self, service: &Service<'_>) -> Result<Vec<Count>> {
        let body = Attributes::default().nest(SERVICE, &Self::name(service));
        let mut counts = Vec::new();
        for answer in self.ask(GET_DEST, DUMP, &body)? {
            let dest = find(&answer, DEST)?;
            let address = find(dest, DEST_ADDR)?;
            let address = match (service.history.v6, address) {
                (false, [a, b, c, d, ..]) => IpAddr::from([*a, *b, *c, *d]),
                (true, bytes) => IpAddr::from(<[u8; 16]>::try_from(bytes).context("an IPv6 address")?),
                _ => bail!("an address of {} bytes", address.len()),
            };
            let server = service.history.number_of(address).with_context(|| format!("a server at {address}"))?;
            let (active, inactive) = (number(dest, DEST_ACTIVE)?.into(), number(dest, DEST_INACTIVE)?.into());
            counts.push(Count { server, active, inactive });
        }
        Ok(counts)
    }

    fn waits_s(&self) -> u64 {
        14
    }

    /// Marks packets to the addresses of services by mark.
    fn prepare(&mut self, histories: &[History]) -> Result<()> {
        let mut rules =
            String::from("flush ruleset\ntable inet marks {\n chain in {\n  type filter hook prerouting priority mangle;\n");
        for history in histories.iter().filter(|h| h.mark) {
            let mark = History::mark_of(history.number);
            let (ip, prefix) = if history.v6 { ("ip6", 112) } else { ("ip", 24) };
            let all = if history.v6 {
                format!("fd09::{:x}:0/{prefix}", history.number)
            } else {
                let vip = history.vip(0).to_string();
                let net = vip.rsplit_once('.').map_or("", |(net, _)| net);
                format!("{net}.0/{prefix}")
            };
            rules.push_str(&format!("  {ip} daddr {all} meta mark set {mark}\n"));
        }
        rules.push_str(" }\n}\n");
        if !histories.iter().any(|h| h.mark) {
            return Ok(());
        }
        std::fs::write("/tmp/marks", rules).context("write /tmp/marks")?;
        let output = std::process::Command::new("nft").args(["-f", "/tmp/marks"]).output().context("start nft")?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
