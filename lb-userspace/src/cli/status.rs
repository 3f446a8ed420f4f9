//! `lvxadm status`: how the director is.

use super::request::Failure;
use super::verb::{Daemon, Io};
use crate::api;
use std::fmt::Write as _;

/// Shows interfaces, connection tables, and what became of packets.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Also verdicts that no packet had.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Status {
    /// Asks the daemon, and prints.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let status: api::Status = self.daemon.client()?.get("/v1/status").map_err(|e| Failure::new(2, e.to_string()))?;
        if self.json { io.json(&status) } else { io.say(&show(&status, self.all)) }
    }
}

fn show(s: &api::Status, all: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "lvxd {}, process {}", s.version, s.pid);
    let _ = writeln!(out, "\nInterface        Mode");
    for i in &s.interfaces {
        let _ = writeln!(out, "{:<16} {}", i.name, i.mode);
    }
    let _ = writeln!(out, "\nTable          Size        Used    %     Active   Inactive  Templates");
    for t in &s.tables {
        let percent = t.used * 100 / u64::from(t.size.max(1));
        let _ = writeln!(
            out,
            "{:<8} {:>10} {:>11} {percent:>4} {:>10} {:>10} {:>10}",
            t.family, t.size, t.used, t.active, t.inactive, t.templates
        );
    }
    let _ = writeln!(out, "\nGave way        Expired   Embryonic     Closing       Swept");
    for t in &s.tables {
        let _ = writeln!(
            out,
            "{:<8} {:>14} {:>11} {:>11} {:>11}",
            t.family, t.reclaimed_expired, t.evicted_embryonic, t.evicted_closing, t.swept
        );
    }
    let w = &s.sweeper;
    let ms = |us: u64| us as f64 / 1000.0;
    let _ = writeln!(
        out,
        "\nSweeper: {} rounds, the last over {} records in {:.1} ms, {:.1} ms of a CPU; {} audits, {} counts healed",
        w.rounds,
        w.records,
        ms(w.round_us),
        ms(w.cpu_us),
        w.audits,
        w.healed
    );
    let _ = writeln!(out, "\nVerdict                    Packets");
    for v in s.verdicts.iter().filter(|v| all || v.packets != 0) {
        let _ = writeln!(out, "{:<22} {:>11}  {}", v.name, v.packets, v.meaning);
    }
    out
}
