//! Traffic that is not for a virtual service goes its way as if the director did not balance.

use anyhow::{Context, Result};
use lvx_tests::lab::{HttpLab, Layout, Method, Nginx, possible};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn unaffected(layout: Layout) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(layout, Method::Nat, false, 2)?;
    let own = Nginx::start(&h.lab.director, "director\n", &[2222])?;
    let client = &h.lab.client;
    // The director's own services, on its own address and on the VIP.
    for at in ["10.1.0.1:2222", "10.9.0.1:2222", "[fd01::1]:2222"] {
        assert_eq!(client.sh(&format!("curl -sS -f -g --max-time 5 http://{at}/"))?, "director\n", "{at}");
    }
    // Pings of director and VIP, and through the director.
    for at in ["10.1.0.1", "10.9.0.1", "fd01::1", "fd09::1", "10.2.0.1"] {
        client.sh(&format!("ping -c 2 -i 0.2 -W 2 -s 1400 {at}"))?;
    }
    client.sh("ip route add 10.2.0.11/32 via 10.1.0.1")?;
    client.sh("ping -c 2 -i 0.2 -W 2 10.2.0.11")?;
    // A server past the service, by its own address, through the director's kernel.
    assert_eq!(client.sh("curl -sS -f --max-time 5 http://10.2.0.11:8080/")?, "server-0\n");
    // The director as a client of its servers.
    assert_eq!(h.lab.director.sh("curl -sS -f --max-time 5 http://10.2.0.12:8080/")?, "server-1\n");
    // No service and nobody listening: the kernel's reset, at once.
    let closed: SocketAddr = "10.9.0.1:81".parse()?;
    let e = client.run(|| TcpStream::connect_timeout(&closed, Duration::from_secs(5))).err().context("connected")?;
    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused);
    // And the service works beside it.
    assert_eq!(h.requests(10)?.len(), 2);
    drop(own);
    Ok(())
}

#[test]
fn two_arms() -> Result<()> {
    unaffected(Layout::TwoArms)
}

#[test]
fn stick() -> Result<()> {
    unaffected(Layout::Stick)
}
