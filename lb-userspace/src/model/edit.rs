//! Edits of the desired state, and why one can be refused.

use super::{
    Desired, Forwarding, MAX_TIMEOUT_S, MAX_WEIGHT, ServerId, ServerSpec, ServiceId, ServiceSpec, ServiceState, Timeouts,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Edit {
    /// `-A`
    AddService {
        /// The service.
        service: ServiceSpec,
    },
    /// `-E`
    EditService {
        /// The service as it shall be.
        service: ServiceSpec,
    },
    /// `-D`
    DeleteService {
        /// Which.
        service: ServiceId,
    },
    /// `-C`
    Clear,
    /// `-a`
    AddServer {
        /// Of which service.
        service: ServiceId,
        /// The server.
        server: ServerSpec,
    },
    /// `-e`
    EditServer {
        /// Of which service.
        service: ServiceId,
        /// The server as it shall be.
        server: ServerSpec,
    },
    /// `-d`
    DeleteServer {
        /// Of which service.
        service: ServiceId,
        /// Which.
        server: ServerId,
    },
    /// `--set`; a value of 0 keeps what is set.
    SetTimeouts {
        /// The timeouts.
        timeouts: Timeouts,
    },
}

/// Why an edit was refused, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditErrorKind {
    /// A service of that name exists.
    ServiceExists,
    /// No service of that name (`-E`, `-D`, `-L`).
    NoSuchService,
    /// No service of that name, for an edit of its servers.
    ServiceNotDefined,
    /// The service has that server.
    ServerExists,
    /// The service has no such server.
    NoSuchServer,
    /// Port 0 without persistence.
    ZeroPort,
    /// An address that no server or service can have.
    BadAddress,
    /// Service and server of different families, not through a tunnel.
    FamilyMismatch,
    /// A value beyond its bounds.
    OutOfRange,
    /// Options that exclude each other.
    Conflict,
    /// Something that ipvsadm knows and LVX has not got.
    Unsupported,
    /// No room in a table.
    Full,
}

/// An edit that was refused; nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct EditError {
    /// For programs.
    pub code: EditErrorKind,
    /// For people: names the object and the reason.
    pub message: String,
    /// Position in the list of edits.
    #[serde(default)]
    pub edit: usize,
}

impl EditError {
    /// An error of the first edit.
    #[must_use]
    pub fn new(code: EditErrorKind, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), edit: 0 }
    }
}

use EditErrorKind as K;

impl Desired {
    /// Applies all edits, in order.
    ///
    /// # Errors
    /// The first that cannot be; `self` is then as it was.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        let mut next = self.clone();
        for (i, edit) in edits.iter().enumerate() {
            next.apply_one(edit).map_err(|e| EditError { edit: i, ..e })?;
        }
        *self = next;
        Ok(())
    }

    /// Servers that edits leave as they are, where `next` is what the edits make of it all.
    #[must_use]
    pub fn edited_in_vain(&self, edits: &[Edit], next: &Self) -> Vec<(ServiceId, ServerId)> {
        let find = |all: &Self, service: &ServiceId, id: ServerId| {
            all.service(service).and_then(|s| s.servers.iter().find(|s| s.id == id)).cloned()
        };
        let edited = edits.iter().filter_map(|e| match e {
            Edit::EditServer { service, server } => Some((*service, server.id)),
            _ => None,
        });
        edited.filter(|(service, id)| find(self, service, *id) == find(next, service, *id)).collect()
    }

    fn position(&self, id: &ServiceId, missing: K) -> Result<usize, EditError> {
        self.services
            .iter()
            .position(|s| s.spec.id == *id)
            .ok_or_else(|| EditError::new(missing, format!("there is no service {id}")))
    }

    fn apply_one(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::AddService { service } => {
                check_service(service)?;
                if self.service(&service.id).is_some() {
                    return Err(EditError::new(K::ServiceExists, format!("service {} exists", service.id)));
                }
                self.services.push(Arc::new(ServiceState { spec: service.clone(), servers: Vec::new() }));
            }
            Edit::EditService { service } => {
                check_service(service)?;
                let at = self.position(&service.id, K::NoSuchService)?;
                Arc::make_mut(&mut self.services[at]).spec = service.clone();
            }
            Edit::DeleteService { service } => {
                let at = self.position(service, K::NoSuchService)?;
                self.services.remove(at);
            }
            Edit::Clear => self.services.clear(),
            Edit::AddServer { service, server } => {
                let at = self.position(service, K::ServiceNotDefined)?;
                let server = check_server(service, server)?;
                let servers = &mut Arc::make_mut(&mut self.services[at]).servers;
                if servers.iter().any(|s| s.id == server.id) {
                    return Err(EditError::new(K::ServerExists, format!("service {service} has the server {}", server.id)));
                }
                servers.insert(0, server);
            }
            Edit::EditServer { service, server } => {
                let at = self.position(service, K::ServiceNotDefined)?;
                // The kernel does not look at the address of a server that shall exist: it finds none.
                let server = check_server(service, server).map_err(|e| match e.code {
                    K::BadAddress => no_server(service, &server.id),
                    _ => e,
                })?;
                let Some(old) = Arc::make_mut(&mut self.services[at]).servers.iter_mut().find(|s| s.id == server.id) else {
                    return Err(no_server(service, &server.id));
                };
                *old = server;
            }
            Edit::DeleteServer { service, server } => {
                let at = self.position(service, K::ServiceNotDefined)?;
                let servers = &mut Arc::make_mut(&mut self.services[at]).servers;
                let Some(i) = servers.iter().position(|s| s.id == *server) else {
                    return Err(no_server(service, server));
                };
                servers.remove(i);
            }
            Edit::SetTimeouts { timeouts } => {
                for (new, old, name) in [
                    (timeouts.tcp, &mut self.timeouts.tcp, "tcp"),
                    (timeouts.tcpfin, &mut self.timeouts.tcpfin, "tcpfin"),
                    (timeouts.udp, &mut self.timeouts.udp, "udp"),
                ] {
                    if new > MAX_TIMEOUT_S {
                        return Err(EditError::new(
                            K::OutOfRange,
                            format!("timeout {name} of {new} s is longer than {MAX_TIMEOUT_S} s"),
                        ));
                    }
                    if new != 0 {
                        *old = new;
                    }
                }
            }
        }
        Ok(())
    }
}

