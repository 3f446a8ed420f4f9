//! Command lines that a real ipvsadm 1.31 was given, and what it said: everything that it refuses before it asks the kernel is
//! refused in the same words, and everything else is understood.
//!
//! In `golden/words.txt`, one a line: the words, the exit status, what was said on stderr. There were a service `-t 10.9.0.10:80`
//! with the server 10.2.0.11:80, `-u 10.9.0.10:53`, and `-t [2001:db8::10]:80`.

use super::Name;
use super::names::Names;
use super::request::parse;

/// What the kernel says, and not the program.
const KERNEL: [&str; 10] = [
    "",
    "Service already exists",
    "No such service",
    "Service not defined",
    "Destination already exists",
    "No such destination",
    "No such device",
    "No daemon is running",
    "Numerical result out of range",
    "Invalid operation.  Possibly wrong module version, address not unicast, ...",
];

/// Where LVX's words are others on purpose.
fn differs(line: &str) -> Option<&'static str> {
    // The words in one; what it is.
    for (part, reason) in [
        ("--json", "LVX's own option"),
        ("--socket", "LVX's own option"),
        ("\"twos\"", "LVX has this scheduler"),
        ("\"[10.9.0.10]:81\"", "the port of a bracketed IPv4 address counts"),
        ("-r 10.2.0.12:http -t", "a service's name is looked up although the protocol comes later"),
        ("-L -n --syncid", "an option without meaning is refused, not passed over"),
        ("-s nosuch", "the scheduler's name is looked at before the daemon is asked for the service"),
    ] {
        let words = line.split('\t').next().unwrap_or_default();
        let plain = words.replace(['"', ',', '[', ']'], "");
        if words.contains(part) || plain.contains(part) {
            return Some(reason);
        }
    }
    // A mask before a service of IPv6 is ignored by ipvsadm; here it means what it means behind it.
    (line.starts_with("[\"-A\", \"-M\"") && line.contains("[2001:")).then_some("the order of options means nothing")
}

#[test]
fn words_as_ipvsadm_takes_them() {
    let names = Names::of("http 80/tcp\ndomain 53/udp\ndomain 53/tcp\ntftp 69/udp\n").offline();
    let mut wrong = Vec::new();
    let mut number = 0;
    for line in include_str!("golden/words.txt").lines() {
        number += 1;
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let words: Vec<String> = serde_json::from_str(column()).unwrap();
        let status: u8 = column().parse().unwrap();
        let said: String = serde_json::from_str(column()).unwrap();
        let ours = parse(&words, &names, Name::Ipvsadm);
        let same = match &ours {
            Ok(_) => KERNEL.contains(&said.as_str()),
            Err(f) => f.text.trim_end() == said && f.status == status || f.text.starts_with("LVX has no "),
        };
        if !same && differs(line).is_none() {
            wrong.push(format!("{line}\n    {:?}", ours.map(|l| l.request)));
        }
    }
    assert!(number > 500, "{number}");
    assert!(wrong.is_empty(), "{} of {number}:\n{}", wrong.len(), wrong.join("\n"));
}
