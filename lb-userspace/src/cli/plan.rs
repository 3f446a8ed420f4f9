//! `lvxadm plan`, `lvxadm apply`, `lvxadm export`: the running configuration and one in a file.
//!
//! The file is read here, where its errors are told by line and key, and its text goes to the daemon, which reads it with the same code.

use super::request::Failure;
use super::verb::{Daemon, Io};
use crate::api::{Configure, Plan};
use crate::daemon::config::Config;
use crate::model::{Action, Change, Field};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Exit status of `--exit-code` where something would change.
const CHANGES: u8 = 2;

/// Shows what a configuration would change: services, servers, and the live connections that each change touches.
///
/// Nothing is changed. Connections go on through every change but the removal of their server; what a removal cuts is said. Keys that
/// only a new start of lvxd makes true are listed at the end.
///
/// Exit status: 0, or 1 if the file or the daemon cannot be used. With --exit-code: 0 if nothing would change, 2 if something
/// would.
#[derive(Debug, clap::Args)]
pub(super) struct PlanFile {
    /// The configuration, as for lvxd --config; - is standard input.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Exit with status 2 if something would change.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Makes services, timeouts, switches and settings of schedulers of a configuration the running ones, all of them or none.
///
/// Does what `lvxadm plan` shows, and shows it. No connection is cut but those of removed servers. SIGHUP does the same with the
/// daemon's own file.
///
/// Exit status: 0, or 1 if anything is wrong; nothing has changed then.
#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// The configuration, as for lvxd --config; - is standard input.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Prints the running configuration as a file for lvxd --config or lvxadm apply.
///
/// Changes by command line outlive lvxd, but not the machine: `lvxadm export > /etc/lvx/lvx.toml` keeps them for good.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    daemon: Daemon,
}

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::new(1, e.to_string())
}

/// Reads the file and sends it.
fn configure(file: &Path, dry_run: bool, daemon: &Daemon, io: &mut Io<'_>) -> Result<Plan, Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        io.input.take(u64::MAX).read_to_string(&mut text).map_err(|e| failed(format!("standard input: {e}")))?;
        (Path::new("<stdin>"), text)
    } else {
        (file, std::fs::read_to_string(file).map_err(|e| failed(format!("{}: {e}", file.display())))?)
    };
    Config::parse(&text, name).map_err(failed)?;
    let body = Configure { name: name.to_string_lossy().into_owned(), text, dry_run };
    daemon.client()?.ask("/v1/config", &body).map_err(failed)
}

impl PlanFile {
    /// Asks, and prints.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let plan = configure(&self.file, true, &self.daemon, io)?;
        if self.json {
            io.json(&plan)?;
        } else {
            io.say(&show(&plan, "would be"))?;
        }
        let same = plan.changes.is_empty() && plan.restart.is_empty();
        if self.exit_code && !same { Err(Failure::new(CHANGES, "")) } else { Ok(()) }
    }
}

impl Apply {
    /// Has it done, and prints what was.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let plan = configure(&self.file, false, &self.daemon, io)?;
        if self.json { io.json(&plan) } else { io.say(&show(&plan, "were")) }
    }
}

impl Export {
    /// Asks, and prints.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let text = self.daemon.client()?.text("/v1/config").map_err(failed)?;
        io.say(&text)
    }
}

/// For people. One block a service, a sign before each line as in a diff.
fn show(plan: &Plan, were: &str) -> String {
    let mut out = String::new();
    let mut block = None;
    for c in &plan.changes {
        match (c.service, c.server) {
            (None, _) => {
                for f in &c.fields {
                    let _ = writeln!(out, "~ {}: {} -> {}", f.name, f.old, f.new);
                }
            }
            (Some(service), None) => {
                block = Some(service);
                line(&mut out, c, &service.to_string(), "");
            }
            (Some(service), Some(server)) => {
                if block != Some(service) {
                    block = Some(service);
                    let _ = writeln!(out, "  {service}");
                }
                line(&mut out, c, &server.to_string(), "    ");
            }
        }
    }
    if plan.changes.is_empty() {
        out.push_str("nothing to change\n");
    } else {
        let count = |server: bool, action| {
            plan.changes.iter().filter(|c| c.service.is_some() && c.server.is_some() == server && c.action == action).count()
        };
        let counts = |server| {
            let [a, c, r] = [Action::Add, Action::Change, Action::Remove].map(|action| count(server, action));
            format!("{a} added, {c} changed, {r} removed")
        };
        let cut: u64 = plan.changes.iter().map(|c| c.cut).sum();
        let _ = writeln!(out, "\nservices: {}; servers: {}; {cut} connections {were} cut", counts(false), counts(true));
    }
    for s in &plan.restart {
        let _ = writeln!(out, "only when lvxd starts anew: {}: {} -> {}", s.key, s.running, s.wanted);
    }
    out
}

