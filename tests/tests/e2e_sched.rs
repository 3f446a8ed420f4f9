//! Every scheduler, connection by connection, against what the kernel's IPVS was recorded to choose: real TCP connections through XDP,
//! the recorded commands, the recorded lists.

use anyhow::{Context, Result};
use lvx_tests::lab::{Lab, Layout, Method, Nginx, Ns, ask, connected, possible, until};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

const TEXT: &str = include_str!("../../lb-userspace/tests/golden/sequences.txt");

#[derive(Debug)]
enum Step {
    /// `ipvsadm` with these words.
    Command(String),
    /// What the line says before the choices, and the choices; `None` is refused.
    Choices(String, Vec<Option<u32>>),
    /// The list that the command before printed.
    List(String),
}

/// The cases about schedulers: title and steps.
fn cases() -> Vec<(String, Vec<Step>)> {
    let mut cases: Vec<(String, Vec<Step>)> = Vec::new();
    for line in TEXT.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push((title.to_owned(), Vec::new()));
            continue;
        }
        let Some((_, steps)) = cases.last_mut() else { continue };
        if let Some(command) = line.strip_prefix("$ ipvsadm ") {
            steps.push(Step::Command(command.to_owned()));
            if command.starts_with("-L") {
                steps.push(Step::List(String::new()));
            }
            continue;
        }
        let (label, list) = line.rsplit_once(": ").unwrap_or(("", line));
        let choice = |w: &str| match w {
            "ECONNREFUSED" => Some(None),
            w => w.parse().ok().filter(|n| (1..=3).contains(n)).map(Some),
        };
        let words: Vec<&str> = list.split_whitespace().collect();
        let choices: Option<Vec<_>> = words.iter().map(|w| choice(w)).collect();
        match (choices, steps.last_mut()) {
            (Some(c), _) if !c.is_empty() => steps.push(Step::Choices(label.to_owned(), c)),
            (_, Some(Step::List(text))) if !line.is_empty() && !line.starts_with('#') => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    cases
}

struct Replay<'a> {
    title: &'a str,
    client: &'a Ns,
    service: Option<SocketAddrV4>,
    held: Vec<(u32, TcpStream)>,
    next_port: u16,
    lists: u32,
}

