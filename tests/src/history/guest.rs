//! Histories lived through by the IPVS of one of Debian's kernels, in QEMU.

use super::{History, generate, parse_all};
use crate::qemu::{Guest, Kernel};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// The histories with that kernel's answers. `player` is the program `lvx-history`.
///
/// # Errors
/// QEMU is absent, or something that is no choice went wrong in the guest.
pub fn record(kernel: Kernel, player: &Path, histories: &[History]) -> Result<Vec<History>> {
    let text: String = histories.iter().map(|h| format!("{h}\n")).collect();
    let mut guest = Guest::new(kernel)?.timeout(Duration::from_secs(420)).file("/histories", text)?.program(player)?;
    for program in ["ip", "nft"] {
        guest = guest.program(program).with_context(|| program.to_owned())?;
    }
    for module in ["tun", "nf_tables", "ip_vs"] {
        guest = guest.module(module);
    }
    for kind in generate::EXACT {
        guest = guest.module(&format!("ip_vs_{}", kind.name()));
    }
    let output = guest.run(&format!("{} ipvs /histories\n", player.display()))?;
    ensure!(output.status == 0, "{}\n{}", output.text, output.console);
    let recorded = parse_all(&output.text)?;
    ensure!(recorded.len() == histories.len(), "{} of {} histories came back", recorded.len(), histories.len());
    Ok(recorded)
}