fn no_server(service: &ServiceId, server: &ServerId) -> EditError {
    EditError::new(K::NoSuchServer, format!("service {service} has no server {server}"))
}

fn check_service(s: &ServiceSpec) -> Result<(), EditError> {
    let id = &s.id;
    if id.port == 0 && s.persistence.is_none() {
        return Err(EditError::new(K::ZeroPort, format!("service {id}: port 0 needs persistence")));
    }
    if id.address.is_unspecified() || id.address.is_multicast() {
        return Err(EditError::new(K::BadAddress, format!("service {id}: not a unicast address")));
    }
    if s.one_packet && id.protocol != super::Protocol::Udp {
        return Err(EditError::new(K::Conflict, format!("service {id}: one-packet scheduling is for UDP only")));
    }
    if s.sched_flags.0 > 7 {
        return Err(EditError::new(
            K::OutOfRange,
            format!("service {id}: scheduler flags {} are none of three", s.sched_flags.0),
        ));
    }
    if let Some(p) = s.persistence {
        if p.timeout_s == 0 || p.timeout_s > MAX_TIMEOUT_S {
            return Err(EditError::new(
                K::OutOfRange,
                format!("service {id}: persistence timeout of {} s is not within 1 to {MAX_TIMEOUT_S} s", p.timeout_s),
            ));
        }
        match (p.netmask, id.address) {
            (None, _) | (Some(IpAddr::V4(_)), IpAddr::V4(_)) => {}
            (Some(IpAddr::V6(m)), IpAddr::V6(_)) if u128::from(m).leading_ones() == u128::from(m).count_ones() => {}
            (Some(m), _) => {
                return Err(EditError::new(K::OutOfRange, format!("service {id}: {m} is not a netmask for that family")));
            }
        }
    }
    Ok(())
}

/// Checks a server against its service, and gives it as it will be kept.
fn check_server(service: &ServiceId, s: &ServerSpec) -> Result<ServerSpec, EditError> {
    let mut s = s.clone();
    if s.forwarding != Forwarding::Nat {
        // DR and TUN cannot change the port: the kernel keeps the service's.
        s.id.port = service.port;
    }
    let id = s.id;
    if id.address.is_unspecified() || id.address.is_multicast() || id.address == IpAddr::from([255, 255, 255, 255]) {
        return Err(EditError::new(K::BadAddress, format!("server {id} of {service}: not a unicast address")));
    }
    if id.address.is_ipv4() != service.address.is_ipv4() && s.forwarding != Forwarding::Tun {
        return Err(EditError::new(
            K::FamilyMismatch,
            format!("server {id} of {service}: another address family needs tunnelling"),
        ));
    }
    if s.weight > MAX_WEIGHT {
        return Err(EditError::new(
            K::OutOfRange,
            format!("server {id} of {service}: weight {} is above {MAX_WEIGHT}", s.weight),
        ));
    }
    if s.lower_threshold > s.upper_threshold {
        return Err(EditError::new(
            K::OutOfRange,
            format!(
                "server {id} of {service}: lower threshold {} is above the upper one, {}",
                s.lower_threshold, s.upper_threshold
            ),
        ));
    }
    Ok(s)
}
