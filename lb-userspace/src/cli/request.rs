//! What a command line asks for, checked as far as can be without the daemon.

use super::Name;
use super::build::build;
use super::names::Names;
use super::options::{ABOUTS, About, COMMANDS, Command, Fit, OPTIONS, Tag, fit};
use super::popt::{Found, Popt};
use super::values::{address, number, sched_flags};
use crate::model::{DEFAULT_PERSISTENCE_S, Edit, Forwarding, MAX_TIMEOUT_S, Protocol, SchedFlags, ServiceId, Timeouts};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A command line that is refused: exit status and text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Exit status.
    pub status: u8,
    /// For stderr; may be empty.
    pub text: String,
}

impl Failure {
    /// A failure with this status.
    pub fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Output that cannot be written. Where nobody reads on, as behind `| head`, that is no reason to complain, and the status is
    /// that of a program which the closed pipe ended.
    #[must_use]
    pub fn output(e: &std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(128 + 13, "");
        }
        Self::new(1, format!("writing: {e}"))
    }
}

/// How lists are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    about: BTreeSet<About>,
}

impl Format {
    /// With these options.
    #[must_use]
    pub fn of(about: impl IntoIterator<Item = About>) -> Self {
        Self { about: about.into_iter().collect() }
    }

    /// Whether an option was given.
    #[must_use]
    pub fn has(&self, about: About) -> bool {
        self.about.contains(&about)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A change.
    Edit(Edit),
    /// `-L`, of one service or all.
    List(Format, Option<ServiceId>),
    /// `-L -c`
    Connections(Format),
    /// `-L --timeout`
    Timeouts(Format),
    /// `-L --daemon`
    Daemon(Format),
    /// `-S`
    Save(Format),
    /// `-R`
    Restore {
        /// In place of what there is, and comments are passed over: `ipvsadm-restore`.
        replace: bool,
    },
    /// `-Z`
    Zero(Option<ServiceId>),
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// A request and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What.
    pub request: Request,
    /// `--socket`
    pub socket: Option<PathBuf>,
}

/// The first word has to be a command. ipvsadm does not say what it took for none.
fn no_command(name: Name, why: impl std::fmt::Display) -> Failure {
    Failure::new(
        255,
        match name {
            Name::Ipvsadm => "Try `ipvsadm -h' or 'ipvsadm --help' for more information.".to_owned(),
            Name::Lvxadm => format!("{why}; `lvxadm --help' lists commands and options"),
        },
    )
}

pub(super) fn refuse<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(2, text))
}

/// What the words said, in the order of the struct and not of the words.
#[derive(Default)]
pub(super) struct Words {
    pub(super) given: BTreeSet<About>,
    pub(super) protocol: Option<Protocol>,
    pub(super) service: Option<(IpAddr, Option<u16>)>,
    pub(super) server: Option<(IpAddr, Option<u16>)>,
    pub(super) scheduler: String,
    pub(super) flags: SchedFlags,
    pub(super) persistence_s: Option<u32>,
    pub(super) netmask: Option<String>,
    pub(super) tunnel: Option<String>,
    pub(super) forwarding: Option<Forwarding>,
    pub(super) weight: Option<u32>,
    pub(super) upper: u32,
    pub(super) lower: u32,
    pub(super) socket: Option<PathBuf>,
    pub(super) unsupported: Option<String>,
    pub(super) engine: Option<String>,
    pub(super) timeouts: Option<Timeouts>,
}

impl Words {
    /// Something that LVX has not got; the first one is named.
    fn has_not(&mut self, what: impl Into<String>) {
        self.unsupported.get_or_insert(what.into());
    }

    fn once(&mut self, about: About) -> Result<(), Failure> {
        if self.given.insert(about) { Ok(()) } else { refuse(format!("multiple '{}' options specified", ABOUTS[about as usize])) }
    }
}