fn line(out: &mut String, c: &Change, name: &str, indent: &str) {
    let sign = match c.action {
        Action::Add => '+',
        Action::Remove => '-',
        Action::Change => '~',
    };
    let value = |f: &Field| match c.action {
        Action::Change => format!(" {}: {} -> {}", f.name, or_none(&f.old), or_none(&f.new)),
        _ => format!(" {} {}", f.name, f.new),
    };
    let values: Vec<String> = c.fields.iter().map(value).collect();
    let fate = match (c.action, c.connections) {
        (Action::Remove, n) => format!("  ({n} connections cut)"),
        (Action::Change, n) if quiesced(&c.fields) => format!("  ({n} connections go on, no new ones)"),
        (Action::Change, n) => format!("  ({n} connections go on)"),
        (Action::Add, _) => String::new(),
    };
    let _ = writeln!(out, "{sign} {indent}{name}{}{fate}", values.join(","));
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

fn quiesced(fields: &[Field]) -> bool {
    fields.iter().any(|f| f.name == "weight" && f.new == "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Setting;
    use crate::model::compare;

    fn plan(old: &str, new: &str) -> Plan {
        let parse = |text: &str| Config::parse(text, Path::new("f")).unwrap().1;
        Plan { changes: compare(&parse(old), &parse(new), &|_, server| server.port.into()), restart: Vec::new() }
    }

    #[test]
    fn a_plan_is_read_like_a_diff() {
        let service = |port: u16, more: &str| format!("[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1:{port}\"\n{more}");
        let server =
            |port: u16, more: &str| format!("[[service.server]]\naddress = \"10.0.0.1:{port}\"\nforwarding = \"nat\"\n{more}");
        let old = [
            service(80, "scheduler = \"rr\"\n"),
            server(1, ""),
            server(2, ""),
            server(3, ""),
            service(81, "scheduler = \"rr\"\n"),
            server(4, ""),
        ];
        let new = [
            "[timeouts]\nudp = 5\n[tcp]\nsloppy_tcp = true\n[schedulers]\nmh_tab_index = 15\n".into(),
            service(80, "scheduler = \"wlc\"\npersistence = 300\n"),
            server(2, "weight = 0\n"),
            server(1, "upper_threshold = 9\n"),
            server(5, "weight = 3\n"),
            service(82, "scheduler = \"sh\"\nscheduler_flags = [\"sh-port\"]\n"),
        ];
        let mut plan = plan(&old.concat(), &new.concat());
        plan.restart.push(Setting { key: "sizes.picks".into(), running: "1".into(), wanted: "2".into() });
        let expected = "\
~ timeouts.udp: 300 -> 5
~ tcp.sloppy_tcp: false -> true
~ schedulers.mh_tab_index: 12 -> 15
~ TCP 192.0.2.1:80 scheduler: rr -> wlc, persistence: none -> 300, order: 10.0.0.1:1 10.0.0.1:2 -> 10.0.0.1:2 10.0.0.1:1  (6 connections go on)
~     10.0.0.1:2 weight: 1 -> 0  (2 connections go on, no new ones)
~     10.0.0.1:1 upper_threshold: 0 -> 9  (1 connections go on)
+     10.0.0.1:5 forwarding nat, weight 3
-     10.0.0.1:3  (3 connections cut)
+ TCP 192.0.2.1:82 scheduler sh, scheduler_flags sh-port
- TCP 192.0.2.1:81  (4 connections cut)

services: 1 added, 1 changed, 1 removed; servers: 1 added, 2 changed, 1 removed; 7 connections would be cut
only when lvxd starts anew: sizes.picks: 1 -> 2
";
        assert_eq!(show(&plan, "would be"), expected);
        assert_eq!(show(&Plan::default(), "were"), "nothing to change\n");
    }
}
