//! Replays what a real IPVS was recorded to do (`tests/golden/sequences.txt`), choice by choice, against the definitions and
//! against plans.
//!
//! The file says what was done in commands and in prose: commands and sequences are parsed, and [`closing`] says in one table
//! which connections end where.

use super::plan::{Plan, Planner};
use super::*;
use crate::model::SchedFlags;
use std::collections::BTreeMap;
use std::str::FromStr;

const TEXT: &str = include_str!("../../tests/golden/sequences.txt");

/// A choice that was refused.
const REFUSED: u32 = 0;

#[derive(Debug)]
enum Step {
    Command(Vec<String>),
    /// What the line says before the choices, and the choices.
    Choices(String, Vec<u32>),
}

/// Title and steps of each case of the scheduler part.
fn cases() -> Vec<(String, Vec<Step>)> {
    let mut cases: Vec<(String, Vec<Step>)> = Vec::new();
    for line in TEXT.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push((title.to_owned(), Vec::new()));
            continue;
        }
        let Some((_, steps)) = cases.last_mut() else { continue };
        if let Some(command) = line.strip_prefix("$ ipvsadm ") {
            steps.push(Step::Command(command.split_whitespace().map(str::to_owned).collect()));
            continue;
        }
        let (label, list) = line.rsplit_once(": ").unwrap_or(("", line));
        let choice = |w: &str| match w {
            "ECONNREFUSED" => Some(REFUSED),
            w => w.parse().ok().filter(|n| (1..=3).contains(n)),
        };
        let words: Vec<&str> = list.split_whitespace().collect();
        if let Some(choices) = words.iter().map(|w| choice(w)).collect::<Option<Vec<u32>>>().filter(|c| !c.is_empty()) {
            steps.push(Step::Choices(label.to_owned(), choices));
        }
    }
    cases
}

/// A service as the recording had it.
struct Service {
    kind: SchedulerKind,
    flags: SchedFlags,
    servers: Vec<Server>,
    planner: Planner,
    plain: Box<dyn Scheduler>,
    pool: Pool,
    taken: u32,
    /// Held connections of each server.
    held: BTreeMap<u32, u64>,
}

impl Service {
    fn new(kind: SchedulerKind, flags: SchedFlags) -> Self {
        let planner = Planner::new(kind, flags);
        Self {
            kind,
            flags,
            servers: Vec::new(),
            planner,
            plain: build(kind, flags),
            pool: Pool::default(),
            taken: 0,
            held: BTreeMap::new(),
        }
    }

    fn told(&mut self) {
        let plain = &mut self.plain;
        self.pool.update(&self.servers, |pool, change| plain.changed(pool, change));
    }

    fn command(&mut self, words: &[String]) {
        let value = |flag: &str| words.iter().position(|w| w == flag).and_then(|i| words.get(i + 1));
        let number = |flag: &str| value(flag).map(|v| v.parse::<u32>().expect("a number"));
        let Some(real) = value("-r") else { return };
        let (address, port) = real.split_once(':').unwrap_or((real, "80"));
        let address = IpAddr::from_str(address).expect("an address");
        let key = match address {
            IpAddr::V4(a) => u32::from(a.octets()[3]) - 10,
            IpAddr::V6(_) => unreachable!("none was recorded"),
        };
        let weight = number("-w").unwrap_or(1);
        let (upper, lower) = (number("-x").unwrap_or(0), number("-y").unwrap_or(0));
        let at = self.servers.iter().position(|s| s.key == key);
        match (words[0].as_str(), at) {
            ("-a", None) => {
                let new = Server { upper, lower, ..Server::new(key, address, port.parse().expect("a port"), weight) };
                self.servers.insert(0, new);
            }
            ("-e", Some(at)) => {
                let s = &mut self.servers[at];
                if upper == 0 || upper > s.upper {
                    s.overloaded = false;
                }
                (s.weight, s.upper, s.lower) = (weight, upper, lower);
            }
            ("-d", Some(at)) => {
                self.servers.remove(at);
            }
            other => panic!("{other:?}"),
        }
        self.told();
        let draft = self.planner.draft(&self.servers, &vip(), self.taken);
        self.planner.commit(draft);
        self.taken = 0;
    }

    /// One connection of the definition and of the plan, which must be one another's; counts it as active.
    fn connect(&mut self, flow: &Flow) -> u32 {
        let at = self.plain.schedule(&self.pool, flow);
        let draft = self.planner.draft(&self.servers, flow, self.taken);
        self.planner.commit(draft);
        let planned = match self.planner.plan() {
            Plan::Table(table) => table.choose(&self.pool, flow).map(|at| self.servers[at].key),
            Plan::Sequence { picks, .. } => {
                // As the packet path does: pass over what is overloaded.
                let usable = |key: &u32| self.pool.get(*key).is_some_and(Server::usable);
                let skipped = picks.iter().position(usable);
                self.taken = skipped.map_or(0, |n| n as u32 + 1);
                skipped.map(|n| picks[n])
            }
        };
        let chosen = at.map(|at| self.servers[at].key);
        assert_eq!(planned, chosen, "plan against definition");
        if let Some(at) = at {
            self.servers[at].active += 1;
            self.settle(at);
            *self.held.entry(self.servers[at].key).or_default() += 1;
        }
        chosen.unwrap_or(REFUSED)
    }

    /// Ends `n` connections of a server: they stay as inactive ones.
    fn close(&mut self, key: u32, n: u64) {
        let held = self.held.entry(key).or_default();
        let n = n.min(*held);
        *held -= n;
        if let Some(at) = self.servers.iter().position(|s| s.key == key) {
            self.servers[at].active -= n;
            self.servers[at].inactive += n;
            self.settle(at);
        }
    }

