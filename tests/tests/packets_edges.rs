//! What IPVS does at the edges, as recorded (`lb-userspace/tests/golden/sequences.txt`): thresholds, removed servers, recreated services.

use anyhow::Result;
use lb_common::config::{EXPIRE_NODEST, SLOPPY_TCP};
use lb_common::time::ticks_of_seconds;
use lb_userspace::model::{Edit, Forwarding, Protocol};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use lvx_tests::scene::{Scene, client};

use flag::{ACK, FIN, RST, SYN};

/// Opens a connection and completes the handshake: the server's number, 0 if refused.
fn open(s: &mut Scene, port: u16) -> u8 {
    let step = s.pass(&s.from_client(port, SYN).bytes());
    if step.verdict != "forwarded_dr" && step.verdict != "forwarded_nat" {
        return 0;
    }
    s.pass(&s.from_client(port, ACK).bytes());
    step.frame[5]
}

/// Some new connections on fresh ports.
fn new(s: &mut Scene, port: &mut u16, n: usize) -> Vec<u8> {
    (0..n)
        .map(|_| {
            *port += 1;
            open(s, *port)
        })
        .collect()
}

fn limit(s: &mut Scene, n: u8, upper: u32, lower: u32) -> Result<()> {
    let mut spec = s.spec(n, false);
    (spec.upper_threshold, spec.lower_threshold) = (upper, lower);
    s.edit(Edit::EditServer { service: s.id, server: spec })
}

fn sweep(s: &Scene) {
    let mut sweeper = s.d.engine.sweeper();
    for _ in 0..2 {
        while !sweeper.step(1 << 20).round {}
    }
}

#[test]
fn thresholds_of_held_connections() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 3, false)?;
    limit(&mut s, 1, 2, 1)?;
    limit(&mut s, 2, 3, 0)?;
    limit(&mut s, 3, 3, 0)?;
    let mut port = 1000;
    assert_eq!(new(&mut s, &mut port, 10), [3, 2, 1, 3, 2, 1, 3, 2, 0, 0]);
    // Closed connections count until they expire.
    let close = |s: &mut Scene, port: u16| {
        s.pass(&s.from_client(port, FIN | ACK).bytes());
    };
    close(&mut s, 1003);
    assert_eq!(new(&mut s, &mut port, 2), [0, 0]);
    close(&mut s, 1006);
    assert_eq!(new(&mut s, &mut port, 2), [0, 0]);
    close(&mut s, 1002);
    assert_eq!(new(&mut s, &mut port, 2), [0, 0]);
    limit(&mut s, 2, 6, 0)?;
    assert_eq!(new(&mut s, &mut port, 3), [2, 2, 2]);
    Ok(())
}

#[test]
fn thresholds_when_connections_expire() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 3, false)?;
    limit(&mut s, 1, 2, 1)?;
    limit(&mut s, 2, 4, 0)?;
    limit(&mut s, 3, 2, 2)?;
    let mut port = 1000;
    assert_eq!(new(&mut s, &mut port, 9), [3, 2, 1, 3, 2, 1, 2, 2, 0]);
    let reset = |s: &mut Scene, ports: &[u16]| {
        for p in ports {
            s.pass(&s.from_client(*p, RST).bytes());
        }
    };
    // One of each.
    reset(&mut s, &[1001, 1002, 1003]);
    assert_eq!(new(&mut s, &mut port, 2), [0, 0]);
    s.d.engine.set_clock_offset(ticks_of_seconds(12));
    sweep(&s);
    assert_eq!(new(&mut s, &mut port, 4), [3, 0, 0, 0]);
    // All of server 1 and one more of server 2.
    reset(&mut s, &[1006, 1005]);
    s.d.engine.set_clock_offset(ticks_of_seconds(24));
    sweep(&s);
    assert_eq!(new(&mut s, &mut port, 4), [2, 1, 2, 1]);
    Ok(())
}

