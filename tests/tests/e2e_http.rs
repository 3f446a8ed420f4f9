//! HTTP through the director: every method, family and layout, with nginx and curl.

use anyhow::Result;
use lvx_tests::lab::{HttpLab, Layout, Method, possible};
use std::time::Duration;

/// 300 connections over three servers, one after the other: a hundred each; and nothing went another way than through XDP.
fn shares(layout: Layout, method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(layout, method, v6, 3)?;
    let shares = h.requests(300)?;
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [100, 100, 100], "{shares:?}");
    let forwarded = match method {
        Method::Nat => "forwarded_nat",
        Method::Dr => "forwarded_dr",
        Method::Tun => "forwarded_tun",
    };
    // SYN, ACK, request, FIN at least.
    assert!(h.lvxd.verdict(forwarded)? >= 1200, "{}", h.lvxd.adm("status")?);
    if method == Method::Nat {
        assert!(h.lvxd.verdict("forwarded_nat_reply")? >= 900, "{}", h.lvxd.adm("status")?);
        assert_eq!(h.lvxd.verdict("passed_reply")?, 0);
    }
    assert_eq!(h.lvxd.verdict("passed_unresolved")?, 0);
    let stats = h.lvxd.adm("-L -n --stats --exact")?;
    let line = stats.lines().find(|l| l.starts_with("TCP")).unwrap_or_default();
    assert_eq!(line.split_whitespace().nth(2), Some("300"), "{stats}");
    h.lvxd.stop()?;
    Ok(())
}

macro_rules! shares {
    ($($name:ident $layout:ident $method:ident $v6:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            shares(Layout::$layout, Method::$method, $v6)
        }
    )*};
}

shares! {
    nat_v4_two_arms TwoArms Nat false;
    nat_v6_two_arms TwoArms Nat true;
    nat_v4_stick Stick Nat false;
    nat_v6_stick Stick Nat true;
    dr_v4_two_arms TwoArms Dr false;
    dr_v6_two_arms TwoArms Dr true;
    dr_v4_stick Stick Dr false;
    dr_v6_stick Stick Dr true;
    tun_v4_two_arms TwoArms Tun false;
    tun_v6_two_arms TwoArms Tun true;
    tun_v4_stick Stick Tun false;
    tun_v6_stick Stick Tun true;
}

/// A hundred megabytes down and up, compared by hash.
fn bulk(method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, method, v6, 2)?;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(100 << 20);
    while bytes.len() < 100 << 20 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_ne_bytes());
    }
    let files = tempfile::tempdir()?;
    let (sent, got) = (files.path().join("sent"), files.path().join("got"));
    std::fs::write(&sent, &bytes)?;
    for n in &h.nginx {
        n.file("big", &bytes)?;
    }
    let client = &h.lab.client;
    client.sh(&format!("curl -sS -f -g --max-time 120 -o {} {}", got.display(), h.url("big")))?;
    client.sh(&format!("curl -sS -f -g --max-time 120 -T {} {}", sent.display(), h.url("up/big")))?;
    let hash = |path: &std::path::Path| client.sh(&format!("sha256sum {}", path.display())).map(|s| s[..64].to_owned());
    let expected = hash(&sent)?;
    assert_eq!(hash(&got)?, expected, "download");
    let uploads: Vec<_> = h.nginx.iter().map(|n| n.root.join("up/big")).filter(|p| p.exists()).collect();
    assert_eq!(uploads.len(), 1);
    assert_eq!(hash(&uploads[0])?, expected, "upload");
    Ok(())
}

macro_rules! bulk {
    ($($name:ident $method:ident $v6:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            bulk(Method::$method, $v6)
        }
    )*};
}

bulk! {
    bulk_nat_v4 Nat false;
    bulk_nat_v6 Nat true;
    bulk_dr_v4 Dr false;
    bulk_dr_v6 Dr true;
    bulk_tun_v4 Tun false;
    bulk_tun_v6 Tun true;
}

/// A thousand connections open at once, all of which are then used.
#[test]
fn a_thousand_connections_at_once() -> Result<()> {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    if !possible() {
        return Ok(());
    }
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let h = HttpLab::new(Layout::TwoArms, method, false, 4)?;
        let at = h.service();
        let served = h.lab.client.run(|| -> Result<usize> {
            let mut all = Vec::new();
            for _ in 0..1000 {
                let s = TcpStream::connect_timeout(&at, Duration::from_secs(10))?;
                s.set_read_timeout(Some(Duration::from_secs(10)))?;
                all.push(s);
            }
            for s in &mut all {
                s.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            }
            let mut served = 0;
            for s in &mut all {
                let mut text = String::new();
                s.read_to_string(&mut text)?;
                served += usize::from(text.contains("server-"));
            }
            Ok(served)
        })?;
        assert_eq!(served, 1000, "{method:?}");
        let list = h.lvxd.adm("-L -n --stats --exact")?;
        for l in list.lines().filter(|l| l.contains("->") && !l.contains("Remote")) {
            assert_eq!(l.split_whitespace().nth(2), Some("250"), "{list}");
        }
    }
    Ok(())
}
