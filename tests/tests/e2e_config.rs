//! Configuration files against a running daemon; ends and starts that are not a plain restart.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::config::Config;
use lb_common::limits::{ABI_VERSION, DEFAULT_PICKS, map};
use lvx_tests::lab::{HttpLab, Layout, Lvxd, Method, Ns, binary, possible, until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn text(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

fn connect(ns: &Ns, at: SocketAddr) -> Result<TcpStream> {
    let s = ns.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)))?;
    s.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(s)
}

/// Who answers on a connection that stays open.
fn ask(s: &mut TcpStream) -> Result<String> {
    s.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("server-") || !text.ends_with('\n') {
        let n = s.read(&mut buffer)?;
        ensure!(n > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// The service of the laboratory with these servers: number, weight.
fn file(h: &HttpLab, scheduler: &str, servers: &[(usize, u32)]) -> String {
    let mut out = format!("[[service]]\nprotocol = \"tcp\"\naddress = \"{}\"\nscheduler = \"{scheduler}\"\n", h.service());
    for (i, weight) in servers {
        let _ = write!(out, "[[service.server]]\naddress = \"{}\"\nforwarding = \"nat\"\nweight = {weight}\n", h.server(*i));
    }
    out
}

/// Plan says what apply does; neither cuts what need not be cut; a bad file changes nothing; what is exported changes nothing.
#[test]
fn plan_apply_export() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, false, 3)?;
    let (lvxd, path) = (&h.lvxd, h.lvxd.files().join("new.toml"));
    let name = path.to_string_lossy().into_owned();
    let exported = lvxd.files().join("exported.toml");
    let same = |lvxd: &Lvxd| -> Result<()> {
        std::fs::write(&exported, lvxd.adm("export")?)?;
        let name = exported.to_string_lossy();
        let check = Command::new(binary("lvxd")?).args(["--check", "--config", &name]).output()?;
        ensure!(check.status.success(), "{}", text(&check));
        let before = lvxd.adm("-S -n")?;
        assert_eq!(lvxd.adm(&format!("plan --exit-code {name}"))?, "nothing to change\n");
        assert_eq!(lvxd.adm(&format!("apply {name}"))?, "nothing to change\n");
        assert_eq!(lvxd.adm("-S -n")?, before);
        Ok(())
    };
    same(lvxd)?;
    let mut held: Vec<_> = (0..3).map(|_| connect(&h.lab.client, h.service())).collect::<Result<_>>()?;
    let names: Vec<String> = held.iter_mut().map(ask).collect::<Result<_>>()?;
    // Server 2 goes, 1 is quiesced, 0 has another weight; another scheduler, another order.
    std::fs::write(&path, file(&h, "wlc", &[(1, 0), (0, 7)]) + "[sizes]\npicks = 4096\n")?;
    let before = lvxd.adm("-S -n")?;
    let o = lvxd.try_adm(&format!("plan {name} --exit-code"))?;
    let plan = String::from_utf8(o.stdout)?;
    assert_eq!(o.status.code(), Some(2), "{plan}");
    for line in [
        format!("~ TCP {0} scheduler: rr -> wlc, order: {1} {2} -> {2} {1}", h.service(), h.server(0), h.server(1)),
        format!("~     {} weight: 1 -> 0  (1 connections go on, no new ones)", h.server(1)),
        format!("~     {} weight: 1 -> 7  (1 connections go on)", h.server(0)),
        format!("-     {}  (1 connections cut)", h.server(2)),
        "services: 0 added, 1 changed, 0 removed; servers: 0 added, 2 changed, 1 removed; 1 connections would be cut".into(),
        format!("only when lvxd starts anew: sizes.picks: {DEFAULT_PICKS} -> 4096"),
    ] {
        assert!(plan.contains(&line), "{plan}\nlacks {line}");
    }
    assert_eq!(lvxd.adm("-S -n")?, before, "planning changes nothing");
    for (bad, says) in [
        (file(&h, "nosuch", &[(0, 1)]), "new.toml:4:13: service.scheduler"),
        (file(&h, "rr", &[(0, 1), (0, 2)]), "new.toml:10:11: "),
        ("nosuch = 1".into(), "new.toml:1:1: "),
    ] {
        std::fs::write(&path, bad)?;
        for verb in ["plan", "apply"] {
            let o = lvxd.try_adm(&format!("{verb} {name}"))?;
            assert_eq!(o.status.code(), Some(1));
            assert!(text(&o).contains(says), "{}", text(&o));
        }
    }
    assert_eq!(lvxd.try_adm("apply /nonexistent/x.toml")?.status.code(), Some(1));
    assert_eq!(lvxd.adm("-S -n")?, before, "a bad file changes nothing");
    std::fs::write(&path, file(&h, "wlc", &[(1, 0), (0, 7)]))?;
    lvxd.adm(&format!("apply {name}"))?;
    for (s, who) in held.iter_mut().zip(&names).filter(|(_, who)| *who != "server-2") {
        assert_eq!(ask(s)?, *who, "its connection goes on");
    }
    let shares = h.requests(9)?;
    assert_eq!(shares.get("server-0"), Some(&9), "{shares:?}");
    same(lvxd)
}

/// SIGHUP is apply with the daemon's own file.
#[test]
fn reload() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let path = files.path().join("lvx.toml");
    std::fs::write(&path, "")?;
    let h = HttpLab::with(Layout::TwoArms, Method::Nat, false, 2, &["--config", &path.to_string_lossy()])?;
    let before = h.lvxd.adm("-S -n")?;
    let logged = |what: &str| {
        until(Duration::from_secs(10), || {
            ensure!(h.lvxd.log().contains(what), "{}", h.lvxd.log());
            Ok(())
        })
    };
    std::fs::write(&path, "[timeouts]\nudp = \"soon\"")?;
    h.lvxd.process.signal(Signal::HUP)?;
    logged("lvx.toml:2:7: timeouts.udp")?;
    assert_eq!(h.lvxd.adm("-S -n")?, before);
    std::fs::write(&path, file(&h, "sh", &[(1, 3)]) + "[tcp]\nsloppy_tcp = true\n[socket]\nmode = 0o600\n")?;
    h.lvxd.process.signal(Signal::HUP)?;
    logged("1 connections cut").or_else(|_| logged("0 connections cut"))?;
    logged("socket.mode stays")?;
    assert_eq!(h.lvxd.adm("-S -n")?, format!("-A -t {0} -s sh\n-a -t {0} -r {1} -m -w 3\n", h.service(), h.server(1)));
    assert!(h.lvxd.adm("export")?.contains("sloppy_tcp = true"));
    Ok(())
}

