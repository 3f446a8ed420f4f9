//! The command line against a real daemon: rules restore what was saved, restoring is one change, and nothing is said in vain.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{Lvxd, Ns, binary, possible};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

fn director() -> Result<(Lvxd, Ns, Ns)> {
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    Ok((Lvxd::start(&ns, &["eth0"], &[])?, ns, other))
}

/// The program under another name, with standard input.
fn under(name: &str, lvxd: &Lvxd, words: &[&str], stdin: &str) -> Result<Output> {
    let dir = tempfile::tempdir()?;
    let link = dir.path().join(name);
    std::os::unix::fs::symlink(std::path::absolute(binary("lvxadm")?)?, &link)?;
    let mut c = Command::new(&link);
    c.args(words).env("LVX_SOCKET", &lvxd.socket);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Rules with everything that can be set, in long and short options.
fn rules(r: &mut Random) -> String {
    let mut out = String::new();
    for i in 0..=r.below(12) {
        let (v6, udp) = (r.below(2) == 0, r.below(3) == 0);
        let service = if v6 { format!("[2001:db8::{i:x}]:{}", 80 + i) } else { format!("10.9.0.{i}:{}", 80 + i) };
        let service = format!("{} {service}", if udp { r.of(&["-u", "--udp-service"]) } else { r.of(&["-t", "--tcp-service"]) });
        let kind = r.of(&["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos", "sh", "dh", "mh", "lblc", "lblcr"]);
        out += &format!("{} {service} -s {kind}", r.of(&["-A", "--add-service"]));
        if matches!(kind, "sh" | "mh") && r.below(2) == 0 {
            out += &format!(" -b {}", r.of(&["flag-1", "flag-2", "flag-1,flag-2", "flag-3"]));
        }
        if r.below(3) == 0 {
            out += &format!(" -p {}", 1 + r.below(2_678_400));
            if r.below(2) == 0 {
                out += if v6 { " -M 64" } else { r.of(&[" -M 255.255.255.0", " --netmask 255.0.0.255", " -M 0.0.0.0"]) };
            }
        }
        if udp && r.below(3) == 0 {
            out += " --ops";
        }
        out.push('\n');
        for d in 0..r.below(6) {
            let method = r.of(&["-m", "-g", "-i", "--masquerading", "--ipip"]);
            let tunnel = matches!(method, "-i" | "--ipip");
            let server_v6 = if tunnel { r.below(2) == 0 } else { v6 };
            let server = if server_v6 { format!("[2001:db8:2::{d:x}1]:80") } else { format!("10.2.0.{}:80", 11 + d) };
            out += &format!("-a {service} -r {server} {method} -w {}", r.below(70_000));
            if r.below(2) == 0 {
                let upper = r.below(1000);
                out += &format!(" -x {upper} --l-threshold {}", r.below(upper + 1));
            }
            out.push('\n');
        }
    }
    out
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// Everything that is configured, by the daemon's own account, in no order.
fn configured(lvxd: &Lvxd) -> Result<BTreeSet<String>> {
    let all: serde_json::Value = serde_json::from_str(&lvxd.adm("-L --json")?)?;
    ensure!(all["schema"] == 1, "{all}");
    let mut out = BTreeSet::new();
    for s in all["services"].as_array().context("no services")? {
        let mut service = s.clone();
        let servers = service["servers"].take();
        for key in ["stats", "rates"] {
            service[key].take();
        }
        for d in servers.as_array().context("no servers")? {
            let kept =
                ["address", "port", "forwarding", "weight", "upper_threshold", "lower_threshold"].map(|k| d[k].to_string());
            out.insert(format!("{} {} {kept:?}", s["address"], s["protocol"]));
        }
        out.insert(service.to_string());
    }
    Ok(out)
}

#[test]
fn what_is_saved_restores_the_same() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (lvxd, _ns, _other) = director()?;
    let mut r = Random(7);
    for round in 0..12 {
        let rules = rules(&mut r);
        // In place of the configuration before.
        let o = under("ipvsadm-restore", &lvxd, &[], &format!("# round {round}\n\n{rules}"))?;
        ensure!(o.status.success(), "{}{rules}", text(&o.stderr));
        let (before, saved) = (configured(&lvxd)?, lvxd.adm("-S -n")?);
        ensure!(saved.lines().count() == rules.lines().count(), "{rules}{saved}");
        lvxd.adm("-C")?;
        ensure!(lvxd.adm("-S -n")?.is_empty());
        let o = under("lvxadm", &lvxd, &["-R"], &saved)?;
        ensure!(o.status.success(), "{}{saved}", text(&o.stderr));
        ensure!(configured(&lvxd)? == before, "{saved}");
        ensure!(lines(&lvxd.adm("-S -n")?) == lines(&saved), "{saved}");
        let o = under("ipvsadm-save", &lvxd, &["-n"], "")?;
        ensure!(lines(&text(&o.stdout)) == lines(&saved));
    }
    Ok(())
}

#[test]
fn restoring_is_one_change() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (lvxd, _ns, _other) = director()?;
    lvxd.adm("-A -t 10.9.0.1:80 -s rr")?;
    let before = lvxd.adm("-S -n")?;
    let good = "-A -t 10.9.0.2:80 -s rr\n\n";
    for (bad, says) in [
        ("bogus\n", "line 3: "),
        ("-A -t 10.9.0.2:80\n", "line 3: Service already exists"),
        ("-a -t 10.9.0.9:80 -r 10.2.0.11\n", "line 3: Service not defined"),
        ("-A -f 1\n", "line 3: LVX has no firewall-mark service"),
        ("-L -n\n", "line 3: `-L' is no change"),
        ("-A -t 10.9.0.3:80 -s rr -w 3\n", "line 3: Illegal 'weight' option with the 'add-service' command"),
        ("-a -t 10.9.0.2:80 -r 10.2.0.11 -x 1 -y 2\n", "line 3: Numerical result out of range"),
        ("-A -t 10.9.0.3:\u{fffd}\n", "line 3: illegal virtual server address"),
    ] {
        for name in ["lvxadm", "ipvsadm"] {
            let o = under(name, &lvxd, &["-R"], &format!("{good}{bad}-A -t 10.9.0.4:80\n"))?;
            ensure!(!o.status.success() && text(&o.stderr).starts_with(says), "{bad}{}", text(&o.stderr));
            ensure!(lvxd.adm("-S -n")? == before, "{bad}");
        }
        // Nor is anything cleared.
        let o = under("ipvsadm-restore", &lvxd, &[], &format!("{good}{bad}"))?;
        ensure!(!o.status.success() && text(&o.stderr).starts_with(says), "{bad}{}", text(&o.stderr));
        ensure!(lvxd.adm("-S -n")? == before, "{bad}");
    }
    Ok(())
}

