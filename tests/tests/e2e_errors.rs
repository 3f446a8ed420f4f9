//! What goes wrong is said plainly, with a status, and changes nothing.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{Lab, Layout, Lvxd, Method, Ns, possible, until};
use std::process::Command;
use std::time::Duration;

fn director() -> Result<Ns> {
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    // The other end lives as long as the interface is used.
    std::mem::forget(other);
    Ok(ns)
}

fn text(o: &std::process::Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

#[test]
fn commands() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let ns = director()?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    lvxd.adm("-A -t 192.0.2.1:80 -s rr")?;
    lvxd.adm("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m")?;
    let before = lvxd.adm("-S -n")?;
    for (words, status, says) in [
        ("-A -t 192.0.2.1:80 -s rr", 255, "Service already exists: service TCP 192.0.2.1:80"),
        ("-A -t 192.0.2.1:81 -s nosuch", 255, "Scheduler or persistence engine not found"),
        ("-A -t 192.0.2.1:0 -s rr", 2, "Zero port specified for non-persistent service"),
        ("-A -t 192.0.2.300:80 -s rr", 2, "illegal virtual server address[:port] specified"),
        ("-A -t 224.0.0.1:80 -s rr", 255, "service TCP 224.0.0.1:80: not a unicast address"),
        ("-D -t 192.0.2.1:81", 255, "No such service: there is no service TCP 192.0.2.1:81"),
        ("-a -t 192.0.2.1:81 -r 10.0.0.1 -m", 255, "Service not defined"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m", 255, "Destination already exists"),
        ("-d -t 192.0.2.1:80 -r 10.0.0.9:80", 255, "No such destination"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.2 -m -w x", 2, "illegal weight specified"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.2:70000 -m", 2, "illegal real server address[:port] specified"),
        ("-a -t 192.0.2.1:80 -r [2001:db8::1]:80 -m", 2, "Different address family"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.2 -m -x 1 -y 2", 255, "Numerical result out of range"),
        ("-A -f 7 -s rr", 2, "firewall-mark service (--fwmark-service)"),
        ("-A --sctp-service 192.0.2.1:80 -s rr", 2, "SCTP (--sctp-service)"),
        ("--start-daemon master", 2, "--start-daemon"),
        ("-L -n -t 192.0.2.9:80", 1, "No such service"),
        ("--nosuch", 255, "--nosuch: unknown option"),
        ("decap nosuch0", 1, "interface nosuch0: no such interface"),
        ("decap lo --detach", 1, "interface lo: no decapsulating program is on it"),
    ] {
        let o = lvxd.try_adm(words)?;
        assert_eq!(o.status.code(), Some(status), "{words}: {}", text(&o));
        assert!(text(&o).contains(says), "{words}: {}", text(&o));
    }
    assert_eq!(lvxd.adm("-S -n")?, before);
    Ok(())
}

#[test]
fn requests() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let ns = director()?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    let post = |route: &str, body: &str| -> Result<String> {
        let mut c = Command::new("curl");
        c.args(["-sS", "--max-time", "5", "-w", " %{http_code}", "--unix-socket"]).arg(&lvxd.socket);
        c.args(["-H", "content-type: application/json", "-d", body]).arg(format!("http://lvxd{route}"));
        Ok(String::from_utf8_lossy(&c.output()?.stdout).into_owned())
    };
    let service = r#"{"protocol":"tcp","address":"192.0.2.1","port":80,"scheduler":"rr"}"#;
    for (route, body, says) in [
        ("/v1/edits", "{", "400"),
        ("/v1/edits", r#"{"edits":[{"op":"nosuch"}]}"#, "nosuch"),
        ("/v1/edits", r#"{"edits":[{"op":"clear"}],"more":1}"#, "more"),
        (
            "/v1/edits",
            r#"{"edits":[{"op":"add_service","service":{"protocol":"tcp","address":"192.0.2.x","port":80,"scheduler":"rr"}}]}"#,
            "400",
        ),
        (
            "/v1/edits",
            r#"{"edits":[{"op":"add_service","service":{"protocol":"tcp","address":"192.0.2.1","port":70000,"scheduler":"rr"}}]}"#,
            "400",
        ),
        (
            "/v1/edits",
            r#"{"edits":[{"op":"delete_service","service":{"protocol":"tcp","address":"192.0.2.1","port":80}}]}"#,
            "404",
        ),
        ("/v1/nosuch", "{}", "404"),
    ] {
        let answer = post(route, body)?;
        assert!(answer.contains(says), "{body}: {answer}");
        assert!(!answer.ends_with("204") && !answer.ends_with("200"), "{body}: {answer}");
    }
    // All or nothing: the second edit is bad.
    let twice = format!(r#"{{"edits":[{{"op":"add_service","service":{service}}},{{"op":"add_service","service":{service}}}]}}"#);
    let answer = post("/v1/edits", &twice)?;
    assert!(answer.ends_with("409"), "{answer}");
    assert_eq!(lvxd.adm("-S -n")?, "");
    Ok(())
}

#[test]
fn a_second_instance_is_refused_by_name() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let ns = director()?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    let pins = lvxd.pins.clone();
    // Its own clean-up would take the first one's pins: only the message is looked at.
    let mut c = ns.command(lvx_tests::lab::binary("lvxd")?);
    c.args(["--interface", "eth0", "--socket", "/tmp/lvx-never.sock", "--pin-dir"]).arg(&pins);
    let o = c.output()?;
    assert_eq!(o.status.code(), Some(1));
    assert!(text(&o).contains(&lvxd.process.child.id().to_string()), "{}", text(&o));
    assert!(text(&o).contains(&pins.display().to_string()), "{}", text(&o));
    lvxd.adm("-L -n")?;
    lvxd.stop()?;
    assert!(!pins.exists() || std::fs::read_dir(&pins)?.next().is_none(), "pins are left");
    assert!(!ns.ip("link show dev eth0")?.contains("xdp"));
    Ok(())
}

#[test]
fn interfaces_that_are_not_there() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let ns = director()?;
    let e = Lvxd::start(&ns, &["nosuch0"], &[]).err().context("it started")?.to_string();
    assert!(e.contains("nosuch0: no such interface"), "{e}");
    let e = Lvxd::start(&ns, &[], &[]).err().context("it started")?.to_string();
    assert!(e.contains("interface"), "{e}");
    Ok(())
}

/// An interface that goes away and comes back is balanced on again.
#[test]
fn an_interface_comes_back() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    ns.ip("link del dev eth0")?;
    let shows = |what: &str| {
        until(Duration::from_secs(10), || {
            let status = lvxd.adm("status")?;
            ensure!(status.contains(what), "{status}");
            Ok(())
        })
    };
    shows("absent")?;
    ns.cable("eth0", &other, "eth0", 1500)?;
    shows("native")?;
    ensure!(ns.ip("link show dev eth0")?.contains("xdp"));
    Ok(())
}

/// Generic mode, where it is asked for.
#[test]
fn generic_mode() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let ns = director()?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &["--mode", "generic"])?;
    assert!(lvxd.adm("status")?.contains("generic"));
    assert!(ns.ip("link show dev eth0")?.contains("xdpgeneric"));
    Ok(())
}

