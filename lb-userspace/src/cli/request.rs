//! What a command line asks for, checked as far as can be without the daemon.

use super::names::Names;
use super::options::{ABOUTS, About, COMMANDS, Command, Fit, OPTIONS, Tag, fit};
use super::popt::{Found, Popt};
use super::values::{address, netmask, number, sched_flags};
use crate::model::{
    DEFAULT_PERSISTENCE_S, Edit, Forwarding, MAX_TIMEOUT_S, Persistence, Protocol, SchedFlags, SchedulerKind, ServerId,
    ServerSpec, ServiceId, ServiceSpec, Timeouts,
};
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
    Daemon,
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

/// The name that complaints carry.
const TRY_HELP: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";

fn refuse<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(2, text))
}

#[derive(Default)]
struct Words {
    given: BTreeSet<About>,
    protocol: Option<Protocol>,
    service: Option<(IpAddr, Option<u16>)>,
    server: Option<(IpAddr, Option<u16>)>,
    scheduler: String,
    flags: SchedFlags,
    persistence_s: Option<u32>,
    netmask: Option<IpAddr>,
    forwarding: Option<Forwarding>,
    weight: Option<u32>,
    upper: u32,
    lower: u32,
    socket: Option<PathBuf>,
    unsupported: Option<String>,
    engine: Option<String>,
    timeouts: Option<Timeouts>,
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
pub fn parse(words: &[String], names: &Names) -> Result<Line, Failure> {
    let mut popt = Popt::new(OPTIONS, words.iter().cloned());
    let mut w = Words::default();
    let bad = |e: super::popt::PoptError| Failure::new(255, e.to_string());
    let command = loop {
        match popt.next_option().map_err(bad)? {
            // LVX's own may stand anywhere.
            Some(Found { tag: Tag::Socket, argument, .. }) => w.socket = argument.map(PathBuf::from),
            Some(Found { tag: Tag::Command(c), argument, .. }) => {
                if matches!(c, Command::StartDaemon | Command::StopDaemon) {
                    let which = argument.unwrap_or_default();
                    if which != "master" && which != "backup" {
                        return refuse("illegal start_daemon parameter specified");
                    }
                    w.has_not("connection synchronization daemon (--start-daemon, --stop-daemon)");
                }
                break c;
            }
            Some(Found { tag: Tag::Help, .. }) => return Ok(Line { request: Request::Help, socket: w.socket }),
            Some(Found { tag: Tag::Version, .. }) => return Ok(Line { request: Request::Version, socket: w.socket }),
            None if popt.rest.is_empty() => {
                return Ok(Line { request: Request::List(Format::default(), None), socket: w.socket });
            }
            _ => return Err(Failure::new(255, TRY_HELP)),
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
    let argument = found.argument.unwrap_or_default();
    let number = |max: i64, what: &str| number(&argument, 0, max).map(|n| n as u32).ok_or_else(|| Failure::new(2, what));
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
                    w.persistence_s = Some(if argument.is_empty() { DEFAULT_PERSISTENCE_S } else { timeout(&argument, 1)? });
                }
                About::Netmask => {
                    let service = w.service.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |s| s.0);
                    w.netmask = match netmask(&argument, service) {
                        Some(mask) => mask,
                        None if service.is_ipv4() => return refuse("illegal virtual server persistent mask specified"),
                        None => return refuse("illegal ipv6 netmask specified"),
                    };
                }
                About::Server => match address(&argument, w.protocol.unwrap_or(Protocol::Tcp), names) {
                    Some(a) => w.server = Some(a),
                    None => return refuse("illegal real server address[:port] specified"),
                },
                About::Weight => w.weight = Some(number(INT, "illegal weight specified")?),
                About::UThreshold => w.upper = number(INT, "illegal u_threshold specified")?,
                About::LThreshold => w.lower = number(INT, "illegal l_threshold specified")?,
                About::SchedFlags => {
                    w.flags = sched_flags(&argument, &w.scheduler)
                        .map_err(|name| Failure::new(2, format!("invalid scheduler flag `{name}'")))?;
                }
                About::Engine => w.engine = Some(argument),
                About::TunType => match argument.as_str() {
                    "ipip" => {}
                    "gue" | "gre" => w.has_not(format!("tunnel type {argument} (--tun-type)")),
                    _ => return refuse("illegal tunnel type specified"),
                },
                About::TunPort | About::TunNoCsum | About::TunCsum | About::TunRemCsum => {
                    w.has_not(format!("{} (for GUE and GRE tunnels)", found.written));
                }
                _ => {}
            }
        }
        Tag::Command(_) | Tag::Help | Tag::Version => return refuse(format!("invalid option `{}'", found.written)),
    }
    Ok(())
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

