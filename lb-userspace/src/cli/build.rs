//! From what the words of a command line said to what is asked for: what ipvsadm checks last, and what LVX has not got.

use super::options::{ABOUTS, About, Command};
use super::request::{Failure, Format, Request, Words, refuse};
use super::values::netmask;
use crate::model::{Edit, Forwarding, Persistence, Protocol, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec};
use std::net::IpAddr;

pub(super) fn build(command: Command, w: &Words) -> Result<Request, Failure> {
    let id = w.service.map(|(address, port)| ServiceId {
        protocol: w.protocol.unwrap_or(Protocol::Tcp),
        address,
        port: port.unwrap_or(0),
    });
    let format = Format::of(w.given.iter().copied());
    if matches!(command, Command::AddService | Command::EditService) && w.unsupported.is_none() {
        if id.is_some_and(|id| id.port == 0) && w.persistence_s.is_none() {
            return refuse("Zero port specified for non-persistent service");
        }
        if w.given.contains(&About::OnePacket) && w.protocol != Some(Protocol::Udp) {
            return refuse("One-Packet Scheduling is only for UDP virtual services");
        }
    }
    if let (Command::AddServer | Command::EditServer, Some((server, _)), Some(id)) = (command, w.server, id) {
        let forwarding = w.forwarding.unwrap_or(Forwarding::Dr);
        if w.unsupported.is_none() && server.is_ipv4() != id.address.is_ipv4() && forwarding != Forwarding::Tun {
            return refuse("Different address family is allowed only for tunneling servers");
        }
    }
    if matches!(command, Command::AddServer | Command::EditServer) {
        tunnel(w)?;
    }
    let about = |a: &[About]| a.iter().any(|a| w.given.contains(a));
    if command == Command::List
        && about(&[About::Connection, About::Timeout, About::Daemon])
        && about(&[About::Stats, About::Rate, About::Thresholds])
    {
        return refuse("options conflicts in the list command");
    }
    if let Some(engine) = &w.engine {
        if engine != "sip" {
            return Err(Failure::new(255, "Scheduler or persistence engine not found"));
        }
        return refuse("LVX has no persistence engine sip (--pe)");
    }
    if let Some(what) = &w.unsupported {
        return refuse(format!("LVX has no {what}"));
    }
    Ok(match (command, id) {
        (Command::AddService, Some(id)) => Request::Edit(Edit::AddService { service: service(id, w)? }),
        (Command::EditService, Some(id)) => Request::Edit(Edit::EditService { service: service(id, w)? }),
        (Command::DeleteService, Some(service)) => Request::Edit(Edit::DeleteService { service }),
        (Command::Clear, _) => Request::Edit(Edit::Clear),
        (Command::AddServer, Some(service)) => Request::Edit(Edit::AddServer { service, server: server(service, w) }),
        (Command::EditServer, Some(service)) => Request::Edit(Edit::EditServer { service, server: server(service, w) }),
        (Command::DeleteServer, Some(service)) => Request::Edit(Edit::DeleteServer { service, server: server(service, w).id }),
        (Command::Set, _) => Request::Edit(Edit::SetTimeouts { timeouts: w.timeouts.unwrap_or_default() }),
        (Command::List, _) if format.has(About::Connection) => Request::Connections(format),
        (Command::List, Some(id)) => Request::List(format, Some(id)),
        (Command::List, None) if format.has(About::Timeout) => Request::Timeouts(format),
        (Command::List, None) if format.has(About::Daemon) => Request::Daemon(format),
        (Command::List, None) => Request::List(format, None),
        (Command::Zero, id) => Request::Zero(id),
        (Command::Save, _) => Request::Save(format),
        (Command::Restore, _) => Request::Restore { replace: false },
        // The check saw to it that a service was given; the daemons were refused above.
        _ => return refuse("a service is needed"),
    })
}

/// Options of tunnels, and those that LVX has not got.
fn tunnel(w: &Words) -> Result<(), Failure> {
    use About as A;
    let options = [A::TunPort, A::TunNoCsum, A::TunCsum, A::TunRemCsum];
    let given = options.into_iter().find(|o| w.given.contains(o));
    if (given.is_some() || w.tunnel.is_some()) && w.forwarding != Some(Forwarding::Tun) {
        return refuse("Tunnel options conflict with forward method");
    }
    match (w.tunnel.as_deref(), given) {
        (Some(kind @ ("gue" | "gre")), _) => refuse(format!("LVX has no tunnel type {kind} (--tun-type)")),
        (_, Some(option)) => refuse(format!("Illegal '{}' option with the 'ipip' tunnel type", ABOUTS[option as usize])),
        _ => Ok(()),
    }
}

/// `-M`: what it means depends on the family of the service, which may be named after it.
fn mask(id: ServiceId, w: &Words) -> Result<Option<IpAddr>, Failure> {
    let Some(text) = &w.netmask else { return Ok(None) };
    match netmask(text, id.address) {
        Some(mask) => Ok(mask),
        None if id.address.is_ipv4() => refuse("illegal virtual server persistent mask specified"),
        None => refuse("illegal ipv6 netmask specified"),
    }
}

fn service(id: ServiceId, w: &Words) -> Result<ServiceSpec, Failure> {
    let name = if w.scheduler.is_empty() { SchedulerKind::DEFAULT.name() } else { &w.scheduler };
    let scheduler = name.parse::<SchedulerKind>().map_err(|()| Failure::new(255, "Scheduler or persistence engine not found"))?;
    let netmask = mask(id, w)?;
    Ok(ServiceSpec {
        id,
        scheduler,
        sched_flags: w.flags,
        persistence: w.persistence_s.map(|timeout_s| Persistence { timeout_s, netmask }),
        one_packet: w.given.contains(&About::OnePacket),
    })
}

fn server(service: ServiceId, w: &Words) -> ServerSpec {
    let (address, port) = w.server.unwrap_or((service.address, None));
    ServerSpec {
        id: ServerId { address, port: port.unwrap_or(service.port) },
        forwarding: w.forwarding.unwrap_or(Forwarding::Dr),
        weight: w.weight.unwrap_or(1),
        upper_threshold: w.upper,
        lower_threshold: w.lower,
    }
}
