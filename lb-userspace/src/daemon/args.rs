//! The command line of `lvxd`.

use super::config::{LogLevel, Mode};
use clap::Parser;
use std::path::PathBuf;

/// Where the configuration is looked for unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/lvx/lvx.toml";

/// The LVX director: balances TCP and UDP services over real servers in XDP.
///
/// lvxd puts the XDP program on the interfaces, keeps it supplied with services, real servers and next hops, and serves the
/// control socket that lvxadm talks to. At least one interface is needed, from the configuration or from --interface.
///
/// SIGTERM and SIGINT end it: the program comes off the interfaces and nothing stays behind, unless --stay-attached is given;
/// packets then go on being balanced, and the next lvxd takes over where this one stopped, with its services, connections and counters:
/// what ran goes before what is configured. `lvxd --detach` takes away what stayed. SIGHUP makes services, timeouts and switches of the
/// configuration the running ones, as `lvxadm apply` does.
///
/// Exit status: 0 after a clean end, 1 when something failed, 2 for a wrong command line.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "lvxd", version, max_term_width = 100)]
pub struct Args {
    /// Configuration file; an absent one is an error only if it is given here.
    ///
    /// [default: /etc/lvx/lvx.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Interface to balance on, in addition to those of the configuration; repeatable.
    #[arg(short, long = "interface", value_name = "IF")]
    pub interfaces: Vec<String>,

    /// Control socket.
    ///
    /// [env: LVX_SOCKET] [default: /run/lvx/lvxd.sock]
    #[arg(short, long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Directory on a BPF file system that maps and links are pinned in. Daemons with different ones can run side by side,
    /// each in its own network namespace.
    ///
    /// [default: /sys/fs/bpf/lvx]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,

    /// Where in the network stack the program runs: in the driver, in the kernel's generic hook, or in the driver where that
    /// works.
    ///
    /// [default: auto]
    #[arg(short, long, value_enum)]
    pub mode: Option<Mode>,

    /// Validate configuration and command line, touch nothing, and exit.
    #[arg(long)]
    pub check: bool,

    /// Throw away pinned maps of an earlier daemon, and with them all connections, instead of taking them over.
    #[arg(long)]
    pub discard: bool,

    /// Where pinned maps are of another version, which cannot be taken over: leave their program balancing until no connection in them is
    /// active any more, for at most so long, then discard them.
    ///
    /// No daemon is there meanwhile: new connections go on too, to the servers that were planned last. Steer clients to another
    /// director first. UDP and half-closed connections are not waited for.
    #[arg(long, value_name = "SECONDS", conflicts_with = "discard")]
    pub drain: Option<u64>,

    /// Leave program and maps in place at exit: packets go on being balanced, and the next lvxd takes over without losing one. The
    /// service unit does this, so that a restart is not noticed.
    #[arg(long, conflicts_with = "detach_on_exit")]
    pub stay_attached: bool,

    /// Take program and maps away at exit, even if the configuration says `stay_attached = true`. This is the default.
    #[arg(long)]
    pub detach_on_exit: bool,

    /// Take away what an lvxd that has ended left in place, program, maps and connections, and exit. Refused while one runs.
    #[arg(long, conflicts_with_all = ["discard", "drain", "stay_attached", "detach_on_exit", "check"])]
    pub detach: bool,

    /// For developers and tests: a compiled XDP object in place of the one that is built in.
    #[arg(long, value_name = "FILE", hide = true)]
    pub object: Option<PathBuf>,

    /// How much is logged on stderr.
    ///
    /// [default: info]
    #[arg(short, long, value_enum, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn interfaces_repeat_and_exits_exclude_each_other() {
        let args = Args::try_parse_from(["lvxd", "--interface", "eth0", "-i", "eth1", "--mode", "native"]).unwrap();
        assert_eq!(args.interfaces, ["eth0", "eth1"]);
        assert_eq!(args.mode, Some(Mode::Native));
        for wrong in [
            &["lvxd", "--stay-attached", "--detach-on-exit"][..],
            &["lvxd", "--mode", "hardware"],
            &["lvxd", "--interface"],
            &["lvxd", "eth0"],
            &["lvxd", "--log", "loud"],
        ] {
            assert!(Args::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