/// Reads a command line, without the program's name.
///
/// # Errors
/// As ipvsadm refuses it, or because LVX has not got something.
pub fn parse(words: &[String], names: &Names, name: Name) -> Result<Line, Failure> {
    let mut popt = Popt::new(OPTIONS, words.iter().cloned());
    let mut w = Words::default();
    let bad = |e: super::popt::PoptError| Failure::new(255, e.to_string());
    let command = loop {
        match popt.next_option().map_err(|e| no_command(name, e))? {
            // LVX's own may stand anywhere.
            Some(Found { tag: Tag::Socket, argument, .. }) => w.socket = argument.map(PathBuf::from),
            Some(Found { tag: Tag::Command(c), argument, .. }) => {
                if matches!(c, Command::StartDaemon | Command::StopDaemon) {
                    let which = argument.unwrap_or_default();
                    if which != "master" && which != "backup" {
                        let start = c == Command::StartDaemon;
                        return refuse(if start {
                            "illegal start-daemon parameter specified"
                        } else {
                            "illegal start_daemon specified"
                        });
                    }
                    w.has_not("connection synchronization daemon (--start-daemon, --stop-daemon)");
                }
                break c;
            }
            Some(Found { tag: Tag::Help, .. }) => return Ok(Line { request: Request::Help, socket: w.socket }),
            Some(Found { tag: Tag::Version, .. }) => return Ok(Line { request: Request::Version, socket: w.socket }),
            None if words.is_empty() || w.socket.is_some() && popt.rest.is_empty() => {
                return Ok(Line { request: Request::List(Format::default(), None), socket: w.socket });
            }
            Some(found) => return Err(no_command(name, format!("`{}' comes before any command", found.written))),
            None => return Err(no_command(name, "no command is given")),
        }
    };
    while let Some(found) = popt.next_option().map_err(bad)? {
        take(&mut w, found, names)?;
    }
    if command == Command::Set {
        let values: Vec<String> = popt.rest.drain(..popt.rest.len().min(3)).collect();
        let [tcp, tcpfin, udp] = values.as_slice() else { return refuse("--set option requires 3 timeout values") };
        w.timeouts = Some(Timeouts { tcp: timeout(tcp, 0)?, tcpfin: timeout(tcpfin, 0)?, udp: timeout(udp, 0)? });
    }
    if let Some(word) = popt.rest.front() {
        return refuse(format!("unexpected argument {word}"));
    }
    check(command, &w.given)?;
    let socket = w.socket.take();
    Ok(Line { request: build(command, &w)?, socket })
}

fn timeout(text: &str, min: i64) -> Result<u32, Failure> {
    match number(text, min, i64::from(MAX_TIMEOUT_S)) {
        Some(n) => Ok(n as u32),
        None => refuse(format!("invalid timeout value `{text}' specified")),
    }
}

fn take(w: &mut Words, found: Found<Tag>, names: &Names) -> Result<(), Failure> {
    let given = found.argument.is_some();
    let argument = found.argument.unwrap_or_default();
    let number = |max: i64, what: &str| number_from(&argument, 0, max, what);
    const INT: i64 = i32::MAX as i64;
    match found.tag {
        Tag::Socket => w.socket = Some(argument.into()),
        Tag::Sort => {}
        Tag::ServiceAddress(protocol) => {
            w.once(About::Service)?;
            w.protocol = Some(protocol);
            w.service = Some(virtual_address(&argument, protocol, names)?);
        }
        Tag::Sctp => {
            w.once(About::Service)?;
            w.protocol = Some(Protocol::Tcp);
            w.service = Some(virtual_address(&argument, Protocol::Tcp, names)?);
            w.has_not("SCTP (--sctp-service)");
        }
        Tag::Fwmark => {
            w.once(About::Service)?;
            if super::values::number(&argument, 1, i64::from(u32::MAX)).is_none() {
                return refuse(format!("invalid fwmark value `{argument}' specified"));
            }
            w.protocol = Some(Protocol::Tcp);
            w.service = Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), Some(1)));
            w.has_not("firewall-mark service (--fwmark-service)");
        }
        Tag::Ipv6 => {
            if w.unsupported.is_none() {
                return refuse("-6 used before -f\n");
            }
        }
        Tag::Forward(f) => {
            w.once(About::Forward)?;
            w.forwarding = Some(f);
        }
        Tag::Plain(about) => {
            w.once(about)?;
            match about {
                About::Scheduler => w.scheduler = argument,
                About::Persistent => {
                    w.persistence_s = Some(if given { timeout(&argument, 1)? } else { DEFAULT_PERSISTENCE_S });
                }
                About::Netmask => w.netmask = Some(argument),
                About::Server => match address(&argument, w.protocol.unwrap_or(Protocol::Tcp), names) {
                    Some(a) => w.server = Some(a),
                    None => return refuse("illegal real server address[:port] specified"),
                },
                About::Weight => w.weight = Some(number(INT, "illegal weight specified")?),
                About::UThreshold => w.upper = number(INT, "illegal u_threshold specified")?,
                About::LThreshold => w.lower = number(INT, "illegal l_threshold specified")?,
                About::SchedFlags => {
                    w.flags = sched_flags(&argument, &w.scheduler).map_err(|text| Failure::new(2, text))?;
                }
                About::Engine => w.engine = Some(argument),
                About::TunType => match argument.as_str() {
                    "ipip" | "gue" | "gre" => w.tunnel = Some(argument),
                    _ => return refuse("illegal tunnel type specified"),
                },
                About::TunPort => drop(number_from(&argument, 1, 65535, "illegal tunnel port specified")?),
                _ => {}
            }
        }
        Tag::Command(_) | Tag::Help | Tag::Version => return refuse(format!("invalid option `{}'", found.written)),
    }
    Ok(())
}

