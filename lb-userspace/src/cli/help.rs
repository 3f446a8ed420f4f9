//! `-h` and `-v`.

use super::Name;
use std::fmt::Write;

const IPVSADM_VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// ipvsadm's own usage, the program's name as `@`.
const USAGE: &str = include_str!("help.txt");

const OPTIONS: &str = "
More options of lvxadm:
  --socket PATH                       control socket of lvxd (default: $LVX_SOCKET, or
                                      /run/lvx/lvxd.sock)
  --json                              lists as JSON
";

/// Where the program does something else than ipvsadm, on purpose.
pub(super) const DIFFERENCES: &str = "\
What ipvsadm has and LVX has not, and refuses: --sctp-service, --fwmark-service, --pe,
--tun-type gue and gre, --start-daemon, --stop-daemon. Unlike ipvsadm, -R changes nothing if any line is
bad, and -S keeps thresholds. Started as ipvsadm (a link), it is the same program.
";

/// LVX's own verbs, from their tree.
fn verbs() -> String {
    let mut out = "More commands of lvxadm:\n".to_owned();
    for (name, about) in super::verb::list() {
        let _ = writeln!(out, "  lvxadm {name:<12} {about}");
    }
    out + "`lvxadm VERB --help' says more of each.\n"
}

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
        Name::Lvxadm => format!("{}{}\n{}{OPTIONS}\n{DIFFERENCES}", version(name), USAGE.replace('@', "lvxadm"), verbs()),
    }
}
