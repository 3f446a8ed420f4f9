//! `lvxadm top` in a real pseudo-terminal, against a real lvxd with traffic.

use anyhow::{Context, Result};
use lvx_tests::lab::{HttpLab, Layout, Lvxd, Method, Pty, Running, binary, possible};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::Duration;

fn top(lvxd: &Lvxd, columns: u16, rows: u16) -> Result<Pty> {
    let mut c = Command::new(binary("lvxadm")?);
    c.args(["top", "--interval", "0.2"]).env("LVX_SOCKET", &lvxd.socket).env_remove("NO_COLOR");
    Pty::start(&mut c, columns, rows)
}

/// A new connection for each request, for a minute at most.
fn traffic(h: &HttpLab) -> Result<Running> {
    let mut c = h.lab.client.command("wrk");
    c.args(["-t1", "-c4", "-d60s", "-H", "Connection: close"]).arg(h.url("")).stdout(Stdio::null()).stderr(Stdio::null());
    h.lab.client.start(&mut c)
}

/// The terminal is as the shell left it.
fn is_given_back(pty: &Pty) -> Result<()> {
    pty.until("the ordinary screen is back", |_| !pty.is_alternate() && !pty.is_cursor_hidden())?;
    assert!(pty.is_cooked()?);
    Ok(())
}

/// The line of a server, by the column's number from the name's.
fn number(screen: &str, server: &str, column: usize) -> Option<f64> {
    let line = screen.lines().find(|l| l.contains(&format!("-> {server} ")))?;
    let text = line.split_whitespace().nth(1 + column)?;
    let (digits, factor) = text.strip_suffix('K').map_or((text, 1.0), |t| (t, 1000.0));
    Some(digits.parse::<f64>().ok()? * factor)
}

#[test]
fn rates_sorting_filters_and_the_way_to_connections() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, false, 3)?;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 0", h.service(), h.server(2)))?;
    let _traffic = traffic(&h)?;
    let mut t = top(&h.lvxd, 80, 24)?;
    let server = h.server(0).to_string();
    // Columns: state, weight, active, inactive, CPS, InPPS, OutPPS.
    let screen = t.until("a server has new connections and answers", |s| {
        [5, 6, 7].iter().all(|c| number(s, &server, *c).is_some_and(|n| n > 0.0))
    })?;
    assert!(t.is_alternate() && !t.is_cooked()?);
    assert!(
        screen.contains(&format!("TCP {} rr", h.service())) && screen.contains("2/3") && screen.contains("quies"),
        "{screen}"
    );
    for line in screen.lines() {
        assert!(line.chars().count() <= 80, "{screen}");
    }

    t.type_in("c")?;
    let last = h.server(2).to_string();
    t.until("the server without connections is last", |s| {
        let servers: Vec<&str> = s.lines().filter(|l| l.contains("-> ")).collect();
        s.contains("by CPS, most first") && servers.len() == 3 && servers[2].contains(&last)
    })?;
    t.type_in(&format!("/{last}"))?;
    t.until("the filter has left one server", |s| s.matches("-> ").count() == 1 && s.contains(&format!("filter: {last}_")))?;
    t.type_in("\x1b")?;
    t.until("the filter is gone", |s| s.matches("-> ").count() == 3)?;
    t.type_in("g\r")?;
    t.until("the service's servers", |s| s.contains(": servers") && s.matches("-> ").count() == 3)?;
    t.type_in("\r")?;
    t.until("a server's connections", |s| s.contains(": connections") && s.contains("TIME_WAIT") && s.contains("to 1"))?;
    t.type_in("\x7f\x7f")?;
    t.until("all services", |s| s.contains("All services"))?;
    t.type_in("?")?;
    t.until("help", |s| s.contains("any key goes back"))?;
    t.type_in("? ")?;
    t.until("pause", |s| s.contains("PAUSED"))?;

    t.resize(120, 30)?;
    t.until("a wide screen says more", |s| s.contains("Forward") && s.contains("quiesced"))?;
    for (columns, rows) in [(50, 10), (20, 5), (3, 2), (1, 1)] {
        t.resize(columns, rows)?;
        std::thread::sleep(Duration::from_millis(100));
        assert!(t.process.child.try_wait()?.is_none(), "it ended at {columns} by {rows}");
    }
    t.resize(80, 24)?;
    t.until("the first size again", |s| s.contains("All services") && s.contains("OutPPS"))?;
    t.type_in("q")?;
    let status = t.process.wait(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    is_given_back(&t)
}

#[test]
fn the_daemon_goes_away_and_comes_back() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = HttpLab::new(Layout::Stick, Method::Dr, true, 1)?;
    let mut t = top(&h.lvxd, 100, 24)?;
    t.until("the service", |s| s.contains("rr") && s.contains("1/1"))?;
    h.lvxd.process.signal(Signal::TERM)?;
    h.lvxd.process.wait(Duration::from_secs(20))?;
    // What was known stays, and it is said that this is the past.
    t.until("the loss is told", |s| s.contains("LOST") && s.contains("1/1"))?;
    let mut c = h.lab.director.command(binary("lvxd")?);
    c.arg("--socket").arg(&h.lvxd.socket).arg("--pin-dir").arg(&h.lvxd.pins);
    let config = h.lvxd.socket.with_file_name("lvx.toml");
    c.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    for i in &h.lab.interfaces {
        c.arg("--interface").arg(i);
    }
    h.lvxd.process = h.lab.director.start(&mut c)?;
    t.until("the new daemon's state", |s| !s.contains("LOST") && s.contains("Nothing here"))?;
    t.type_in("\x03")?;
    let status = t.process.wait(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    is_given_back(&t)
}

#[test]
fn signals_and_what_is_no_terminal() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::Stick, Method::Nat, false, 1)?;
    for (signal, number) in [(Signal::TERM, 15), (Signal::HUP, 1)] {
        let mut t = top(&h.lvxd, 80, 24)?;
        t.until("the service", |s| s.contains("1/1"))?;
        assert!(t.is_alternate());
        t.process.signal(signal)?;
        let status = t.process.wait(Duration::from_secs(10))?;
        assert_eq!(status.code(), Some(128 + number));
        is_given_back(&t)?;
    }
    let output = h.lvxd.try_adm("top")?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty() && said.contains("terminal") && said.contains("-L -n --rate"), "{said}");
    // No daemon: an ordinary error, on the ordinary screen.
    let mut c = Command::new(binary("lvxadm")?);
    c.args(["top", "--socket", "/nonexistent/lvxd.sock"]);
    let mut t = Pty::start(&mut c, 80, 24)?;
    t.until("the error", |s| s.contains("cannot reach the daemon"))?;
    assert_eq!(t.process.wait(Duration::from_secs(10))?.code(), Some(1));
    assert!(!t.is_alternate(), "{}", t.screen());
    let wrong = h.lvxd.try_adm("top --interval 0").context("lvxadm")?;
    assert_eq!(wrong.status.code(), Some(2));
    Ok(())
}