impl Replay<'_> {
    fn source(&mut self, label: &str, i: usize) -> SocketAddrV4 {
        let mut port = 0;
        let host = if label.starts_with("same source 10.1.0.11") {
            11
        } else if self.title.contains("source addresses") {
            11 + i as u8
        } else {
            port = if self.title.contains("source ports 31000") { 31000 + i as u16 } else { self.next_port };
            self.next_port += 1;
            2
        };
        SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, host), port)
    }

    fn choices(&mut self, label: &str, expected: &[Option<u32>], held: bool) -> Result<()> {
        let service = self.service.context("choices before a service")?;
        let mut chosen = Vec::new();
        for i in 0..expected.len() {
            let source = self.source(label, i);
            match connected(self.client, source, service)? {
                None => chosen.push(None),
                Some(mut stream) => {
                    let server = ask(&mut stream)?;
                    chosen.push(Some(server));
                    if held {
                        self.held.push((server, stream));
                    } else {
                        drop(stream);
                        // The recording waited that long after each close.
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            // A plan follows a change of counters within a millisecond; the machine may be busy.
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(chosen, expected, "{}: {label}", self.title);
        Ok(())
    }

    fn close(&mut self, server: u32) {
        self.held.retain(|(n, _)| *n != server);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The address and port behind `-t`.
fn service_of(command: &str) -> Option<SocketAddrV4> {
    let mut words = command.split_whitespace();
    words.find(|w| *w == "-t")?;
    words.next()?.parse().ok()
}

fn replay(method: Method, wanted: impl Fn(&str) -> bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let lab = Lab::new(Layout::TwoArms, method, 3)?;
    if method != Method::Nat {
        for s in &lab.servers {
            for vip in ["10.9.0.11/32", "10.9.0.12/32"] {
                s.ip(&format!("addr add {vip} dev lo"))?;
            }
        }
    }
    for host in 11..=34 {
        lab.client.ip(&format!("addr add 10.1.0.{host}/24 dev eth0"))?;
    }
    let _nginx: Vec<_> = lab
        .servers
        .iter()
        .enumerate()
        .map(|(i, s)| Nginx::start(s, &format!("server-{i}\n"), &[80, 8000, 8080]))
        .collect::<Result<Vec<_>>>()?;
    let lvxd = lab.start()?;
    let mut played = 0;
    // Ever new ones: what a server answers to one port of the client belongs to one connection alone.
    let mut next_port = 40000;
    for (title, steps) in cases() {
        // Marks come in their own time.
        if !wanted(&title) || title.contains("fwmark") {
            continue;
        }
        played += 1;
        let held = title.contains("held") || title.contains("hold 9");
        let mut r = Replay { title: &title, client: &lab.client, service: None, held: Vec::new(), next_port, lists: 0 };
        let mut list = String::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Command(c) => {
                    if c.starts_with("-A") {
                        r.service = service_of(c);
                    }
                    if c.starts_with("-L") && title.contains("hold 9") {
                        // Between two lists, or before the next choices, connections were closed.
                        r.lists += 1;
                        match r.lists {
                            2 => r.close(1),
                            3 => r.close(3),
                            _ => {}
                        }
                    }
                    list = lvxd.adm(c)?;
                    if c.starts_with("-a") {
                        until(Duration::from_secs(5), || {
                            let all = lvxd.adm("-L -n --json")?;
                            anyhow::ensure!(!all.contains("\"resolved\": false"), "{all}");
                            Ok(())
                        })?;
                    }
                }
                Step::List(expected) => assert_eq!(&list, expected, "{title}: step {at}"),
                Step::Choices(label, expected) => r.choices(label, expected, held)?,
            }
        }
        next_port = r.next_port;
        lvxd.adm("-C")?;
    }
    assert!(played > 0);
    Ok(())
}

fn scheduler(title: &str) -> &str {
    title.split([',', ' ']).next().unwrap_or_default()
}

macro_rules! schedulers {
    ($($test:ident $($name:literal)*;)*) => {$(
        #[test]
        fn $test() -> Result<()> {
            replay(Method::Nat, |title| [$($name),*].contains(&scheduler(title)))
        }
    )*};
}

schedulers! {
    rr_and_wrr "rr" "wrr";
    lc_and_wlc "lc" "wlc";
    sed_and_nq "sed" "nq";
    sh_and_dh "sh" "dh";
    mh "mh";
    fo_and_ovf "fo" "ovf";
    lblc_and_lblcr "lblc" "lblcr";
}

/// The same choices where servers answer the client themselves.
#[test]
fn wrr_and_wlc_by_direct_routing() -> Result<()> {
    replay(Method::Dr, |title| title.starts_with("DR: wrr") || title.starts_with("DR: wlc"))
}

#[test]
fn wlc_through_tunnels() -> Result<()> {
    replay(Method::Tun, |title| title.starts_with("TUN: wlc"))
}

/// Every recorded case is replayed here, or left out by name: those on firewall marks, and those that are about something else than
/// schedulers, which `e2e_recorded`, `packets_edges`, `packets_persist` and `packets_once` have.
#[test]
fn no_recorded_case_is_forgotten() {
    let here = ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "fo", "ovf", "lblc", "lblcr"];
    let marks = ["dh on a fwmark service", "lblc on a fwmark service"];
    let elsewhere = [
        "service ",
        "no service ",
        "server ",
        "thresholds:",
        "persistence:",
        "UDP:",
        "timeouts:",
        "DR: --set",
        "does --set",
        "TCP states",
        "DR: rr",
        "TUN: rr",
        "mixed:",
    ];
    let (mut played, mut marked) = (0, 0);
    for (title, steps) in cases() {
        if marks.iter().any(|m| title.starts_with(m)) {
            marked += 1;
        } else if here.contains(&scheduler(&title)) || ["DR: wrr", "DR: wlc", "TUN: wlc"].iter().any(|t| title.starts_with(t)) {
            assert!(steps.iter().any(|s| matches!(s, Step::Choices(..))), "{title}: nothing to compare");
            played += 1;
        } else {
            assert!(elsewhere.iter().any(|t| title.starts_with(t)), "{title}: neither replayed nor left out");
        }
    }
    assert_eq!((played, marked), (41, 2));
}
