//! The demonstration: a client, a director and four real servers in network namespaces of this machine. Run it as
//! `cargo xtask demo [nat|dr|tun]`.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use lvx_tests::lab::{HttpLab, Layout, Method};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Shows LVX at work: builds a client, a director and four nginx servers in network namespaces, starts lvxd, configures it with
/// lvxadm, sends HTTP requests, and shows who served how many. Nothing is left behind.
#[derive(Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// Forwarding method.
    #[arg(value_enum, default_value = "nat")]
    method: MethodArg,
    /// IPv6 instead of IPv4.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Requests.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// One interface on the director instead of two.
    #[arg(long)]
    stick: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodArg {
    Nat,
    Dr,
    Tun,
}

const SERVERS: usize = 4;
const BATCH: u32 = 20;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C ends the demonstration between two batches, so that everything is taken down.
fn watch_signals() {
    // SAFETY: plain calls on a local set, before any thread is started: all threads inherit the mask, and one waits.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        std::thread::spawn(move || {
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
            INTERRUPTED.store(true, Ordering::Relaxed);
        });
    }
}

fn main() -> std::process::ExitCode {
    match demonstrate(&Args::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\n{e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn demonstrate(args: &Args) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demonstration makes network namespaces and needs root: sudo cargo xtask demo");
    }
    watch_signals();
    let method = match args.method {
        MethodArg::Nat => Method::Nat,
        MethodArg::Dr => Method::Dr,
        MethodArg::Tun => Method::Tun,
    };
    let layout = if args.stick { Layout::Stick } else { Layout::TwoArms };
    println!("building a client, a director and {SERVERS} real servers in network namespaces ...");
    let h = HttpLab::new(layout, method, args.ipv6, SERVERS)?;
    println!("lvxd was ready after {} ms on {}", h.lvxd.ready_after.as_millis(), h.lab.interfaces.join(" and "));
    println!("\n$ lvxadm -S -n\n{}", h.lvxd.adm("-S -n")?);
    let shares = send(&h, args.requests)?;
    println!("\nserved by");
    for (name, n) in &shares {
        println!("  {name:<12} {n:>6}");
    }
    for command in ["-L -n --stats", "status"] {
        println!("\n$ lvxadm {command}\n{}", h.lvxd.adm(command)?.trim_end());
    }
    h.lvxd.stop()?;
    Ok(())
}

/// Sends the requests, with a progress line.
fn send(h: &HttpLab, requests: u32) -> Result<BTreeMap<String, usize>> {
    let mut shares = BTreeMap::new();
    let mut sent = 0;
    let terminal = std::io::stdout().is_terminal();
    while sent < requests {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted after {sent} requests; everything is taken down");
        }
        let n = BATCH.min(requests - sent);
        for (name, k) in h.requests(n as usize)? {
            *shares.entry(name).or_default() += k;
        }
        sent += n;
        if terminal || sent == requests {
            print!("{}curl {} : {sent} of {requests} requests answered", if terminal { "\r" } else { "" }, h.url(""));
            std::io::stdout().flush()?;
        }
    }
    println!();
    Ok(shares)
}
