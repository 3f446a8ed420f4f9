//! What Prometheus would see, by real scrapes of a real daemon under traffic.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{HttpLab, Lab, Layout, Lvxd, Method, Nginx, Ns, binary, possible, until};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LISTEN: &str = "127.0.0.1:9188";

/// HTTP through the director, with a configuration.
fn http_lab(config: &Path, v6: bool) -> Result<HttpLab> {
    let lab = Lab::new(Layout::TwoArms, Method::Nat, 2)?;
    lab.director.ip("link set dev lo up")?;
    let nginx = lab.servers.iter().enumerate().map(|(i, s)| Nginx::start(s, &format!("server-{i}\n"), &[8080]));
    let nginx = nginx.collect::<Result<Vec<_>>>()?;
    let lvxd = Lvxd::start(&lab.director, &lab.interfaces, &["--config", &config.display().to_string()])?;
    let h = HttpLab { lvxd, nginx, lab, v6 };
    h.lvxd.adm(&format!("-A -t {} -s rr", h.service()))?;
    h.add(0)?;
    h.add(1)?;
    h.resolved(2)?;
    Ok(h)
}

/// A request from the director itself: status, media type and body.
fn curl(ns: &Ns, words: &[&str]) -> Result<(String, String)> {
    let mut c = ns.command("curl");
    c.args(["-sS", "--max-time", "20", "-w", "\n%{http_code} %{content_type}"]).args(words);
    let o = c.output()?;
    ensure!(o.status.success(), "curl {words:?}: {}", String::from_utf8_lossy(&o.stderr));
    let text = String::from_utf8(o.stdout)?;
    let (body, tail) = text.rsplit_once('\n').context("no status")?;
    Ok((tail.to_owned(), body.to_owned()))
}

/// All samples, by name and labels; every one of them once, under one HELP and one TYPE.
fn samples(page: &str) -> Result<BTreeMap<String, f64>> {
    let (mut all, mut seen, mut now) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            now = help.split(' ').next().unwrap_or_default().to_owned();
            ensure!(seen.insert(now.clone()), "{now} twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            ensure!(kind.starts_with(&format!("{now} ")), "{line}");
            ensure!(kind.ends_with("counter") == now.ends_with("_total"), "{line}");
            continue;
        }
        let (key, value) = line.rsplit_once(' ').with_context(|| format!("`{line}`"))?;
        ensure!(key.split('{').next() == Some(&now) && now.starts_with("lvx_"), "{line} under {now}");
        ensure!(all.insert(key.to_owned(), value.parse::<f64>()?).is_none(), "{key} twice");
    }
    Ok(all)
}

fn scrape(h: &HttpLab) -> Result<BTreeMap<String, f64>> {
    let (status, page) = curl(&h.lab.director, &[&format!("http://{LISTEN}/metrics")])?;
    ensure!(status == "200 text/plain; version=0.0.4; charset=utf-8", "{status}");
    samples(&page)
}

/// promtool's opinion of a page.
fn promtool(page: &str) -> Result<()> {
    let mut c = Command::new("promtool");
    let mut child = c.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(page.as_bytes())?;
    let o = child.wait_with_output()?;
    let said = [o.stdout, o.stderr].concat();
    ensure!(o.status.success() && said.is_empty(), "promtool: {}\n{page}", String::from_utf8_lossy(&said));
    Ok(())
}

