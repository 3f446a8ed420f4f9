//! `lvxadm decap`: the decapsulating program on a real server's interface.

use super::request::Failure;
use super::verb::Io;
use crate::daemon::attach::{Attacher, index_of};
use crate::daemon::bpffs;
use crate::daemon::config::Mode;
use crate::daemon::load;
use crate::object::{DECAP, DECAP_PROGRAM};
use aya::EbpfLoader;
use std::path::PathBuf;

/// Takes tunnelled packets (IPv4 and IPv6 in either) apart in XDP, before the stack of a real server sees them: no tunnel device
/// is needed. The VIP must be on the server's loopback interface.
///
/// The program stays on the interface until --detach, a reboot, or the interface's end.
#[derive(Debug, clap::Args)]
pub(super) struct Decap {
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

impl Decap {
    /// Puts the program on the interface, or takes it off.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        // Warnings of the fallback to generic mode.
        let _ = tracing_subscriber::fmt()
            .log_internal_errors(false)
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(false)
            .try_init();
        let failed = |e: &dyn std::error::Error| Failure::new(1, load::chain(e));
        if !self.detach {
            let index = index_of(&self.interface).map_err(|e| failed(&e))?;
            bpffs::prepare(&self.pin_dir).map_err(|e| failed(&e))?;
            let mut ebpf = EbpfLoader::new().load(DECAP).map_err(|e| failed(&e))?;
            load::program(&mut ebpf, DECAP_PROGRAM).map_err(|e| failed(&e))?.load().map_err(|e| failed(&e))?;
            let mut attacher = Attacher::new(ebpf, DECAP_PROGRAM, &self.pin_dir, self.mode);
            let hook = attacher.attach(&self.interface, index).map_err(|e| {
                // Nothing is left of the attempt; a directory with other links stays.
                let _ = std::fs::remove_dir(&self.pin_dir);
                failed(&e)
            })?;
            return io.say(&format!("interface {}: taking tunnelled packets apart in {} mode\n", self.interface, hook.name()));
        }
        if !crate::daemon::attach::detach(&self.pin_dir, &self.interface) {
            let text = format!(
                "interface {}: no decapsulating program is on it (none is pinned in {})",
                self.interface,
                self.pin_dir.display()
            );
            return Err(Failure::new(1, text));
        }
        // Fails when links of other interfaces are still there, as it shall.
        let _ = std::fs::remove_dir(&self.pin_dir);
        io.say(&format!("interface {}: tunnelled packets are left as they are\n", self.interface))
    }
}
