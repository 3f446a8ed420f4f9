//! What happened between the recorded commands: the recording leaves out commands that said nothing, and traffic.

use crate::traffic::{Connection, Wires};
use anyhow::Result;
use std::net::Ipv4Addr;

/// Commands that were run before a case, and traffic.
///
/// # Errors
/// They fail.
pub(crate) fn before(case: &str, wires: &Wires) -> Result<()> {
    let number = case.split('-').next().unwrap_or_default();
    match number {
        "032" => {
            let all = nat();
            wires.open(&all)?;
            wires.close(&all[..2])?;
        }
        "056" => {
            wires.close(&nat()[2..])?;
            let all = past("10.9.0.20", "-g", wires)?;
            wires.open(&all)?;
            wires.close(&all[..2])?;
        }
        "060" => wires.close(&connections("10.9.0.20")[2..])?,
        "061" => {
            let all = past("10.9.0.21", "-i", wires)?;
            wires.open(&all)?;
            wires.close(&all[..2])?;
        }
        "065" => wires.close(&connections("10.9.0.21")[2..])?,
        "066" => {
            adm(wires, &["-A -t 10.9.0.22:80 -s rr -p 60"])?;
            servers("10.9.0.22", "-m", wires)?;
            for (client, server) in [(2, 13), (11, 12)] {
                for port in [42001, 42002] {
                    wires.open(&[connection([10, 1, 0, client], port, [10, 9, 0, 22], ([10, 2, 0, server], 80), true)])?;
                }
            }
        }
        _ => {}
    }
    adm(wires, commands(number))
}

fn commands(number: &str) -> &'static [&'static str] {
    match number {
        "028" => &["-D -t 10.9.0.10:81"],
        "069" => &["-D -t 10.9.0.20:80", "-D -t 10.9.0.21:80", "-D -t 10.9.0.22:80", "-A -t 10.9.0.11:80 -s wrr"],
        "072" => &["-a -t 10.9.0.11:80 -r 10.2.0.13 -g", "-A -t 10.9.0.12:80"],
        "080" => &["-a -t 10.9.0.12:80 -r 10.9.0.12 -g"],
        "088" => &["-a -u 10.9.0.10:53 -r 10.2.0.11:53 -m"],
        "092" => &["-A -t 10.9.0.13:0 -s rr -p 60"],
        "096" => &["-A -t 10.9.0.10:8445 -s sh -b sh-fallback"],
        "104" => &["-A -t [2001:db8::10]:80 -s rr"],
        "108" => &["-A -t [2001:db8::10]:81 -s rr -p 60 -M 64"],
        "120" => &["-C"],
        "129" => &["-A -t 10.9.0.10:80 -s rr", "-a -t 10.9.0.10:80 -r 10.2.0.11:80 -m -w 2"],
        "132" => &["-E -t 10.9.0.10:80"],
        "136" => &["-e -t 10.9.0.10:80 -r 10.2.0.11 -g -w 4"],
        "157" => &["-A -t 10.9.0.10:82"],
        "173" => &["-a -t 10.9.0.10:80 -r 10.2.0.12 -m -w 65536"],
        "180" => &["-a -t 10.9.0.10:80 -r 10.2.0.17:0 -m"],
        "192" => &["-A -t 10.9.0.10:91 -s rr -p 60 -M 24"],
        "196" => &["-A -t 10.9.0.10:88 -s rr -p 60 -M 255.0.255.0"],
        "220" => &["--add-service --tcp-service 10.9.0.10:90 --scheduler rr --persistent 30 --netmask 255.255.0.0"],
        "228" => &["--set 0 30 0"],
        _ => &[],
    }
}

fn adm(wires: &Wires, lines: &[&str]) -> Result<()> {
    lines.iter().try_for_each(|line| wires.lvxd.adm(line).map(drop))
}

fn servers(vip: &str, method: &str, wires: &Wires) -> Result<()> {
    (11..14).try_for_each(|i| adm(wires, &[&format!("-a -t {vip}:80 -r 10.2.0.{i}:80 {method}")]))
}

/// A service whose answers go past the director, and its connections.
fn past(vip: &str, method: &str, wires: &Wires) -> Result<Vec<Connection>> {
    adm(wires, &[&format!("-A -t {vip}:80 -s rr")])?;
    servers(vip, method, wires)?;
    Ok(connections(vip))
}

fn connection(client: [u8; 4], port: u16, vip: [u8; 4], server: ([u8; 4], u16), nat: bool) -> Connection {
    let ip = Ipv4Addr::from;
    Connection { client: (ip(client), port), vip: ip(vip), server: (ip(server.0), server.1), nat }
}

/// Six of them, to the servers in turn, the newest first.
fn six(first_port: u16, vip: [u8; 4], third_port: u16, nat: bool) -> Vec<Connection> {
    (0..6)
        .map(|i| {
            let server = 13 - (i % 3) as u8;
            let port = if server == 13 { third_port } else { 80 };
            connection([10, 1, 0, 2], first_port + i, vip, ([10, 2, 0, server], port), nat)
        })
        .collect()
}

fn nat() -> Vec<Connection> {
    six(40001, [10, 9, 0, 10], 8080, true)
}

fn connections(vip: &str) -> Vec<Connection> {
    six(41001, vip.parse().map_or([0; 4], |ip: Ipv4Addr| ip.octets()), 80, false)
}
