//! `lvxadm status`: how the director is.

use super::request::Failure;
use crate::api::Status;
use clap::Parser;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

/// Shows interfaces, connection tables, and what became of packets.
#[derive(Parser)]
#[command(name = "lvxadm status")]
struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Also verdicts that no packet had.
    #[arg(long)]
    all: bool,
    /// Control socket of lvxd.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Words into arguments; clap's own message otherwise.
pub(super) fn arguments<T: Parser>(words: &[String]) -> Result<T, Failure> {
    T::try_parse_from(words).map_err(|e| {
        if e.use_stderr() {
            return Failure::new(2, e.render().to_string().trim_end());
        }
        // Help was asked for.
        print!("{}", e.render());
        Failure::new(0, "")
    })
}

pub(super) fn main(words: &[String], output: &mut dyn Write) -> Result<(), Failure> {
    let args: Args = arguments(words)?;
    let client = super::client(args.socket)?;
    let status: Status = client.get("/v1/status").map_err(|e| Failure::new(2, e.to_string()))?;
    let text = if args.json {
        serde_json::to_string_pretty(&status).map_err(|e| Failure::new(1, e.to_string()))? + "\n"
    } else {
        show(&status, args.all)
    };
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|e| Failure::new(1, format!("writing: {e}")))
}

fn show(s: &Status, all: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "lvxd {}, process {}", s.version, s.pid);
    let _ = writeln!(out, "\nInterface        Mode");
    for i in &s.interfaces {
        let _ = writeln!(out, "{:<16} {}", i.name, i.mode);
    }
    let _ = writeln!(out, "\nTable    Connections       Size");
    for t in &s.tables {
        let _ = writeln!(out, "{:<8} {:>11} {:>10}", t.family, t.used, t.size);
    }
    let _ = writeln!(out, "\nVerdict                    Packets");
    for v in s.verdicts.iter().filter(|v| all || v.packets != 0) {
        let _ = writeln!(out, "{:<22} {:>11}  {}", v.name, v.packets, v.meaning);
    }
    out
}