fn number_from(text: &str, min: i64, max: i64, complaint: &str) -> Result<u32, Failure> {
    number(text, min, max).map(|n| n as u32).ok_or_else(|| Failure::new(2, complaint))
}

fn virtual_address(text: &str, protocol: Protocol, names: &Names) -> Result<(IpAddr, Option<u16>), Failure> {
    address(text, protocol, names).ok_or_else(|| Failure::new(2, "illegal virtual server address[:port] specified"))
}

/// Whether all that must be there is, and nothing else.
fn check(command: Command, given: &BTreeSet<About>) -> Result<(), Failure> {
    let name = COMMANDS[command as usize];
    let mut one: Option<About> = None;
    // All options, in ipvsadm's order: the first complaint is the same.
    for about in all_abouts() {
        let what = ABOUTS[about as usize];
        match (fit(command, about), given.contains(&about)) {
            (Fit::Must, false) => return refuse(format!("You need to supply the '{what}' option for the '{name}' command")),
            (Fit::Not, true) => return refuse(format!("Illegal '{what}' option with the '{name}' command")),
            (Fit::One, true) => match one {
                Some(other) => {
                    let other = ABOUTS[other as usize];
                    return refuse(format!("The option '{what}' conflicts with the '{other}' option in the '{name}' command"));
                }
                None => one = Some(about),
            },
            _ => {}
        }
    }
    Ok(())
}

fn all_abouts() -> impl Iterator<Item = About> {
    use About as A;
    [
        A::Numeric,
        A::Connection,
        A::Service,
        A::Scheduler,
        A::Persistent,
        A::Netmask,
        A::Server,
        A::Forward,
        A::Weight,
        A::UThreshold,
        A::LThreshold,
        A::Mcast,
        A::Timeout,
        A::Daemon,
        A::Stats,
        A::Rate,
        A::Thresholds,
        A::PersistentConn,
        A::NoSort,
        A::SyncId,
        A::Exact,
        A::OnePacket,
        A::Engine,
        A::SchedFlags,
        A::TunInfo,
        A::TunType,
        A::TunPort,
        A::TunNoCsum,
        A::TunCsum,
        A::TunRemCsum,
        A::SyncMaxLen,
        A::McastGroup,
        A::McastPort,
        A::McastTtl,
        A::Json,
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words that mean something, and words that do not.
    fn word() -> impl Strategy<Value = String> {
        let known: Vec<String> = OPTIONS
            .iter()
            .flat_map(|o| {
                let long = o.long;
                [format!("--{long}"), format!("--{long}=1"), o.short.map_or_else(String::new, |c| format!("-{c}"))]
            })
            .chain(
                [
                    "192.0.2.1:80",
                    "[2001:db8::1]:80",
                    "192.0.2.1",
                    "0",
                    "1",
                    "24",
                    "rr",
                    "sh",
                    "sh-port",
                    "60",
                    "--",
                    "-",
                    "-Lnc",
                    "-p60",
                    "sip",
                    "ipip",
                    "gue",
                    "master",
                    "255.255.255.0",
                    "4294967296",
                    "-1",
                    "[",
                    "]:",
                    "[::1",
                    ":",
                    "%",
                    "é:80",
                ]
                .map(str::to_owned),
            )
            .collect();
        prop_oneof![6 => proptest::sample::select(known), 1 => "\\PC{0,12}", 1 => "-{0,3}[a-zA-Z0-9=:,.]{0,8}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_words_panic(words in proptest::collection::vec(word(), 0..8)) {
            let names = Names::of("http 80/tcp").offline();
            if let Err(f) = parse(&words, &names, Name::Lvxadm) {
                prop_assert!(f.status != 0 && !f.text.is_empty(), "{words:?}: {f:?}");
            }
        }
    }
}