fn build(command: Command, w: &Words) -> Result<Request, Failure> {
    let id = w.service.map(|(address, port)| ServiceId {
        protocol: w.protocol.unwrap_or(Protocol::Tcp),
        address,
        port: port.unwrap_or(0),
    });
    let format = Format { about: w.given.clone() };
    if matches!(command, Command::AddService | Command::EditService) && w.unsupported.is_none() {
        if id.is_some_and(|id| id.port == 0) && w.persistence_s.is_none() {
            return refuse("Zero port specified for non-persistent service");
        }
        if w.given.contains(&About::OnePacket) && w.protocol != Some(Protocol::Udp) {
            return refuse("One-Packet Scheduling is only for UDP virtual services");
        }
    }
    if let (Command::AddServer | Command::EditServer, Some((server, _)), Some(id)) = (command, w.server, id) {
        let forwarding = w.forwarding.unwrap_or(Forwarding::Dr);
        if w.unsupported.is_none() && server.is_ipv4() != id.address.is_ipv4() && forwarding != Forwarding::Tun {
            return refuse("Different address family is allowed only for tunneling servers");
        }
    }
    if let Some(engine) = &w.engine {
        if engine != "sip" {
            return Err(Failure::new(255, "Scheduler or persistence engine not found"));
        }
        return refuse("LVX has no persistence engine sip (--pe)");
    }
    if let Some(what) = &w.unsupported {
        return refuse(format!("LVX has no {what}"));
    }
    Ok(match (command, id) {
        (Command::AddService, Some(id)) => Request::Edit(Edit::AddService { service: service(id, w)? }),
        (Command::EditService, Some(id)) => Request::Edit(Edit::EditService { service: service(id, w)? }),
        (Command::DeleteService, Some(service)) => Request::Edit(Edit::DeleteService { service }),
        (Command::Clear, _) => Request::Edit(Edit::Clear),
        (Command::AddServer, Some(service)) => Request::Edit(Edit::AddServer { service, server: server(service, w) }),
        (Command::EditServer, Some(service)) => Request::Edit(Edit::EditServer { service, server: server(service, w) }),
        (Command::DeleteServer, Some(service)) => Request::Edit(Edit::DeleteServer { service, server: server(service, w).id }),
        (Command::Set, _) => Request::Edit(Edit::SetTimeouts { timeouts: w.timeouts.unwrap_or_default() }),
        (Command::List, _) if format.has(About::Connection) => Request::Connections(format),
        (Command::List, Some(id)) => Request::List(format, Some(id)),
        (Command::List, None) if format.has(About::Timeout) => Request::Timeouts(format),
        (Command::List, None) if format.has(About::Daemon) => Request::Daemon,
        (Command::List, None) => Request::List(format, None),
        (Command::Zero, id) => Request::Zero(id),
        (Command::Save, _) => Request::Save(format),
        (Command::Restore, _) => Request::Restore { replace: false },
        // The check saw to it that a service was given; the daemons were refused above.
        _ => return Err(Failure::new(255, TRY_HELP)),
    })
}

fn service(id: ServiceId, w: &Words) -> Result<ServiceSpec, Failure> {
    let name = if w.scheduler.is_empty() { SchedulerKind::DEFAULT.name() } else { &w.scheduler };
    let scheduler = name.parse::<SchedulerKind>().map_err(|()| Failure::new(255, "Scheduler or persistence engine not found"))?;
    Ok(ServiceSpec {
        id,
        scheduler,
        sched_flags: w.flags,
        persistence: w.persistence_s.map(|timeout_s| Persistence { timeout_s, netmask: w.netmask }),
        one_packet: w.given.contains(&About::OnePacket),
    })
}

fn server(service: ServiceId, w: &Words) -> ServerSpec {
    let (address, port) = w.server.unwrap_or((service.address, None));
    ServerSpec {
        id: ServerId { address, port: port.unwrap_or(service.port) },
        forwarding: w.forwarding.unwrap_or(Forwarding::Dr),
        weight: w.weight.unwrap_or(1),
        upper_threshold: w.upper,
        lower_threshold: w.lower,
    }
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
            if let Err(f) = parse(&words, &names) {
                prop_assert!(f.status != 0 && !f.text.is_empty(), "{words:?}: {f:?}");
            }
        }
    }
}
