//! Histories of a virtual service, to be lived through by a kernel's IPVS, by LVX, and by LVX's schedulers alone, and compared choice
//! by choice.
//!
//! A [`History`] is one service with its scheduler and what happens to it, step by step: servers come, change and go, connections are
//! made, closed and reset, the scheduler is changed. It is one line of text, with the answers of whoever lived through it:
//!
//! ```text
//! 17 tcp4 wlc: a1/2 a2/1/5/3 +9>1 +9>2 r0 sh,port +4>- e1/0 =2:1/0,1:0/1 w d2
//! ```
//!
//! | step | meaning |
//! |---|---|
//! | `aN/W`, `aN/W/U/L` | server N is added with weight W, thresholds U and L |
//! | `eN/...` | it is edited |
//! | `dN` | it is removed |
//! | `sNAME,port,fallback` | the service is edited: scheduler and flags |
//! | `+C`, `+C@D` | client C connects (to the D-th address of a service by mark); `>N` says which server it got, `>-` none |
//! | `fK`, `rK` | connection K (counted from 0, refused ones too) is closed, or reset by its client |
//! | `xN` | all connections of server N are closed |
//! | `=` | `N:A/I,...`: servers, newest first, with active and inactive connections; `=-` if there are none |
//! | `w` | so long a pause that reset connections, and no others, are forgotten |
//!
//! The trap: the history's number is part of it, as the service's address comes from it, and `dh` hashes that.

pub mod generate;
pub mod guest;
pub mod ipvs;
pub mod law;
pub mod lvx;
pub mod model;
pub mod player;
pub mod tap;

use anyhow::{Context, Result, bail};
use lb_userspace::model::{Protocol, SchedFlags, SchedulerKind};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Port of every service.
pub const PORT: u16 = 80;
/// Port of every server.
pub const SERVER_PORT: u16 = 8000;

/// A scheduler and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Its name.
    pub kind: SchedulerKind,
    /// Its flags.
    pub flags: SchedFlags,
}

/// Weight and thresholds of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Weight.
    pub weight: u32,
    /// Upper threshold; 0 is none.
    pub upper: u32,
    /// Lower threshold; 0 is none.
    pub lower: u32,
}

/// Active and inactive connections of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// Which.
    pub server: u32,
    /// Active ones.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A server is added.
    Add(u32, Setting),
    /// A server is edited.
    Edit(u32, Setting),
    /// A server is removed.
    Delete(u32),
    /// The service is edited.
    Schedule(Schedule),
    /// A client connects.
    Connect {
        /// Which.
        client: u32,
        /// To which address of a service by mark.
        to: u32,
        /// `None` until somebody lived through it; `Some(None)` if refused.
        got: Option<Option<u32>>,
    },
    /// A connection is closed.
    Close(usize),
    /// A connection is reset.
    Reset(usize),
    /// All connections of a server are closed.
    CloseAll(u32),
    /// Counters are looked at.
    Counts(Option<Vec<Count>>),
    /// A pause.
    Wait,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// Its number.
    pub number: u32,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// IPv6.
    pub v6: bool,
    /// The service is one by mark, for many addresses.
    pub mark: bool,
    /// What it begins with.
    pub schedule: Schedule,
    /// What happens.
    pub steps: Vec<Step>,
}

