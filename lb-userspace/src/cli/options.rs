//! ipvsadm's options, and which go with which command.

use super::popt::{Opt, Takes};

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Clear,
    /// `-L`
    List,
    /// `-a`
    AddServer,
    /// `-d`
    DeleteServer,
    /// `-e`
    EditServer,
    /// `--set`
    Set,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-Z`
    Zero,
}

/// Names in complaints, in the order of [`Command`].
pub const COMMANDS: [&str; 14] = [
    "add-service",
    "edit-service",
    "delete-service",
    "flush",
    "list",
    "add-server",
    "delete-server",
    "edit-server",
    "set",
    "start-daemon",
    "stop-daemon",
    "restore",
    "save",
    "zero",
];

/// What options are about: several options can be about one thing, which may be given once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    /// `-n`
    Numeric,
    /// `-c`
    Connection,
    /// `-t -u -f`
    Service,
    /// `-s`
    Scheduler,
    /// `-p`
    Persistent,
    /// `-M`
    Netmask,
    /// `-r`
    Server,
    /// `-g -i -m`
    Forward,
    /// `-w`
    Weight,
    /// `-x`
    UThreshold,
    /// `-y`
    LThreshold,
    /// `--mcast-interface`
    Mcast,
    /// `--timeout`
    Timeout,
    /// `--daemon`
    Daemon,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--nosort`
    NoSort,
    /// `--syncid`
    SyncId,
    /// `--exact`
    Exact,
    /// `-o`
    OnePacket,
    /// `--pe`
    Engine,
    /// `-b`
    SchedFlags,
    /// `--tun-info`
    TunInfo,
    /// `--tun-type`
    TunType,
    /// `--tun-port`
    TunPort,
    /// `--tun-nocsum`
    TunNoCsum,
    /// `--tun-csum`
    TunCsum,
    /// `--tun-remcsum`
    TunRemCsum,
    /// `--sync-maxlen`
    SyncMaxLen,
    /// `--mcast-group`
    McastGroup,
    /// `--mcast-port`
    McastPort,
    /// `--mcast-ttl`
    McastTtl,
    /// `--json`, LVX's own
    Json,
}

/// Names in complaints, in the order of [`About`].
pub const ABOUTS: [&str; 35] = [
    "numeric",
    "connection",
    "service-address",
    "scheduler",
    "persistent",
    "netmask",
    "real-server",
    "forwarding-method",
    "weight",
    "u-threshold",
    "l-threshold",
    "mcast-interface",
    "timeout",
    "daemon",
    "stats",
    "rate",
    "thresholds",
    "persistent-conn",
    "nosort",
    "syncid",
    "exact",
    "ops",
    "pe",
    "sched-flags",
    "tun-info",
    "tun-type",
    "tun-port",
    "tun-nocsum",
    "tun-csum",
    "tun-remcsum",
    "sync-maxlen",
    "mcast-group",
    "mcast-port",
    "mcast-ttl",
    "json",
];

/// An option's meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// The command.
    Command(Command),
    /// `-t`, `-u`
    ServiceAddress(crate::model::Protocol),
    /// `--sctp-service`
    Sctp,
    /// `-f`
    Fwmark,
    /// `-6`
    Ipv6,
    /// `-g -i -m`
    Forward(crate::model::Forwarding),
    /// Anything that is about one thing and means nothing more.
    Plain(About),
    /// `--socket`, LVX's own
    Socket,
    /// `--sort`: nothing.
    Sort,
    /// `-h`
    Help,
    /// `-v`
    Version,
}

const fn o(long: &'static str, short: char, takes: Takes, tag: Tag) -> Opt<Tag> {
    Opt { long, short: if short == '\0' { None } else { Some(short) }, takes, tag }
}

use crate::model::{Forwarding, Protocol};
use About as A;
use Command as C;
use Takes::{Argument, Maybe, Nothing};