/// A reader that has seen enough, a full disk, and a socket that is not the daemon's.
#[test]
fn pipes_and_sockets() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (lvxd, _ns, _other) = director()?;
    let mut rules = String::new();
    for s in 0..1000 {
        rules += &format!("-A -t 10.9.{}.{}:80 -s rr\n", 1 + s / 250, 1 + s % 250);
        for d in 0..10 {
            rules += &format!("-a -t 10.9.{}.{}:80 -r 10.2.0.{}:80 -m\n", 1 + s / 250, 1 + s % 250, 20 + d);
        }
    }
    let o = under("lvxadm", &lvxd, &["-R"], &rules)?;
    ensure!(o.status.success(), "{}", text(&o.stderr));
    let adm = binary("lvxadm")?;
    let shell = |line: &str| -> Result<Output> {
        Ok(Command::new("sh").args(["-c", line]).env("ADM", &adm).env("LVX_SOCKET", &lvxd.socket).output()?)
    };
    for line in
        ["$ADM -L -n", "$ADM -L -n --stats", "$ADM -S -n", "$ADM -L -c", "$ADM -L --json", "$ADM status --all", "$ADM --help"]
    {
        for end in [" | head -1", " | true", " >&-"] {
            let o = shell(&format!("{line}{end}"))?;
            ensure!(o.stderr.is_empty(), "{line}{end}: {}", text(&o.stderr));
        }
        let o = shell(&format!("{line} > /dev/full"))?;
        ensure!(!o.status.success() && text(&o.stderr).starts_with("writing: "), "{line}: {}", text(&o.stderr));
    }
    let o = shell("$ADM --nosuch 2>&- ; $ADM --nosuch 2>/dev/full")?;
    ensure!(o.status.code() == Some(255), "{o:?}");
    for (socket, says) in
        [("/dev/null", "/dev/null"), ("/", "cannot reach the daemon at /"), ("/nonexistent/s", "is lvxd running?")]
    {
        let o = shell(&format!("$ADM --socket {socket} -L"))?;
        ensure!(o.status.code() == Some(2) && text(&o.stderr).contains(says), "{socket}: {}", text(&o.stderr));
        let o = shell(&format!("$ADM status --socket {socket}"))?;
        ensure!(o.status.code() == Some(2) && text(&o.stderr).contains(says), "{socket}: {}", text(&o.stderr));
    }
    // The whole way of 1,000 services of 10 servers: asked for, sent, read, printed.
    let mut best = std::time::Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let o = shell("$ADM -L -n --stats")?;
        best = best.min(began.elapsed());
        ensure!(text(&o.stdout).lines().count() == 11_003);
    }
    println!("statistics of 1,000 services of 10 servers listed within {best:?}");
    Ok(())
}