/// A bad configuration is refused before anything is touched, by line and key.
#[test]
fn configurations() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let path = files.path().join("lvx.toml");
    let check = || -> Result<std::process::Output> {
        Ok(Command::new(lvx_tests::lab::binary("lvxd")?)
            .args(["--check", "--interface", "eth0", "--config"])
            .arg(&path)
            .output()?)
    };
    for (toml, says) in [
        ("nosuch = 1", "nosuch"),
        ("mode = \"fast\"", "mode"),
        ("interfaces = [", "lvx.toml"),
        ("[sizes]\nconnections = 0", "connections"),
    ] {
        std::fs::write(&path, toml)?;
        let o = check()?;
        assert_ne!(o.status.code(), Some(0), "{toml}");
        assert!(text(&o).contains(says), "{toml}: {}", text(&o));
    }
    std::fs::write(&path, "")?;
    assert!(check()?.status.success());
    Ok(())
}

/// `lvxadm` without a daemon.
#[test]
fn nobody_there() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let o = Command::new(lvx_tests::lab::binary("lvxadm")?).args(["--socket", "/nonexistent/lvxd.sock", "-L"]).output()?;
    assert_eq!(o.status.code(), Some(2));
    assert!(text(&o).contains("/nonexistent/lvxd.sock") && text(&o).contains("is lvxd running?"), "{}", text(&o));
    Ok(())
}

/// Ready within 300 ms, a thousand services with ten servers each within two seconds.
#[test]
fn start_and_apply_in_time() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let lab = Lab::new(Layout::TwoArms, Method::Nat, 1)?;
    let lvxd = lab.start()?;
    let mut rules = String::new();
    for s in 0..1000 {
        rules.push_str(&format!("-A -t 10.9.{}.{}:80 -s rr\n", 1 + s / 250, 1 + s % 250));
        for d in 0..10 {
            rules.push_str(&format!("-a -t 10.9.{}.{}:80 -r 10.2.0.{}:80 -m\n", 1 + s / 250, 1 + s % 250, 20 + d));
        }
    }
    let began = std::time::Instant::now();
    let mut c = Command::new(lvx_tests::lab::binary("lvxadm")?);
    c.env("LVX_SOCKET", &lvxd.socket).arg("-R").stdin(std::process::Stdio::piped());
    let mut child = c.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no stdin")?, rules.as_bytes())?;
    ensure!(child.wait()?.success());
    let took = began.elapsed();
    assert_eq!(lvxd.adm("-S -n")?.lines().count(), 11_000);
    println!("ready after {:?}, 11,000 rules after {took:?}", lvxd.ready_after);
    // On a busy machine, and without optimization: an order of magnitude is what is asserted.
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(lvxd.ready_after < Duration::from_secs(5), "{:?}", lvxd.ready_after);
    Ok(())
}