/// All of them.
pub static OPTIONS: &[Opt<Tag>] = &[
    o("add-service", 'A', Nothing, Tag::Command(C::AddService)),
    o("edit-service", 'E', Nothing, Tag::Command(C::EditService)),
    o("delete-service", 'D', Nothing, Tag::Command(C::DeleteService)),
    o("clear", 'C', Nothing, Tag::Command(C::Clear)),
    o("list", 'L', Nothing, Tag::Command(C::List)),
    o("list", 'l', Nothing, Tag::Command(C::List)),
    o("zero", 'Z', Nothing, Tag::Command(C::Zero)),
    o("add-server", 'a', Nothing, Tag::Command(C::AddServer)),
    o("edit-server", 'e', Nothing, Tag::Command(C::EditServer)),
    o("delete-server", 'd', Nothing, Tag::Command(C::DeleteServer)),
    o("set", '\0', Nothing, Tag::Command(C::Set)),
    o("start-daemon", '\0', Argument, Tag::Command(C::StartDaemon)),
    o("stop-daemon", '\0', Argument, Tag::Command(C::StopDaemon)),
    o("restore", 'R', Nothing, Tag::Command(C::Restore)),
    o("save", 'S', Nothing, Tag::Command(C::Save)),
    o("help", 'h', Nothing, Tag::Help),
    o("version", 'v', Nothing, Tag::Version),
    o("tcp-service", 't', Argument, Tag::ServiceAddress(Protocol::Tcp)),
    o("udp-service", 'u', Argument, Tag::ServiceAddress(Protocol::Udp)),
    o("sctp-service", '\0', Argument, Tag::Sctp),
    o("fwmark-service", 'f', Argument, Tag::Fwmark),
    o("ipv6", '6', Nothing, Tag::Ipv6),
    o("scheduler", 's', Argument, Tag::Plain(A::Scheduler)),
    o("persistent", 'p', Maybe, Tag::Plain(A::Persistent)),
    o("netmask", 'M', Argument, Tag::Plain(A::Netmask)),
    o("real-server", 'r', Argument, Tag::Plain(A::Server)),
    o("masquerading", 'm', Nothing, Tag::Forward(Forwarding::Nat)),
    o("ipip", 'i', Nothing, Tag::Forward(Forwarding::Tun)),
    o("gatewaying", 'g', Nothing, Tag::Forward(Forwarding::Dr)),
    o("weight", 'w', Argument, Tag::Plain(A::Weight)),
    o("u-threshold", 'x', Argument, Tag::Plain(A::UThreshold)),
    o("l-threshold", 'y', Argument, Tag::Plain(A::LThreshold)),
    o("numeric", 'n', Nothing, Tag::Plain(A::Numeric)),
    o("connection", 'c', Nothing, Tag::Plain(A::Connection)),
    o("timeout", '\0', Nothing, Tag::Plain(A::Timeout)),
    o("daemon", '\0', Nothing, Tag::Plain(A::Daemon)),
    o("stats", '\0', Nothing, Tag::Plain(A::Stats)),
    o("rate", '\0', Nothing, Tag::Plain(A::Rate)),
    o("thresholds", '\0', Nothing, Tag::Plain(A::Thresholds)),
    o("persistent-conn", '\0', Nothing, Tag::Plain(A::PersistentConn)),
    o("nosort", '\0', Nothing, Tag::Plain(A::NoSort)),
    o("sort", '\0', Nothing, Tag::Sort),
    o("exact", 'X', Nothing, Tag::Plain(A::Exact)),
    o("ops", 'o', Nothing, Tag::Plain(A::OnePacket)),
    o("pe", '\0', Argument, Tag::Plain(A::Engine)),
    o("sched-flags", 'b', Argument, Tag::Plain(A::SchedFlags)),
    o("tun-info", '\0', Nothing, Tag::Plain(A::TunInfo)),
    o("tun-type", '\0', Argument, Tag::Plain(A::TunType)),
    o("tun-port", '\0', Argument, Tag::Plain(A::TunPort)),
    o("tun-nocsum", '\0', Nothing, Tag::Plain(A::TunNoCsum)),
    o("tun-csum", '\0', Nothing, Tag::Plain(A::TunCsum)),
    o("tun-remcsum", '\0', Nothing, Tag::Plain(A::TunRemCsum)),
    o("syncid", '\0', Argument, Tag::Plain(A::SyncId)),
    o("sync-maxlen", '\0', Argument, Tag::Plain(A::SyncMaxLen)),
    o("mcast-interface", '\0', Argument, Tag::Plain(A::Mcast)),
    o("mcast-group", '\0', Argument, Tag::Plain(A::McastGroup)),
    o("mcast-port", '\0', Argument, Tag::Plain(A::McastPort)),
    o("mcast-ttl", '\0', Argument, Tag::Plain(A::McastTtl)),
    o("json", '\0', Nothing, Tag::Plain(A::Json)),
    o("socket", '\0', Argument, Tag::Socket),
];