fn set_version(pins: &Path, abi: u32) -> Result<()> {
    let mut config: Array<_, Config> = Map::Array(MapData::from_pin(pins.join(map::CONFIG))?).try_into()?;
    let value = Config { abi, ..config.get(&0, 0)? };
    Ok(config.set(0, value, 0)?)
}

/// Maps of another release: lvxd says so and leaves them at work; they are drained or discarded.
#[test]
fn another_version() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = HttpLab::with(Layout::TwoArms, Method::Nat, false, 2, &["--stay-attached"])?;
    let mut held = connect(&h.lab.client, h.service())?;
    let who = ask(&mut held)?;
    h.lvxd.end(Signal::TERM)?;
    set_version(&h.lvxd.pins, 99)?;
    let o = h.lvxd.another(&[])?;
    assert_eq!(o.status.code(), Some(1));
    for part in ["version 99".to_owned(), format!("version {ABI_VERSION}"), "--drain".into(), "--discard".into()] {
        assert!(text(&o).contains(&part), "{}", text(&o));
    }
    assert_eq!(ask(&mut held)?, who, "the old program goes on");
    assert_eq!(h.requests(4)?.len(), 2);
    // Waits while a connection is active, and no longer.
    let closer = std::thread::spawn(move || -> Result<TcpStream> {
        std::thread::sleep(Duration::from_secs(2));
        let who = ask(&mut held).context("while it is drained")?;
        assert!(who.starts_with("server-"));
        drop(held.shutdown(std::net::Shutdown::Both));
        Ok(held)
    });
    let began = Instant::now();
    h.lvxd.start_again(&["--drain", "15"])?;
    let took = began.elapsed();
    closer.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(14), "{took:?}");
    // Services are those of the configuration: none.
    assert_eq!(h.lvxd.adm("-S -n")?, "");
    h.lvxd.adm(&format!("-A -t {} -s rr", h.service()))?;
    h.add(0)?;
    h.add(1)?;
    h.resolved(2)?;
    assert_eq!(h.requests(4)?.len(), 2);
    h.lvxd.end(Signal::KILL)?;
    set_version(&h.lvxd.pins, 1)?;
    h.lvxd.start_again(&["--discard"])?;
    assert_eq!(h.lvxd.adm("-S -n")?, "");
    assert_eq!(h.lvxd.adm("status")?.matches("native").count(), 2);
    Ok(())
}