impl History {
    /// The service's address; that number `to` of a service by mark.
    #[must_use]
    pub fn vip(&self, to: u32) -> IpAddr {
        let [_, _, high, low] = self.number.to_be_bytes();
        if self.v6 {
            return Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, self.number as u16, 1 + to as u16).into();
        }
        Ipv4Addr::new(10, 0x80 | high, low, 1 + to as u8).into()
    }

    /// A server's address.
    #[must_use]
    pub fn server(&self, number: u32) -> IpAddr {
        if self.v6 {
            return Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, number as u16).into();
        }
        Ipv4Addr::new(10, 2, (number >> 8) as u8, number as u8).into()
    }

    /// A client's address.
    #[must_use]
    pub fn client(&self, number: u32) -> IpAddr {
        if self.v6 {
            return Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 1, number as u16).into();
        }
        Ipv4Addr::new(10, 1, 1 + (number >> 8) as u8, number as u8).into()
    }

    /// The number of the server at an address.
    #[must_use]
    pub fn number_of(&self, server: IpAddr) -> Option<u32> {
        (0..1000).find(|n| self.server(*n) == server)
    }

    /// The client's port of a connection.
    #[must_use]
    pub fn client_port(connection: usize) -> u16 {
        10_000 + connection as u16
    }

    /// The history up to and including a step.
    #[must_use]
    pub fn prefix(&self, step: usize) -> Self {
        Self { steps: self.steps[..=step].to_vec(), ..self.clone() }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        for (flag, name) in [(SchedFlags::PORT, ",port"), (SchedFlags::FALLBACK, ",fallback")] {
            if self.flags.contains(flag) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        let mut words = s.split(',');
        let name = words.next().unwrap_or_default();
        let kind = name.parse().ok().with_context(|| format!("no scheduler {name:?}"))?;
        let mut flags = 0;
        for word in words {
            flags |= match word {
                "port" => SchedFlags::PORT.0,
                "fallback" => SchedFlags::FALLBACK.0,
                _ => bail!("no flag {word:?}"),
            };
        }
        Ok(Self { kind, flags: SchedFlags(flags) })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.weight)?;
        if self.upper != 0 || self.lower != 0 {
            write!(f, "/{}/{}", self.upper, self.lower)?;
        }
        Ok(())
    }
}

fn numbers<const N: usize>(s: &str) -> Result<[u32; N]> {
    let mut all = [0; N];
    let mut parts = s.split('/');
    for n in &mut all {
        let Some(part) = parts.next() else { break };
        *n = part.parse().with_context(|| format!("no number {part:?}"))?;
    }
    if parts.next().is_some() {
        bail!("too many numbers in {s:?}");
    }
    Ok(all)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(n, s) => write!(f, "a{n}{s}"),
            Self::Edit(n, s) => write!(f, "e{n}{s}"),
            Self::Delete(n) => write!(f, "d{n}"),
            Self::Schedule(s) => write!(f, "s{s}"),
            Self::Connect { client, to, got } => {
                write!(f, "+{client}")?;
                if *to != 0 {
                    write!(f, "@{to}")?;
                }
                match got {
                    None => Ok(()),
                    Some(None) => f.write_str(">-"),
                    Some(Some(n)) => write!(f, ">{n}"),
                }
            }
            Self::Close(k) => write!(f, "f{k}"),
            Self::Reset(k) => write!(f, "r{k}"),
            Self::CloseAll(n) => write!(f, "x{n}"),
            Self::Counts(None) => f.write_char('='),
            Self::Counts(Some(counts)) if counts.is_empty() => f.write_str("=-"),
            Self::Counts(Some(counts)) => {
                let one = |c: &Count| format!("{}:{}/{}", c.server, c.active, c.inactive);
                write!(f, "={}", counts.iter().map(one).collect::<Vec<_>>().join(","))
            }
            Self::Wait => f.write_char('w'),
        }
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        let mut chars = s.chars();
        let verb = chars.next().context("an empty step")?;
        let rest = chars.as_str();
        let number = || rest.parse::<u32>().with_context(|| format!("no number in {s:?}"));
        let server = || -> Result<(u32, Setting)> {
            let [n, weight, upper, lower] = numbers(rest)?;
            Ok((n, Setting { weight, upper, lower }))
        };
        Ok(match verb {
            'a' => server().map(|(n, s)| Self::Add(n, s))?,
            'e' => server().map(|(n, s)| Self::Edit(n, s))?,
            'd' => Self::Delete(number()?),
            's' => Self::Schedule(rest.parse()?),
            '+' => {
                let (who, got) = match rest.split_once('>') {
                    None => (rest, None),
                    Some((who, "-")) => (who, Some(None)),
                    Some((who, n)) => (who, Some(Some(n.parse().with_context(|| format!("no server in {s:?}"))?))),
                };
                let (client, to) = who.split_once('@').unwrap_or((who, "0"));
                Self::Connect { client: client.parse()?, to: to.parse()?, got }
            }
            'f' => Self::Close(number()? as usize),
            'r' => Self::Reset(number()? as usize),
            'x' => Self::CloseAll(number()?),
            '=' if rest.is_empty() => Self::Counts(None),
            '=' if rest == "-" => Self::Counts(Some(Vec::new())),
            '=' => {
                let one = |part: &str| -> Result<Count> {
                    let (n, counts) = part.split_once(':').with_context(|| format!("no counts in {part:?}"))?;
                    let [active, inactive] = numbers(counts)?;
                    Ok(Count { server: n.parse()?, active: active.into(), inactive: inactive.into() })
                };
                Self::Counts(Some(rest.split(',').map(one).collect::<Result<_>>()?))
            }
            'w' if rest.is_empty() => Self::Wait,
            _ => bail!("no such step: {s:?}"),
        })
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let (version, mark) = (if self.v6 { 6 } else { 4 }, if self.mark { "m" } else { "" });
        write!(f, "{} {protocol}{version}{mark} {}:", self.number, self.schedule)?;
        self.steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