/// The tree of verbs with ipvsadm's options: for documents alone, as [`super::popt`] reads them.
#[must_use]
pub(super) fn documented(mut tree: clap::Command) -> clap::Command {
    for o in OPTIONS {
        // The second name of `-L`, and what clap has by itself.
        if matches!(o.tag, Tag::Help | Tag::Version) || tree.get_arguments().any(|a| a.get_id() == o.long) {
            continue;
        }
        let (about, argument) = super::help::of_option(o.long);
        let about = about.or_else(|| {
            Some(match o.long {
                "json" => "lists as JSON".into(),
                "socket" => "control socket of lvxd".into(),
                _ => return None,
            })
        });
        let arg = clap::Arg::new(o.long).long(o.long).help(about.unwrap_or_default());
        let arg = match argument {
            Some(name) if o.takes != Nothing => arg.value_name(name),
            _ => arg,
        };
        let arg = match o.takes {
            Nothing => arg.action(clap::ArgAction::SetTrue),
            Argument => arg.num_args(1),
            Maybe => arg.num_args(0..=1),
        };
        tree = tree.arg(match o.short {
            Some(c) => arg.short(c),
            None => arg,
        });
    }
    tree
}

/// How an option goes with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// Needed.
    Must,
    /// Allowed.
    May,
    /// Allowed, but only one of these.
    One,
    /// Not allowed.
    Not,
}

/// Whether something may be said with a command (ipvsadm's table).
#[must_use]
pub fn fit(command: Command, about: About) -> Fit {
    match (command, about) {
        (C::AddService | C::EditService | C::DeleteService | C::AddServer | C::DeleteServer | C::EditServer, A::Service) => {
            Fit::Must
        }
        (
            C::AddService | C::EditService,
            A::Scheduler | A::Persistent | A::Netmask | A::OnePacket | A::Engine | A::SchedFlags,
        ) => Fit::May,
        (C::AddServer | C::DeleteServer | C::EditServer, A::Server) => Fit::Must,
        (
            C::AddServer | C::EditServer,
            A::Forward
            | A::Weight
            | A::UThreshold
            | A::LThreshold
            | A::TunType
            | A::TunPort
            | A::TunNoCsum
            | A::TunCsum
            | A::TunRemCsum,
        ) => Fit::May,
        (C::List, A::Connection | A::Service | A::Timeout | A::Daemon) => Fit::One,
        (
            C::List,
            A::Numeric | A::Stats | A::Rate | A::Thresholds | A::PersistentConn | A::NoSort | A::Exact | A::TunInfo | A::Json,
        ) => Fit::May,
        (C::StartDaemon, A::Mcast | A::SyncId | A::SyncMaxLen | A::McastGroup | A::McastPort | A::McastTtl) => Fit::May,
        (C::StopDaemon, A::SyncId) => Fit::May,
        (C::Save, A::Numeric) | (C::Zero, A::Service) => Fit::May,
        _ => Fit::Not,
    }
}
