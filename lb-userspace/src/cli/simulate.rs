//! `lvxadm simulate`: what a scheduler would do with a pool and a stream of connections. Needs no daemon and no privilege.

use super::request::Failure;
use super::verb::Io;
use crate::model::{SchedFlags, SchedulerKind};
use crate::sched::simulate::{Generated, Holding, MAX_ARRIVALS, Outcome, parse_trace, run as simulate};
use crate::sched::{Scheduler, Server, TableSize, Twos, build_sized};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most servers of a simulated pool.
const MAX_SERVERS: usize = 10_000;
/// Longest simulated time, seconds: a year.
const MAX_DURATION_S: f64 = 366.0 * 86_400.0;

/// Shows what a scheduler does with a pool and a stream of connections: shares, peaks, and how evenly load is spread.
///
/// Servers count as added in the order given. Example: lvxadm simulate -s wlc --server 3 --server 2 --server 1:100 --rate 500 --hold exp:2
#[derive(clap::Args, Debug)]
pub(super) struct Simulate {
    /// The scheduler, as for -A.
    #[arg(short, long, value_name = "NAME", default_value = "wlc", value_parser = kind)]
    scheduler: SchedulerKind,
    /// Its flags, as for -A: sh-port, sh-fallback, mh-port, mh-fallback.
    #[arg(short = 'b', long, value_name = "FLAGS", default_value = "")]
    sched_flags: String,
    /// Size of the table of mh, from 8 (251 slots) to 17 (131,071), numbered as in the kernel's CONFIG_IP_VS_MH_TAB_INDEX.
    #[arg(long, value_name = "N", default_value = "12", value_parser = table_size)]
    mh_tab_index: TableSize,
    /// A real server: its weight, and after colons upper and lower threshold. Repeatable.
    #[arg(long = "server", value_name = "WEIGHT[:UPPER[:LOWER]]")]
    servers: Vec<Limits>,
    /// So many more servers of weight 1.
    #[arg(long, value_name = "N", default_value_t = 0)]
    equal: usize,
    /// A trace instead of a generated stream: lines of `TIME HOLDING [CLIENT[:PORT]]`, in seconds; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "hold", "duration", "clients"])]
    trace: Option<PathBuf>,
    /// New connections a second.
    #[arg(long, default_value = "100", value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    rate: f64,
    /// How long they are active: fixed:SECONDS, exp:MEAN or pareto:SHAPE:SMALLEST.
    #[arg(long, default_value = "exp:1", value_name = "DISTRIBUTION")]
    hold: Holding,
    /// For how many seconds connections arrive.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = positive, allow_negative_numbers = true)]
    duration: f64,
    /// Distinct client addresses.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    clients: u32,
    /// How many seconds closed connections stay, as inactive ones.
    #[arg(long, default_value = "120", value_name = "SECONDS", value_parser = not_negative, allow_negative_numbers = true)]
    linger: f64,
    /// The same seed gives the same stream.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn kind(text: &str) -> Result<SchedulerKind, String> {
    let names: Vec<&str> = SchedulerKind::ALL.iter().map(|k| k.name()).collect();
    text.parse().map_err(|()| format!("the schedulers are {}", names.join(", ")))
}

fn table_size(text: &str) -> Result<TableSize, String> {
    text.parse().ok().and_then(TableSize::from_index).ok_or_else(|| "not a number from 8 to 17".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| (0.0..=MAX_DURATION_S).contains(n));
    number.ok_or_else(|| format!("not a number from 0 to {MAX_DURATION_S}"))
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|n| if n > 0.0 { Ok(n) } else { Err("not above 0".to_owned()) })
}

/// A server as it is given on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limits {
    weight: u32,
    upper: u32,
    lower: u32,
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|n| n.parse().ok()).collect();
        let (weight, upper, lower) = match numbers.as_deref() {
            Some([weight]) => (*weight, 0, 0),
            Some([weight, upper]) => (*weight, *upper, 0),
            Some([weight, upper, lower]) => (*weight, *upper, *lower),
            _ => return Err("not WEIGHT[:UPPER[:LOWER]]".to_owned()),
        };
        if weight > crate::model::MAX_WEIGHT {
            return Err(format!("a weight is at most {}", crate::model::MAX_WEIGHT));
        }
        if lower > upper {
            return Err("the lower threshold is above the upper one".to_owned());
        }
        Ok(Self { weight, upper, lower })
    }
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no server: give --server or --equal")]
    NoServer,
    #[error("more than {MAX_SERVERS} servers")]
    ManyServers,
    #[error("{rate} connections a second for {duration} seconds are more than {MAX_ARRIVALS}")]
    ManyArrivals { rate: f64, duration: f64 },
    #[error("`{flag}` is no flag of {kind}")]
    Flag { flag: String, kind: SchedulerKind },
    #[error("reading {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, {source}")]
    Trace { path: String, source: crate::sched::simulate::TraceError },
}

impl Simulate {
    /// Simulates, and prints what came of it.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let text = report(&self, io.input).map_err(|e| Failure::new(2, format!("lvxadm simulate: {e}")))?;
        io.say(&text)
    }
}

