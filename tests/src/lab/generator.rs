//! A generator of TCP segments from as many clients as one likes, faster than any socket: live frames of BPF_PROG_TEST_RUN.
//!
//! The frames leave by an interface of a namespace and are received by its peer as those of any other sender; the peer needs a native
//! XDP program. One batch is sent, and worked on by the receiver, on the caller's CPU, so that it cannot outrun the receiver.
//!
//! The trap: the sending interface needs a native XDP program too, or the kernel refuses to send from it.

use super::{Ns, PassAll};
use crate::director::Pins;
use crate::packet::Frame;
use anyhow::{Context, Result, ensure};
use aya::maps::Array;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::bench::Bench;
use std::net::SocketAddr;

/// Frames that the kernel sends before it lets the receiver work.
const BATCH: u32 = 64;
/// Port of the clients before their number comes in.
const PORT: u16 = 4;

/// Sends from an interface.
pub struct Generator {
    ebpf: Ebpf,
    ns: Ns,
    ifindex: u32,
    destination: [u8; 6],
    _pass: PassAll,
}

/// MAC and index of an interface.
fn link(ns: &Ns, interface: &str) -> Result<([u8; 6], u32)> {
    let text = ns.ip(&format!("-o link show dev {interface}"))?;
    let ifindex = text.split(':').next().and_then(|w| w.trim().parse().ok()).with_context(|| format!("no index: {text}"))?;
    let mut words = text.split_whitespace().skip_while(|w| *w != "link/ether").skip(1);
    let mac = words.next().with_context(|| format!("no MAC: {text}"))?;
    let bytes = mac.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<Vec<_>, _>>()?;
    Ok((bytes.try_into().map_err(|_| anyhow::anyhow!("no MAC: {mac}"))?, ifindex))
}

impl Generator {
    /// On an interface whose peer is `peer_interface` of another namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(ns: &Ns, interface: &str, peer: &Ns, peer_interface: &str) -> Result<Self> {
        let pass = PassAll::on(ns, interface)?;
        let pins = Pins::new()?;
        let mut ebpf = EbpfLoader::new().default_map_pin_directory(&pins.0).load(lb_userspace::object::BENCH)?;
        for name in ["bench_send4", "bench_send6"] {
            let program: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let (_, ifindex) = link(ns, interface)?;
        let (destination, _) = link(peer, peer_interface)?;
        Ok(Self { ebpf, ns: ns.clone(), ifindex, destination, _pass: pass })
    }

    /// Sends a segment with these flags from each of the clients number `first` to `first + n` (10.64.0.0 or fd00:a::40:0:0 and on), below
    /// 2^22: beyond, addresses would overlap with others, and checksums be wrong.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self, to: SocketAddr, flags: u8, first: u32, n: u32) -> Result<()> {
        ensure!(first.saturating_add(n) <= 1 << 22, "there are no clients {first} to {first} + {n}");
        let (ip, name) = if to.is_ipv6() { ("fd00:a::40:0:0", "bench_send6") } else { ("10.64.0.0", "bench_send4") };
        let mut frame = Frame::tcp(SocketAddr::new(ip.parse()?, PORT), to, flags).bytes();
        frame[..6].copy_from_slice(&self.destination);
        frame.resize(frame.len().max(80), 0);
        // What is past the IP packet is padding, as Ethernet has it.
        let len = frame.len() as u32;
        let mut words = [0; 10];
        for (w, b) in words.iter_mut().zip(frame.chunks_exact(8)) {
            *w = u64::from_ne_bytes(b.try_into()?);
        }
        let bench = Bench { len, mode: 2, clients: 0, reverse: 0, count: u64::from(first), template: words };
        let mut map: Array<_, Bench> = Array::try_from(self.ebpf.map_mut("LVX_BENCH").context("no LVX_BENCH")?)?;
        map.set(0, bench, 0)?;
        let program: &Xdp = self.ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: Vec<u8> = [0, len, 0, self.ifindex, 0, 0].iter().flat_map(|w: &u32| w.to_ne_bytes()).collect();
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: n,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..Default::default()
        };
        let sent = self.ns.run(|| program.test_run(options)).context("live frames")?;
        ensure!(sent.return_value == 0, "live frames ended with {}", sent.return_value);
        Ok(())
    }
}
