//! UDP through the director.

use anyhow::{Context, Result};
use lvx_tests::lab::{Lab, Layout, Method, UdpEcho, possible, until};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

fn echo(method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let lab = Lab::new(Layout::TwoArms, method, 3)?;
    let port = if method == Method::Nat { 9053 } else { 53 };
    let mut servers = Vec::new();
    for (i, s) in lab.servers.iter().enumerate() {
        let own = if method == Method::Nat { lab.server(v6, i) } else { lab.vip(v6) };
        servers.push(UdpEcho::start(s, &format!("server-{i}"), &[(own, port)])?);
    }
    let lvxd = lab.start()?;
    let service = SocketAddr::new(lab.vip(v6), 53);
    lvxd.adm(&format!("-A -u {service} -s rr"))?;
    for i in 0..3 {
        let server = SocketAddr::new(lab.server(v6, i), port);
        lvxd.adm(&format!("-a -u {service} -r {server} {}", method.option()))?;
    }
    until(Duration::from_secs(10), || {
        let list = lvxd.adm("-L -n --json")?;
        anyhow::ensure!(list.matches("\"resolved\": true").count() == 3, "{list}");
        Ok(())
    })?;
    let shares = lab.client.run(|| -> Result<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        // They stay open: the next would now and then have the port of one before, and so its connection.
        let mut sockets = Vec::new();
        for n in 0..30u32 {
            let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse()?;
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            // Connected: an answer from anywhere but the service is not taken.
            socket.connect(service)?;
            let mut first: Option<String> = None;
            for size in [1usize, 17, 1400] {
                let message = format!("{n:0>size$}");
                socket.send(message.as_bytes())?;
                let mut buffer = [0; 2048];
                let len = socket.recv(&mut buffer).with_context(|| format!("message {n} of {size} bytes"))?;
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let (name, back) = text.split_once(' ').context("no name")?;
                assert_eq!(back, message);
                // One flow, one server.
                assert_eq!(first.get_or_insert_with(|| name.to_owned()), name);
            }
            *shares.entry(first.unwrap_or_default()).or_default() += 1;
            sockets.push(socket);
        }
        Ok(shares)
    })?;
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [10, 10, 10], "{shares:?}");
    Ok(())
}

/// `-o`: one connected socket, which takes answers from the service alone, is served by all servers in turn, and no connection is
/// kept. Under NAT the kernel's IPVS leaves such a client without an answer.
fn one_packet(method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let lab = Lab::new(Layout::TwoArms, method, 3)?;
    let port = if method == Method::Nat { 9053 } else { 53 };
    let mut servers = Vec::new();
    for (i, s) in lab.servers.iter().enumerate() {
        let own = if method == Method::Nat { lab.server(v6, i) } else { lab.vip(v6) };
        servers.push(UdpEcho::start(s, &format!("server-{i}"), &[(own, port)])?);
    }
    let lvxd = lab.start()?;
    let service = SocketAddr::new(lab.vip(v6), 53);
    lvxd.adm(&format!("-A -u {service} -s rr -o"))?;
    for i in 0..3 {
        let server = SocketAddr::new(lab.server(v6, i), port);
        lvxd.adm(&format!("-a -u {service} -r {server} {}", method.option()))?;
    }
    until(Duration::from_secs(10), || {
        let list = lvxd.adm("-L -n --json")?;
        anyhow::ensure!(list.matches("\"resolved\": true").count() == 3, "{list}");
        Ok(())
    })?;
    let served = lab.client.run(|| -> Result<Vec<String>> {
        let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse()?;
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(service)?;
        let mut served = Vec::new();
        for n in 0..12 {
            let message = format!("message {n}");
            socket.send(message.as_bytes())?;
            let mut buffer = [0; 2048];
            let len = socket.recv(&mut buffer).with_context(|| message.clone())?;
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let (name, back) = text.split_once(' ').context("no name")?;
            assert_eq!(back, message);
            served.push(name.to_owned());
        }
        Ok(served)
    })?;
    let want: Vec<_> = (0..12).map(|n| format!("server-{}", 2 - n % 3)).collect();
    assert_eq!(served, want);
    let list = lvxd.adm("-L -n")?;
    assert!(list.contains("rr ops"), "{list}");
    assert_eq!(lvxd.adm("-L -n -c")?.lines().count(), 2, "no connection");
    let stats: Vec<String> = lvxd.adm("-L -n --stats --exact")?.lines().map(str::to_owned).collect();
    let row: Vec<&str> = stats.iter().find(|l| l.starts_with("UDP")).context("no service")?.split_whitespace().collect();
    let out = if method == Method::Nat { "12" } else { "0" };
    assert_eq!(row[2..5], ["12", "12", out], "{stats:?}");
    Ok(())
}

#[test]
fn one_packet_nat_v4() -> Result<()> {
    one_packet(Method::Nat, false)
}

#[test]
fn one_packet_nat_v6() -> Result<()> {
    one_packet(Method::Nat, true)
}

#[test]
fn one_packet_dr_v4() -> Result<()> {
    one_packet(Method::Dr, false)
}

#[test]
fn one_packet_tun_v6() -> Result<()> {
    one_packet(Method::Tun, true)
}

macro_rules! echo {
    ($($name:ident $method:ident $v6:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            echo(Method::$method, $v6)
        }
    )*};
}

echo! {
    echo_nat_v4 Nat false;
    echo_nat_v6 Nat true;
    echo_dr_v4 Dr false;
    echo_dr_v6 Dr true;
    echo_tun_v4 Tun false;
    echo_tun_v6 Tun true;
}
