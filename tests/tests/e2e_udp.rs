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
        }
        Ok(shares)
    })?;
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [10, 10, 10], "{shares:?}");
    Ok(())
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