impl FromStr for History {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        let (head, steps) = s.split_once(':').context("no colon")?;
        let mut words = head.split_whitespace();
        let mut word = || words.next().with_context(|| format!("too few words in {head:?}"));
        let number: u32 = word()?.parse().context("the history's number")?;
        let what = word()?;
        let (protocol, mark) = what.strip_suffix('m').map_or((what, false), |p| (p, true));
        let (protocol, v6) = match protocol {
            "tcp4" => (Protocol::Tcp, false),
            "tcp6" => (Protocol::Tcp, true),
            "udp4" => (Protocol::Udp, false),
            "udp6" => (Protocol::Udp, true),
            _ => bail!("no protocol {what:?}"),
        };
        let schedule = word()?.parse()?;
        let steps = steps.split_whitespace().map(str::parse).collect::<Result<_>>()?;
        Ok(Self { number, protocol, v6, mark, schedule, steps })
    }
}

/// Histories, one a line; empty lines and those with `#` in front are passed over.
///
/// # Errors
/// The line that is none.
pub fn parse_all(text: &str) -> Result<Vec<History>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(n, line)| line.parse().with_context(|| format!("line {}: {line:.80}", n + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_as_it_was() {
        let line = "17 tcp4 wlc: a1/2 a2/1/5/3 +9>1 +9@3>2 r0 f1 x2 ssh,port,fallback +4>- +5 e1/0 =2:1/0,1:0/1 = w d2 d1 =-";
        let history: History = line.parse().expect("a history");
        assert_eq!(history.to_string(), line);
        assert_eq!(history.steps[1], Step::Add(2, Setting { weight: 1, upper: 5, lower: 3 }));
        assert_eq!(history.steps[7], Step::Schedule("sh,fallback,port".parse().expect("a schedule")));
        for bad in [
            "",
            "1 tcp4 wlc",
            "x tcp4 wlc:",
            "1 sctp wlc:",
            "1 tcp4 best:",
            "1 tcp4 rr: q",
            "1 tcp4 rr: +1>x",
            "1 tcp4 rr: a1/2/3/4/5",
        ] {
            assert!(bad.parse::<History>().is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_histories_come_back_as_they_were() {
        for history in generate::histories(7, 0, 200) {
            assert_eq!(history.to_string().parse::<History>().expect("a history"), history);
        }
    }

    #[test]
    fn servers_are_known_by_their_addresses() {
        for v6 in [false, true] {
            let history = History { v6, ..generate::histories(1, 5, 1).remove(0) };
            assert_eq!(history.number_of(history.server(7)), Some(7));
            assert_ne!(history.vip(0), history.vip(1));
        }
    }
}
