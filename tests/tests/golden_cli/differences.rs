//! Where LVX answers otherwise than the recordings, on purpose: by name, with the reason, and with what it answers.

/// What LVX has not got, as recorded lists show it.
const REFUSED_SERVICES: [&str; 6] =
    ["SCTP 10.9.0.10:3868", "FWM  7", "FWM  9", "TCP  10.9.0.10:sip", "UDP  10.9.0.10:sip-tls", "UDP  10.9.0.10:5062"];
/// Servers behind tunnels that LVX has not got.
const REFUSED_SERVERS: [&str; 2] = ["  -> 10.2.0.13:80", "  -> 10.2.0.15:80"];
/// The same in rules.
const REFUSED_RULES: [&str; 4] = ["--sctp-service ", " -f 7", "--tun-type gue", "--tun-type gre"];

/// Another answer.
#[derive(Debug)]
pub(crate) enum Other {
    /// Refused with this text, status 2, nothing changed.
    Refused(&'static str),
    /// Exactly this status and text on stderr, nothing changed.
    Says(i32, &'static str),
    /// Not run at all, for this reason.
    NotRun(&'static str),
}

macro_rules! concat_try {
    ($line:literal) => {
        concat!($line, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n")
    };
}

use Other::{NotRun, Refused, Says};

const SYNC: &str = "LVX has no connection synchronization daemon (--start-daemon, --stop-daemon)";
const NO_SYNC: &str = "shows the synchronization daemon, which LVX has not got";
const SIP: &str = "LVX has no persistence engine sip (--pe)";
const FWMARK: &str = "LVX has no firewall-mark service (--fwmark-service)";

/// How LVX answers a case, where that is not as recorded.
pub(crate) fn other(case: &str) -> Option<Other> {
    Some(match case {
        "074-tun-gue" => Refused("LVX has no tunnel type gue (--tun-type)"),
        "076-tun-gre" => Refused("LVX has no tunnel type gre (--tun-type)"),
        "084-fwm-a" | "085-fwm-a-port" | "197-bad-ops-fwm" => Refused(FWMARK),
        "088-sctp-A" => Refused("LVX has no SCTP (--sctp-service)"),
        "200-bad-pe-sip-nopersist" | "201-bad-pe-sip-udp" => Refused(SIP),
        "233-daemon-start" | "236-daemon-backup" | "238-daemon-badif" => Refused(SYNC),
        "240-daemon-stop" | "241-daemon-stop-again" | "242-daemon-stop-b" | "244-daemon-noif" => Refused(SYNC),
        "234-daemon-L" | "237-daemon-L2" => NotRun(NO_SYNC),
        // The rules have lines that LVX refuses: the test asserts that, and goes on with the others.
        "121-restore" => NotRun("restored in two steps by the test"),
        "124-restore-bad-line" => Says(255, concat_try!("line 2: ")),
        "126-restore-comment" => Says(255, concat_try!("line 1: ")),
        "248-netns-third-L" => NotRun("as 245: a namespace has the daemon that was started in it"),
        "249-netns-init-L" => NotRun("a command reaches the daemon by its socket, whatever its own namespace"),
        _ => return None,
    })
}

/// What LVX shows where it is recorded that ipvsadm shows this.
pub(crate) fn expected(case: &str, text: &str) -> String {
    match case {
        // Unlike ipvsadm 1.31's, LVX's rules keep thresholds.
        "110-full-S" | "112-full-S-names" => thresholds(&without_refused(text)),
        // The restore that ipvsadm stopped midway changed nothing.
        "125-L-after-bad-restore" => without_refused(text).replace("TCP  10.9.0.20:80 rr\n", ""),
        _ if ("109".."126").contains(&&case[..3]) || case.starts_with("221") => without_refused(text),
        _ => text.to_owned(),
    }
}

fn thresholds(rules: &str) -> String {
    let one = |line: &str| match line.split(' ').nth(4) {
        Some("10.2.0.11:443" | "10.2.0.11:https") => format!("{line} -x 100 -y 50\n"),
        Some("10.2.0.13:443" | "10.2.0.13:https") => format!("{line} -x 10 -y 10\n"),
        _ => format!("{line}\n"),
    };
    rules.lines().map(one).collect()
}

/// A recorded output without what LVX refuses.
pub(crate) fn without_refused(text: &str) -> String {
    let mut out = String::new();
    let (mut skip, mut tunnels) = (false, false);
    for line in text.split_inclusive('\n') {
        if !line.starts_with("  -> ") {
            skip = REFUSED_SERVICES.iter().any(|s| line.strip_prefix(s).is_some_and(|rest| rest.starts_with([' ', '\n'])));
            tunnels = line.starts_with("TCP  10.9.0.12:80 ");
        }
        let refused =
            REFUSED_RULES.iter().any(|r| line.contains(r)) || tunnels && REFUSED_SERVERS.iter().any(|s| line.starts_with(s));
        if !skip && !refused {
            out.push_str(line);
        }
    }
    out
}
