//! `-h` and `-v`.

use super::Name;

const IPVSADM_VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// ipvsadm's own usage, the program's name as `@`.
const USAGE: &str = include_str!("help.txt");

const OWN: &str = "\
More commands of lvxadm:
  @ status [--json]           interfaces, tables, and what became of packets
  @ decap IF [--detach] [--mode native|generic|auto] [--pin-dir DIR]
                                   take tunnelled packets apart in XDP on a real server's
                                   interface, so that it needs no tunnel device
  @ simulate ...              which server a scheduler would choose for a pool and a stream
                                   of connections; `@ simulate --help`; needs no daemon

More options of lvxadm:
  --socket PATH                       control socket of lvxd (default: $LVX_SOCKET, or
                                      /run/lvx/lvxd.sock)
  --json                              lists as JSON

What ipvsadm has and LVX has not, and refuses: --sctp-service, --fwmark-service, --pe,
--tun-type gue and gre, --start-daemon, --stop-daemon. Unlike ipvsadm, -R changes nothing if any line is
bad, and -S keeps thresholds. Started as ipvsadm (a link), it is the same program.
";

/// The version line.
#[must_use]
pub(super) fn version(name: Name) -> String {
    match name {
        Name::Ipvsadm => IPVSADM_VERSION.to_owned(),
        Name::Lvxadm => format!("lvxadm {}, which does as ipvsadm v1.31 with IPVS v1.2.1\n", env!("CARGO_PKG_VERSION")),
    }
}

/// The usage.
#[must_use]
pub(super) fn text(name: Name) -> String {
    match name {
        Name::Ipvsadm => version(name) + &USAGE.replace('@', "ipvsadm"),
        Name::Lvxadm => format!("{}{}\n{}", version(name), USAGE.replace('@', "lvxadm"), OWN.replace('@', "lvxadm")),
    }
}