    /// Ends `n` connections of a server, and their entries with them.
    fn expire(&mut self, key: u32, n: u64) {
        self.close(key, n);
        let at = self.servers.iter().position(|s| s.key == key).expect("it is there");
        self.servers[at].inactive -= n;
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        let s = &mut self.servers[at];
        s.overloaded = lb_common::dest::overloaded(s.overloaded, s.active + s.inactive, s.upper, s.lower);
        self.told();
    }
}

fn vip() -> Flow {
    Flow::to(IpAddr::from([10, 9, 0, 10]), 0)
}

/// The flow of the `n`-th connection of a sequence.
fn flow(title: &str, label: &str, n: usize) -> Flow {
    let n = n as u16;
    let (client, client_port) = if label.starts_with("same source") {
        ([10, 1, 0, 11], 30_000 + n)
    } else if title.contains("one source 10.1.0.2, source ports 31000") {
        ([10, 1, 0, 2], 31_000 + n)
    } else if title.contains("24 source addresses") {
        ([10, 1, 0, 11 + n as u8], 30_000)
    } else {
        ([10, 1, 0, 2], 20_000 + n)
    };
    Flow { client: IpAddr::from(client), client_port, ..vip() }
}

/// What happens after a sequence of choices: (server, how many of its held connections end), and whether their entries go too.
fn closing(title: &str, label: &str, choices: usize) -> (Vec<(u32, u64)>, bool) {
    const ALL: u64 = u64::MAX;
    if title.contains("hold 9; close those on rs1") {
        return match label {
            "9 held" => (vec![(1, ALL)], false),
            _ if choices == 6 => (vec![(3, ALL)], false),
            _ => (vec![], false),
        };
    }
    if title.starts_with("thresholds: rr") {
        return match label {
            "10 new, held" => (vec![(1, 1)], false),
            l if l.starts_with("one on rs1 closed") => (vec![(1, 1)], false),
            l if l.starts_with("second on rs1 closed") => (vec![(2, 1)], false),
            _ => (vec![], false),
        };
    }
    if title.starts_with("thresholds: overload ends") {
        return match label {
            // At once nothing expired yet; what is refused meanwhile is not looked at.
            l if l.starts_with("one of each reset") => (vec![(1, 1), (2, 1), (3, 1)], true),
            l if l.starts_with("12 s later") => (vec![(1, 1), (2, 1)], true),
            _ => (vec![], false),
        };
    }
    let held = title.contains("held") || title.starts_with("fo") || title.contains("mark");
    (if held { vec![] } else { vec![(1, ALL), (2, ALL), (3, ALL)] }, false)
}

/// Whether a connection ends before the next one begins.
fn closes_each(title: &str) -> bool {
    title.contains("closed") && !title.contains("overload ends")
}

/// Replays the cases that `chosen` takes; gives the number of them and of choices.
fn replay(chosen: impl Fn(&str) -> bool) -> (usize, usize) {
    let (mut replayed, mut choices_seen) = (0, 0);
    for (title, steps) in cases().into_iter().filter(|(title, _)| chosen(title)) {
        replayed += 1;
        let mut service: Option<Service> = None;
        for step in steps {
            match step {
                Step::Command(words) if words[0] == "-A" => {
                    let after = |flag: &str| words.iter().position(|w| w == flag).and_then(|i| words.get(i + 1));
                    let kind = after("-s").map_or(SchedulerKind::Wlc, |s| s.parse().expect("a scheduler"));
                    let flags = after("-b").map_or(0, |b| {
                        b.split(',').map(|f| if f.ends_with("port") { SchedFlags::PORT.0 } else { SchedFlags::FALLBACK.0 }).sum()
                    });
                    service = Some(Service::new(kind, SchedFlags(flags)));
                }
                Step::Command(words) if matches!(words[0].as_str(), "-a" | "-e" | "-d") => {
                    service.as_mut().expect("a service").command(&words);
                }
                Step::Command(_) => {}
                Step::Choices(label, choices) => {
                    if title.contains("server deleted while") && label.starts_with("request on each") {
                        continue;
                    }
                    let service = service.as_mut().expect("a service");
                    let mut got = Vec::new();
                    for n in 0..choices.len() {
                        let mut flow = flow(&title, &label, n);
                        if title.contains("24 VIPs") {
                            flow.destination = IpAddr::from([10, 9, 0, 10 + n as u8]);
                        }
                        let key = service.connect(&flow);
                        if closes_each(&title) {
                            service.close(key, 1);
                        }
                        got.push(key);
                    }
                    assert_eq!(got, choices, "{title}: {label} ({} {:?})", service.kind, service.flags);
                    choices_seen += choices.len();
                    let (ends, expire) = closing(&title, &label, choices.len());
                    for (key, n) in ends {
                        if expire { service.expire(key, n) } else { service.close(key, n) }
                    }
                }
            }
        }
    }
    (replayed, choices_seen)
}

/// Cases that say something about choices and not about packets, timeouts or persistence.
fn is_about_choices(title: &str) -> bool {
    let first = title.split([' ', ',']).next().unwrap_or("");
    first.parse::<SchedulerKind>().is_ok() || title.starts_with("thresholds:") || title.starts_with("server deleted while")
}

#[test]
fn recorded_choices_are_reproduced() {
    let by_mark = |title: &str| title.contains("fwmark service");
    let (cases, choices) = replay(|title| is_about_choices(title) && !by_mark(title));
    assert_eq!((cases, choices), (41, 984), "the file was not read right");
}

/// Services by firewall mark are not there yet; their schedulers are.
#[test]
fn recorded_choices_by_destination_are_reproduced() {
    let (cases, choices) = replay(|title| title.contains("fwmark service"));
    assert_eq!((cases, choices), (2, 96));
}
