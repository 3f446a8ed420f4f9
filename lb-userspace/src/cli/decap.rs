//! `lvxadm decap`: the decapsulating program on a real server's interface.

use super::request::Failure;
use super::status::arguments;
use crate::daemon::attach::{Attacher, index_of};
use crate::daemon::bpffs;
use crate::daemon::config::Mode;
use crate::daemon::load;
use crate::object::{DECAP, DECAP_PROGRAM};
use aya::EbpfLoader;
use clap::Parser;
use std::io::Write;
use std::path::PathBuf;

/// Takes tunnelled packets (IPv4 and IPv6 in either) apart in XDP, before the stack of a real server sees them: no tunnel device
/// is needed. The VIP must be on the server's loopback interface.
///
/// The program stays on the interface until --detach, a reboot, or the interface's end.
#[derive(Parser)]
#[command(name = "lvxadm decap")]
struct Args {
    /// Interface that tunnelled packets come in by.
    #[arg(value_name = "IF")]
    interface: String,
    /// Take the program off again.
    #[arg(long)]
    detach: bool,
    /// Where in the network stack the program runs.
    #[arg(long, value_enum, default_value = "auto")]
    mode: Mode,
    /// Directory on a BPF file system that the link is pinned in.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/lvx-decap")]
    pin_dir: PathBuf,
}

pub(super) fn main(words: &[String], output: &mut dyn Write) -> Result<(), Failure> {
    let args: Args = arguments(words)?;
    // Warnings of the fallback to generic mode.
    let _ = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .try_init();
    let failed = |e: &dyn std::error::Error| Failure::new(1, load::chain(e));
    if !args.detach {
        let index = index_of(&args.interface).map_err(|e| failed(&e))?;
        bpffs::prepare(&args.pin_dir).map_err(|e| failed(&e))?;
        let mut ebpf = EbpfLoader::new().load(DECAP).map_err(|e| failed(&e))?;
        load::program(&mut ebpf, DECAP_PROGRAM).map_err(|e| failed(&e))?.load().map_err(|e| failed(&e))?;
        let mut attacher = Attacher::new(ebpf, DECAP_PROGRAM, &args.pin_dir, args.mode);
        let hook = attacher.attach(&args.interface, index).map_err(|e| {
            // Nothing is left of the attempt; a directory with other links stays.
            let _ = std::fs::remove_dir(&args.pin_dir);
            failed(&e)
        })?;
        return say(output, &format!("interface {}: taking tunnelled packets apart in {} mode\n", args.interface, hook.name()));
    }
    if !crate::daemon::attach::detach(&args.pin_dir, &args.interface) {
        let text = format!(
            "interface {}: no decapsulating program is on it (none is pinned in {})",
            args.interface,
            args.pin_dir.display()
        );
        return Err(Failure::new(1, text));
    }
    // Fails when links of other interfaces are still there, as it shall.
    let _ = std::fs::remove_dir(&args.pin_dir);
    say(output, &format!("interface {}: tunnelled packets are left as they are\n", args.interface))
}

fn say(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|e| Failure::new(1, format!("writing: {e}")))
}