fn report(args: &Simulate, input: &mut dyn BufRead) -> Result<String, Error> {
    let outcome = outcome(args, input)?;
    Ok(if args.json { json(args.scheduler, &outcome) } else { text(args.scheduler, &outcome) })
}

fn outcome(args: &Simulate, input: &mut dyn BufRead) -> Result<Outcome, Error> {
    let servers = pool(args)?;
    let flags = flags(args.scheduler, &args.sched_flags)?;
    let mut scheduler: Box<dyn Scheduler> = match args.scheduler {
        SchedulerKind::Twos => Box::new(Twos::seeded(args.seed)),
        kind => build_sized(kind, flags, args.mh_tab_index),
    };
    let vip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Ok(match &args.trace {
        Some(path) => simulate(&mut *scheduler, &servers, read_trace(path, input)?, vip, args.linger),
        None => {
            if args.rate * args.duration > MAX_ARRIVALS as f64 {
                return Err(Error::ManyArrivals { rate: args.rate, duration: args.duration });
            }
            let (rate, holding, duration_s) = (args.rate, args.hold, args.duration);
            let stream = Generated { rate, holding, duration_s, clients: args.clients, seed: args.seed };
            simulate(&mut *scheduler, &servers, stream.arrivals(), vip, args.linger)
        }
    })
}

/// Newest first; keys count from 1 in the order given.
fn pool(args: &Simulate) -> Result<Vec<Server>, Error> {
    let one = Limits { weight: 1, upper: 0, lower: 0 };
    if args.servers.len().saturating_add(args.equal) > MAX_SERVERS {
        return Err(Error::ManyServers);
    }
    let all = args.servers.iter().copied().chain(std::iter::repeat_n(one, args.equal));
    let mut servers: Vec<Server> = (1..)
        .zip(all)
        .map(|(key, l)| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0afe_0000 + key));
            Server { upper: l.upper, lower: l.lower, ..Server::new(key, address, 80, l.weight) }
        })
        .collect();
    if servers.is_empty() {
        return Err(Error::NoServer);
    }
    servers.reverse();
    Ok(servers)
}

fn flags(kind: SchedulerKind, text: &str) -> Result<SchedFlags, Error> {
    let mut flags = 0;
    for flag in text.split(',').filter(|f| !f.is_empty()) {
        flags |= match (kind, flag) {
            (SchedulerKind::Sh, "sh-port") | (SchedulerKind::Mh, "mh-port") => SchedFlags::PORT.0,
            (SchedulerKind::Sh, "sh-fallback") | (SchedulerKind::Mh, "mh-fallback") => SchedFlags::FALLBACK.0,
            _ => return Err(Error::Flag { flag: flag.to_owned(), kind }),
        };
    }
    Ok(SchedFlags(flags))
}

fn read_trace(path: &Path, input: &mut dyn BufRead) -> Result<Vec<crate::sched::simulate::Arrival>, Error> {
    let name = || if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        input.read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|source| Error::Read { path: name(), source })?;
    parse_trace(&text).map_err(|source| Error::Trace { path: name(), source })
}

/// Part of `whole` in per cent; 0 of nothing.
fn per_cent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { 0.0 }
}