fn counters_and_gauges(v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let config = files.path().join("lvx.toml");
    std::fs::write(&config, format!("[metrics]\nlisten = \"{LISTEN}\""))?;
    let h = http_lab(&config, v6)?;
    h.requests(20)?;
    let (service, server) = (h.service(), h.server(0));
    let of_service = |name: &str| format!("lvx_service_{name}{{protocol=\"tcp\",service=\"{service}\"}}");
    let of_server = |name: &str| format!("lvx_server_{name}{{protocol=\"tcp\",service=\"{service}\",server=\"{server}\"}}");
    let get = |all: &BTreeMap<String, f64>, key: &str| all.get(key).copied().with_context(|| format!("no {key} in {all:#?}"));

    let (_, page) = curl(&h.lab.director, &[&format!("http://{LISTEN}/metrics")])?;
    promtool(&page)?;
    let first = samples(&page)?;
    // The same by the control socket.
    let socket = h.lvxd.socket.display().to_string();
    let (_, other) = curl(&h.lab.director, &["--unix-socket", &socket, "http://lvxd/metrics"])?;
    assert_eq!(samples(&other)?.keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>());

    // What lvxadm says, once the last packets of the connections came.
    let pairs = [
        ("connections_total", "connections"),
        ("incoming_packets_total", "in_packets"),
        ("outgoing_packets_total", "out_packets"),
        ("incoming_bytes_total", "in_bytes"),
        ("outgoing_bytes_total", "out_bytes"),
    ];
    let now = until(Duration::from_secs(10), || {
        let list: serde_json::Value = serde_json::from_str(&h.lvxd.adm("-L -n --json")?)?;
        let now = scrape(&h)?;
        let shown = &list["services"][0];
        let of_one = shown["servers"].as_array().context("servers")?.iter().find(|s| s["address"] == server.ip().to_string());
        let of_one = of_one.context("server")?;
        for (metric, field) in pairs {
            for (key, of) in [(of_service(metric), shown), (of_server(metric), of_one)] {
                let (n, said) = (get(&now, &key)?, of["stats"][field].as_f64().context(field)?);
                ensure!(n == said, "{key} is {n}, and lvxadm says {said}");
            }
        }
        // Every packet of these connections has one verdict, that of its direction.
        for (verdict, metric) in [("forwarded_nat", "incoming_packets_total"), ("forwarded_nat_reply", "outgoing_packets_total")]
        {
            let (n, counted) =
                (get(&now, &format!("lvx_packets_total{{verdict=\"{verdict}\"}}"))?, get(&now, &of_service(metric))?);
            ensure!(n == counted && n > 0.0, "{n} {verdict}, and {metric} is {counted}");
        }
        Ok(now)
    })?;
    assert_eq!(get(&now, &of_service("connections_total"))?, 20.0);
    assert_eq!(get(&now, &of_server("connections_total"))?, 10.0);
    assert_eq!((get(&now, &of_server("weight"))?, get(&now, &of_server("resolved"))?), (1.0, 1.0));
    assert_eq!(get(&now, &of_server("overloaded"))?, 0.0);
    assert_eq!(get(&now, &of_service("servers"))?, 2.0);
    assert_eq!(get(&now, "lvx_services")?, 1.0);
    ensure!(get(&now, &format!("lvx_interface_info{{interface=\"{}\",mode=\"native\"}}", h.lab.interfaces[0]))? == 1.0);
    ensure!(get(&now, "lvx_planner_plans_total")? >= 1.0);
    let family = if v6 { "ipv6" } else { "ipv4" };
    ensure!(get(&now, &format!("lvx_table_capacity{{family=\"{family}\"}}"))? >= 1e6);

    // By state, once the sweeper came by: all closed.
    until(Duration::from_secs(20), || {
        let now = scrape(&h)?;
        let closed = get(&now, &format!("lvx_connections{{family=\"{family}\",state=\"TIME_WAIT\"}}"))?;
        ensure!(closed == 20.0, "{closed} in TIME_WAIT");
        ensure!(get(&now, &format!("lvx_table_used{{family=\"{family}\"}}"))? == 20.0);
        ensure!(get(&now, &of_server("connections_inactive"))? == 10.0);
        Ok(())
    })?;

    // Neither zeroing nor a server that goes turns a counter back.
    let before = scrape(&h)?;
    h.lvxd.adm("-Z")?;
    h.requests(4)?;
    h.lvxd.adm(&format!("-d -t {service} -r {}", h.server(1)))?;
    let after = scrape(&h)?;
    for (key, &n) in before.iter().filter(|(key, _)| key.split('{').next().is_some_and(|name| name.ends_with("_total"))) {
        match after.get(key) {
            Some(&later) => ensure!(later >= n, "{key}: {later} after {n}"),
            None => ensure!(key.contains(&format!("server=\"{}\"", h.server(1))), "{key} is gone"),
        }
    }
    assert_eq!(get(&after, &of_service("connections_total"))?, 24.0);
    assert_eq!(get(&after, &of_server("connections_total"))?, 12.0);
    assert_eq!(
        h.lvxd.adm(&format!("-L -n -t {service} --stats"))?.lines().last().and_then(|l| l.split_whitespace().nth(2)),
        Some("2")
    );
    Ok(())
}