/// `expire_nodest_conn`: the connection ends at its next packet, and does not come back with its server.
#[test]
fn a_removed_server_with_expire_nodest_conn() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for method in [Forwarding::Nat, Forwarding::Dr] {
        let mut s = Scene::new(false, Protocol::Tcp, method, 3, false)?;
        s.d.engine.set_flags(EXPIRE_NODEST);
        let mut port = 1000;
        assert_eq!(new(&mut s, &mut port, 3), [3, 2, 1]);
        let gone = s.spec(2, false);
        s.edit(Edit::DeleteServer { service: s.id, server: gone.id })?;
        let forwarded = if method == Forwarding::Nat { "forwarded_nat" } else { "forwarded_dr" };
        let verdicts: Vec<_> = (1001..=1003).map(|p| s.pass(&s.from_client(p, ACK).bytes()).verdict).collect();
        // The kernel's stack answers the second with a reset.
        assert_eq!(verdicts, [forwarded, "passed_no_connection", forwarded]);
        assert_eq!(s.connections(), 2);
        assert_eq!(new(&mut s, &mut port, 4), [3, 1, 3, 1]);
        s.edit(Edit::AddServer { service: s.id, server: gone })?;
        assert_eq!(s.pass(&s.from_client(1002, ACK).bytes()).verdict, "passed_no_connection");
        assert_eq!(new(&mut s, &mut port, 4), [2, 3, 1, 2]);
        // A SYN on such a connection starts a new one at once.
        s.edit(Edit::DeleteServer { service: s.id, server: s.spec(3, false).id })?;
        assert_ne!(open(&mut s, 1001), 0);
    }
    Ok(())
}

/// `-D` and the same `-A` and `-a` again: connections are dropped silently in between, and live and count as before.
#[test]
fn a_service_deleted_and_made_again() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(true, Protocol::Tcp, Forwarding::Dr, 3, true)?;
    let mut port = 1000;
    assert_eq!(new(&mut s, &mut port, 3), [3, 2, 1]);
    let (spec, servers) = (s.desired.services[0].spec.clone(), s.desired.services[0].servers.clone());
    s.edit(Edit::DeleteService { service: s.id })?;
    for p in 1001..=1003 {
        assert_eq!(s.pass(&s.from_client(p, ACK).bytes()).verdict, "dropped_server_gone");
    }
    // For the director's own stack now, which refuses it.
    assert_eq!(s.pass(&s.from_client(2000, SYN).bytes()).verdict, "passed_no_service");
    s.edit(Edit::AddService { service: spec })?;
    for server in servers.into_iter().rev() {
        s.edit(Edit::AddServer { service: s.id, server })?;
    }
    assert_eq!(s.counts(), (3, 0));
    let to: Vec<u8> = (1001..=1003).map(|p| s.pass(&s.from_client(p, ACK).bytes()).frame[5]).collect();
    assert_eq!(to, [3, 2, 1]);
    Ok(())
}

/// `sloppy_tcp`: a connection may begin in its middle.
#[test]
fn sloppy_tcp() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Dr, 1, false)?;
    let ack = Frame::tcp(client(false, 1000), s.vip(), ACK).bytes();
    assert_eq!(s.pass(&ack).verdict, "passed_no_connection");
    s.d.engine.set_flags(SLOPPY_TCP);
    assert_eq!(s.pass(&ack).verdict, "forwarded_dr");
    Ok(())
}

/// `-C` leaves the kernel its own traffic, and the program its peace.
#[test]
fn clear() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 2, false)?;
    let syn = s.from_client(1000, SYN).bytes();
    assert_eq!(s.pass(&syn).verdict, "forwarded_nat");
    s.edit(Edit::Clear)?;
    assert_eq!(s.pass(&s.from_client(1001, SYN).bytes()).verdict, "passed_no_service");
    assert_eq!(s.pass(&syn).verdict, "dropped_server_gone");
    Ok(())
}