fn text(kind: SchedulerKind, o: &Outcome) -> String {
    let mut out = String::new();
    let rate = if o.duration_s > 0.0 { o.arrivals as f64 / o.duration_s } else { 0.0 };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{kind}: {} connections in {:.1} s, {rate:.1} a second", o.arrivals, o.duration_s);
    let _ = writeln!(
        out,
        "refused: {} ({:.2} %), most active at a time: {}\n",
        o.refused,
        per_cent(o.refused as f64, o.arrivals as f64),
        o.peak_active
    );
    let weights: f64 = o.servers.iter().map(|s| f64::from(s.weight)).sum();
    let most = o.servers.iter().map(|s| s.connections).max().unwrap_or(0).max(1);
    let _ = writeln!(out, "Server     Weight  Conns       Share   Fair    Active: mean    peak  InAct: peak  Overload");
    for s in o.servers.iter().rev() {
        let bar = "#".repeat((s.connections * 20).div_ceil(most) as usize);
        let line = format!(
            "{:<10} {:<7} {:<11} {:>5.1} % {:>5.1} % {:>13.1} {:>7} {:>12} {:>7.1} s  {bar}",
            s.key,
            s.weight,
            s.connections,
            per_cent(s.connections as f64, (o.arrivals - o.refused) as f64),
            per_cent(f64::from(s.weight), weights),
            s.mean_active,
            s.peak_active,
            s.peak_inactive,
            s.overloaded_s,
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    histogram(&mut out, &o.histogram);
    out
}

fn histogram(out: &mut String, counts: &[u64]) {
    let all: u64 = counts.iter().sum();
    let (Some(first), Some(last)) = (counts.iter().position(|c| *c > 0), counts.iter().rposition(|c| *c > 0)) else {
        return;
    };
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let _ = writeln!(out, "\nActive connections of a server, in per cent of its fair share at that moment:");
    for (step, count) in counts.iter().enumerate().take(last + 1).skip(first) {
        let from = step as u64 * Outcome::STEP;
        let range = if step + 1 == Outcome::STEPS { format!("{from}-") } else { format!("{from}-{}", from + Outcome::STEP - 1) };
        let bar = "#".repeat((count * 50).div_ceil(most) as usize);
        let _ = writeln!(out, "{}", format!("{range:>9} {:>6.1} % {bar}", per_cent(*count as f64, all as f64)).trim_end());
    }
}

#[derive(Serialize)]
struct JsonServer {
    server: u32,
    weight: u32,
    connections: u64,
    peak_active: u64,
    peak_inactive: u64,
    mean_active: f64,
    overloaded_s: f64,
}

#[derive(Serialize)]
struct JsonStep {
    from_per_cent: u64,
    samples: u64,
}

#[derive(Serialize)]
struct JsonOutcome<'a> {
    scheduler: &'a str,
    connections: u64,
    refused: u64,
    duration_s: f64,
    peak_active: u64,
    servers: Vec<JsonServer>,
    histogram: Vec<JsonStep>,
}

fn json(kind: SchedulerKind, o: &Outcome) -> String {
    let server = |s: &crate::sched::simulate::ServerOutcome| JsonServer {
        server: s.key,
        weight: s.weight,
        connections: s.connections,
        peak_active: s.peak_active,
        peak_inactive: s.peak_inactive,
        mean_active: s.mean_active,
        overloaded_s: s.overloaded_s,
    };
    let all = JsonOutcome {
        scheduler: kind.name(),
        connections: o.arrivals,
        refused: o.refused,
        duration_s: o.duration_s,
        peak_active: o.peak_active,
        servers: o.servers.iter().rev().map(server).collect(),
        histogram: (0..)
            .step_by(Outcome::STEP as usize)
            .zip(&o.histogram)
            .map(|(from_per_cent, samples)| JsonStep { from_per_cent, samples: *samples })
            .collect(),
    };
    super::json::document(&all).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn output(words: &str) -> Result<String, String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Simulate,
        }
        let line = Line::try_parse_from(["simulate"].into_iter().chain(words.split_whitespace())).map_err(|e| e.to_string())?;
        report(&line.args, &mut &b""[..]).map_err(|e| e.to_string())
    }

    #[test]
    fn a_trace_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        std::fs::write(&path, "0 10\n1 10\n2 10\n3 10\n").unwrap();
        let shown = output(&format!("-s rr --server 1 --server 3 --trace {}", path.display())).unwrap();
        // Sampled once, after three connections: the servers have one and two of them, and are due 0.75 and 2.25.
        let expected = "\
rr: 4 connections in 3.0 s, 1.3 a second
refused: 0 (0.00 %), most active at a time: 4

Server     Weight  Conns       Share   Fair    Active: mean    peak  InAct: peak  Overload
1          1       2            50.0 %  25.0 %           0.7       2            0     0.0 s  ####################
2          3       2            50.0 %  75.0 %           1.3       2            0     0.0 s  ####################

Active connections of a server, in per cent of its fair share at that moment:
    80-99   50.0 % ##################################################
  100-119    0.0 %
  120-139   50.0 % ##################################################
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_scheduler_runs_and_repeats() {
        for kind in SchedulerKind::ALL {
            let words = format!("-s {kind} --equal 5 --server 3:40 --duration 5 --rate 50");
            let once = output(&words).unwrap();
            assert_eq!(once, output(&words).unwrap(), "{kind}");
            assert!(once.lines().count() > 9, "{once}");
            let value: serde_json::Value = serde_json::from_str(&output(&(words + " --json")).unwrap()).unwrap();
            assert_eq!(value["scheduler"], kind.name());
            assert_eq!(value["servers"].as_array().unwrap().len(), 6);
            crate::cli::json::tests::check("lvxadm simulate --json", &value.to_string());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, reason) in [
            ("", "no server"),
            ("--equal 20000", "more than"),
            ("--equal 2 -s best", "the schedulers are rr, wrr"),
            ("--equal 2 -s rr -b sh-port", "`sh-port` is no flag of rr"),
            ("--equal 2 -s mh --mh-tab-index 7", "not a number from 8 to 17"),
            ("--server 1:2:3", "lower threshold"),
            ("--server x", "WEIGHT"),
            ("--equal 2 --rate 0", "not above 0"),
            ("--equal 2 --rate nan", "not a number"),
            ("--equal 2 --hold uniform:3", "pareto:SHAPE:SMALLEST"),
            ("--equal 2 --rate 1000000 --duration 1000000", "are more than"),
            ("--equal 2 --trace /nonexistent/trace", "reading /nonexistent/trace"),
            ("--equal 2 --trace x --rate 3", "cannot be used with"),
        ] {
            let e = output(words).expect_err(words);
            assert!(e.contains(reason), "{words}: {e}");
        }
    }
}