/// What stays after an end, and how it is taken away.
#[test]
fn stay_and_detach() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = HttpLab::with(Layout::TwoArms, Method::Nat, false, 2, &["--stay-attached"])?;
    let director = h.lab.director.clone();
    let attached = || Ok::<_, anyhow::Error>(director.ip("link show dev out")?.contains("xdp"));
    let mut detach = director.command(binary("lvxd")?);
    detach.args(["--detach", "--pin-dir"]).arg(&h.lvxd.pins).arg("--socket").arg(&h.lvxd.socket);
    let o = detach.output()?;
    assert_eq!(o.status.code(), Some(1));
    assert!(text(&o).contains(&format!("process {}", h.lvxd.process.child.id())), "{}", text(&o));
    h.lvxd.end(Signal::INT)?;
    assert!(attached()?);
    assert_eq!(h.requests(4)?.len(), 2, "balanced without a daemon");
    for says in ["took away", "nothing is pinned"] {
        let o = detach.output()?;
        assert!(o.status.success() && text(&o).contains(says), "{}", text(&o));
    }
    assert!(!attached()? && !h.lvxd.pins.exists());
    assert_eq!(std::fs::read_dir(h.lvxd.files())?.count(), 1, "only the configuration is left");
    // The other way: nothing stays.
    h.lvxd.start_again(&[])?;
    h.lvxd.end(Signal::KILL)?;
    let words: Vec<_> = ["--interface", "out", "--detach-on-exit", "--config", "/dev/null"].into();
    let mut other = director.command(binary("lvxd")?);
    other.args(words).arg("--pin-dir").arg(&h.lvxd.pins).arg("--socket").arg(&h.lvxd.socket);
    let mut other = director.start(&mut other)?;
    until(Duration::from_secs(20), || h.lvxd.adm("-L -n").map(drop))?;
    other.signal(Signal::INT)?;
    assert!(other.wait(Duration::from_secs(10))?.success());
    assert!(!attached()? && !h.lvxd.pins.exists());
    Ok(())
}

/// The tables of `mh` change their size while connections last; clients keep going to one server, before, after, and after a kill.
#[test]
fn size_of_mh_tables() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = HttpLab::new(Layout::TwoArms, Method::Nat, false, 3)?;
    let path = h.lvxd.files().join("new.toml");
    let name = path.to_string_lossy().into_owned();
    let service = file(&h, "mh", &[(0, 1), (1, 1), (2, 1)]);
    std::fs::write(&path, &service)?;
    h.lvxd.adm(&format!("apply {name}"))?;
    // All connections are one client's, which the table gives one server.
    let one_server = |h: &HttpLab| -> Result<String> {
        let shares = h.requests(6)?;
        ensure!(shares.len() == 1, "{shares:?}");
        Ok(shares.into_keys().next().unwrap_or_default())
    };
    let mut held = connect(&h.lab.client, h.service())?;
    let who = ask(&mut held)?;
    assert_eq!(one_server(&h)?, who);
    let with = |index: u32| format!("[schedulers]\nmh_tab_index = {index}\n{service}");
    std::fs::write(&path, with(16))?;
    let plan = h.lvxd.adm(&format!("plan {name}"))?;
    assert!(plan.contains("~ schedulers.mh_tab_index: 12 -> 16\n"), "{plan}");
    h.lvxd.adm(&format!("apply {name}"))?;
    assert_eq!(ask(&mut held)?, who, "a connection stays");
    let after = one_server(&h)?;
    std::fs::write(&path, with(7))?;
    let o = h.lvxd.try_adm(&format!("apply {name}"))?;
    assert_eq!(o.status.code(), Some(1));
    assert!(text(&o).contains("new.toml:2:16: schedulers.mh_tab_index: 7 is not within 8 to 17"), "{}", text(&o));
    assert!(h.lvxd.adm("export")?.contains("mh_tab_index = 16"));
    h.lvxd.end(Signal::KILL)?;
    assert_eq!(one_server(&h)?, after, "without a daemon");
    h.lvxd.start_again(&[])?;
    assert!(h.lvxd.adm("export")?.contains("mh_tab_index = 16"), "it is kept");
    assert_eq!(one_server(&h)?, after);
    assert_eq!(ask(&mut held)?, who);
    Ok(())
}
