//! `-h` and `-v`.

use super::Name;
use std::fmt::Write;

const IPVSADM_VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// ipvsadm's own usage, the program's name as `@`.
const USAGE: &str = include_str!("help.txt");

pub(super) const OPTIONS: &str = "
More options of lvxadm:
  --socket PATH                       control socket of lvxd (default: $LVX_SOCKET, or
                                      /run/lvx/lvxd.sock)
  --json                              lists as JSON (every field: docs/json.md)
";

/// Where the program does something else than ipvsadm, on purpose.
pub(super) const DIFFERENCES: &str = "\
What ipvsadm has and LVX has not, and refuses: --sctp-service, --fwmark-service, --pe,
--tun-type gue and gre, --start-daemon, --stop-daemon.
Unlike ipvsadm, -R is one change: a bad line is named by its number, and then nothing changes; its lines
are changes only. -S keeps thresholds. Started as ipvsadm, ipvsadm-save or ipvsadm-restore (links), it is
the same program; ipvsadm-restore replaces what there is, in one change too.
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

/// ipvsadm's usage.
#[must_use]
pub(super) fn usage(name: Name) -> String {
    USAGE.replace('@', if name == Name::Ipvsadm { "ipvsadm" } else { "lvxadm" })
}

/// What ipvsadm's usage says of an option, and the name of its argument.
pub(super) fn of_option(long: &str) -> (Option<String>, Option<&'static str>) {
    let is_it = |l: &&str| {
        let mut names = l.trim_start().split([' ', '|']);
        l.starts_with("  --") && names.next().and_then(|n| n.strip_prefix("--")) == Some(long)
    };
    let mut lines = USAGE.lines().skip_while(|l| !is_it(l));
    let Some(line) = lines.next() else { return (None, None) };
    let (left, mut text) = match line.trim_start().rsplit_once("  ") {
        Some((left, text)) => (left, text.to_owned()),
        None => return (None, None),
    };
    for more in lines.take_while(|l| l.starts_with("        ")) {
        text = text + " " + more.trim_start();
    }
    let argument = left.split_whitespace().find(|w| !w.starts_with('-')).map(|w| w.trim_matches(['[', ']']));
    (Some(text), argument)
}

/// The usage.
#[must_use]
pub(super) fn text(name: Name) -> String {
    match name {
        Name::Ipvsadm => version(name) + &usage(name),
        Name::Lvxadm => format!("{}{}\n{}{OPTIONS}\n{DIFFERENCES}", version(name), usage(name), verbs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_explained_in_the_words_of_the_usage() {
        let of = |long: &str| {
            let (text, argument) = of_option(long);
            (text.unwrap_or_default(), argument.unwrap_or_default().to_owned())
        };
        assert_eq!(of("add-service"), ("add virtual service with options".into(), String::new()));
        assert_eq!(of("tcp-service"), ("service-address is host[:port]".into(), "service-address".into()));
        assert_eq!(of("persistent"), ("persistent service".into(), "timeout".into()));
        assert!(of("scheduler").0.ends_with("the default scheduler is wlc."));
        assert_eq!(of("list").0, "list the table");
        assert_eq!(of_option("nosuch"), (None, None));
    }
}