#[test]
fn counters_and_gauges_v4() -> Result<()> {
    counters_and_gauges(false)
}

#[test]
fn counters_and_gauges_v6() -> Result<()> {
    counters_and_gauges(true)
}

/// By the network there is nothing but metrics and health, and nothing but reading.
#[test]
fn the_listener_is_for_metrics() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    ns.ip("link set dev lo up")?;
    let files = tempfile::tempdir()?;
    let config = files.path().join("lvx.toml");
    let start = |text: &str| -> Result<Lvxd> {
        std::fs::write(&config, text)?;
        Lvxd::start(&ns, &["eth0"], &["--config", &config.display().to_string()])
    };
    let lvxd = start(&format!("[metrics]\nlisten = \"{LISTEN}\""))?;
    let url = |path: &str| format!("http://{LISTEN}{path}");
    assert_eq!(curl(&ns, &[&url("/-/healthy")])?.1, "healthy\n");
    assert!(curl(&ns, &["-I", &url("/metrics")])?.0.starts_with("200 "));
    for (words, status, names) in [
        (vec![], "404", "/v1/services"),
        (vec!["-d", r#"{"edits":[{"op":"clear"}]}"#], "404", "/v1/services"),
        (vec!["-X", "DELETE"], "404", "/v1/services"),
    ] {
        let (got, body) = curl(&ns, &[words, vec![&url("/v1/services")]].concat())?;
        ensure!(got.starts_with(status) && body.contains(names) && body.contains("\"error\""), "{got} {body}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (got, body) = curl(&ns, &["-X", method, &url("/metrics")])?;
        ensure!(got.starts_with("405") && body.contains(&format!("/metrics does not take {method}")), "{got} {body}");
    }
    // Idle and slow clients, more than there are places.
    let stuck: Vec<std::net::TcpStream> = (0..100)
        .map(|i| {
            let mut s = ns.run(|| std::net::TcpStream::connect(LISTEN))?;
            let sent: &[u8] = if i % 2 == 0 { b"" } else { b"GET /metrics HTTP/1.1\r\nx" };
            let _ = s.write_all(sent);
            Ok(s)
        })
        .collect::<Result<_>>()?;
    let began = std::time::Instant::now();
    promtool(&curl(&ns, &[&url("/metrics")])?.1)?;
    ensure!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(stuck);

    // A configuration that cannot be used is counted, and so is one that can.
    let reloads = |outcome: &str, n: f64| {
        until(Duration::from_secs(10), || {
            let all = samples(&curl(&ns, &[&url("/metrics")])?.1)?;
            let got = all[&format!("lvx_config_reloads_total{{outcome=\"{outcome}\"}}")];
            ensure!(got == n, "{got} of outcome {outcome}");
            Ok(all["lvx_config_last_reload_successful"])
        })
    };
    std::fs::write(&config, "nonsense")?;
    lvxd.process.signal(Signal::HUP)?;
    assert_eq!(reloads("failure", 1.0)?, 0.0);
    std::fs::write(&config, "")?;
    lvxd.process.signal(Signal::HUP)?;
    assert_eq!(reloads("success", 1.0)?, 1.0);

    // The address is taken.
    let e = start(&format!("[metrics]\nlisten = \"{LISTEN}\"")).err().context("it started")?.to_string();
    ensure!(e.contains(LISTEN) && e.contains("in use"), "{e}");
    drop(lvxd);
    // Off unless asked for; never open to others by accident.
    let lvxd = start("")?;
    ensure!(ns.run(|| std::net::TcpStream::connect(LISTEN)).is_err(), "somebody listens");
    drop(lvxd);
    std::fs::write(&config, "[metrics]\nlisten = \"0.0.0.0:9188\"")?;
    let o = Command::new(binary("lvxd")?).args(["--check", "--interface", "eth0", "--config"]).arg(&config).output()?;
    let said = String::from_utf8_lossy(&o.stderr);
    ensure!(!o.status.success() && said.contains("0.0.0.0:9188") && said.contains("allow_remote"), "{said}");
    Ok(())
}

/// Nanoseconds of CPU that the daemon's threads had: that of the core, and all.
fn cpu_ns(pid: u32) -> Result<(u64, u64)> {
    let (mut core, mut all) = (0, 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = task?.path();
        let (Ok(name), Ok(stat)) = (std::fs::read_to_string(dir.join("comm")), std::fs::read_to_string(dir.join("schedstat")))
        else {
            continue;
        };
        let ns: u64 = stat.split(' ').next().context("no time")?.parse()?;
        all += ns;
        if name.trim() == "core" {
            core += ns;
        }
    }
    Ok((core, all))
}

/// 1,000 services with 10 servers each. What is asserted holds on a busy machine and without optimization; what is printed is to be
/// read on a quiet one.
#[test]
fn ten_thousand_servers_are_read_in_time() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    let mut rules = String::new();
    for s in 0..1000 {
        let vip = format!("10.9.{}.{}:80", 1 + s / 250, 1 + s % 250);
        rules.push_str(&format!("-A -t {vip} -s rr\n"));
        for d in 0..10 {
            rules.push_str(&format!("-a -t {vip} -r 10.2.0.{}:80 -m\n", 20 + d));
        }
    }
    let mut c = Command::new(binary("lvxadm")?);
    let mut child = c.env("LVX_SOCKET", &lvxd.socket).arg("-R").stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success());
    let (socket, pid) = (lvxd.socket.display().to_string(), lvxd.process.child.id());
    for (route, least) in [("/v1/services", 10_000), ("/metrics", 120_000)] {
        let mut c = Command::new("curl");
        c.args(["-sS", "--max-time", "60", "--unix-socket", &socket, "-o", "/dev/null", "-w", "%{time_total}\n"]);
        let before = cpu_ns(pid)?;
        let o = c.args(vec![format!("http://lvxd{route}"); 1]).output()?;
        ensure!(o.status.success(), "{route}");
        let mut best = f64::MAX;
        for _ in 0..9 {
            let o = c.output()?;
            best = best.min(String::from_utf8_lossy(&o.stdout).trim().parse::<f64>()?);
        }
        let after = cpu_ns(pid)?;
        let ms = |a: u64, b: u64| (b - a) as f64 / 10.0 / 1e6;
        println!(
            "{route}: {:.1} ms at best, {:.1} ms of CPU each, {:.2} ms of these in the core's thread",
            best * 1e3,
            ms(before.1, after.1),
            ms(before.0, after.0)
        );
        let (_, body) = curl(&ns, &["--unix-socket", &socket, &format!("http://lvxd{route}")])?;
        let found = if route == "/metrics" { samples(&body)?.len() } else { body.matches("\"resolved\"").count() };
        ensure!(found >= least, "{found}");
        ensure!(best < 5.0, "{route}: {best} s");
    }
    Ok(())
}
