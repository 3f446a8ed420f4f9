//! A running `lvxd`, told and asked over its control socket.

use super::player::{Balancer, Service};
use super::{Count, PORT, SERVER_PORT, Setting};
use anyhow::{Context, Result, bail};
use lb_userspace::api::{Edits, Services};
use lb_userspace::client::Client;
use lb_userspace::model::{Edit, Forwarding, ServerId, ServerSpec, ServiceId, ServiceSpec};
use std::path::Path;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Lvx {
    client: Client,
    settle: Duration,
}

fn id(service: &Service<'_>) -> Result<ServiceId> {
    if service.mark().is_some() {
        bail!("there are no services by mark");
    }
    Ok(ServiceId { protocol: service.history.protocol, address: service.history.vip(0), port: PORT })
}

fn spec(service: &Service<'_>) -> Result<ServiceSpec> {
    Ok(ServiceSpec {
        id: id(service)?,
        scheduler: service.schedule.kind,
        sched_flags: service.schedule.flags,
        persistence: None,
        one_packet: false,
    })
}

fn server(service: &Service<'_>, number: u32, setting: Setting) -> ServerSpec {
    ServerSpec {
        id: ServerId { address: service.history.server(number), port: SERVER_PORT },
        forwarding: Forwarding::Nat,
        weight: setting.weight,
        upper_threshold: setting.upper,
        lower_threshold: setting.lower,
    }
}

impl Lvx {
    /// Of the daemon behind a socket. After each step it gets `settle` for its plans.
    ///
    /// # Errors
    /// No client can be made.
    pub fn new(socket: &Path, settle: Duration) -> Result<Self> {
        Ok(Self { client: Client::new(socket).context("make a client")?, settle })
    }

    fn edit(&mut self, edit: Edit) -> Result<()> {
        Ok(self.client.post("/v1/edits", &Edits { edits: vec![edit] })?)
    }
}

impl Balancer for Lvx {
    fn add_service(&mut self, service: &Service<'_>) -> Result<()> {
        self.edit(Edit::AddService { service: spec(service)? })
    }

    fn edit_service(&mut self, service: &Service<'_>) -> Result<()> {
        self.edit(Edit::EditService { service: spec(service)? })
    }

    fn delete_service(&mut self, service: &Service<'_>) -> Result<()> {
        self.edit(Edit::DeleteService { service: id(service)? })
    }

    fn add_server(&mut self, service: &Service<'_>, number: u32, setting: Setting) -> Result<()> {
        self.edit(Edit::AddServer { service: id(service)?, server: server(service, number, setting) })
    }

    fn edit_server(&mut self, service: &Service<'_>, number: u32, setting: Setting) -> Result<()> {
        self.edit(Edit::EditServer { service: id(service)?, server: server(service, number, setting) })
    }

    fn delete_server(&mut self, service: &Service<'_>, number: u32) -> Result<()> {
        let server = ServerId { address: service.history.server(number), port: SERVER_PORT };
        self.edit(Edit::DeleteServer { service: id(service)?, server })
    }

    fn counts(&mut self, service: &Service<'_>) -> Result<Vec<Count>> {
        let wanted = id(service)?;
        let services: Services = self.client.get("/v1/services")?;
        let view = services.services.iter().find(|s| s.spec.id == wanted).context("the service is not listed")?;
        let count = |s: &lb_userspace::api::ServerView| {
            let server = service.history.number_of(s.spec.id.address).context("a server of another history")?;
            Ok(Count { server, active: s.active, inactive: s.inactive })
        };
        view.servers.iter().map(count).collect()
    }

    fn waits_s(&self) -> u64 {
        14
    }

    fn settle(&mut self) {
        std::thread::sleep(self.settle);
    }
}
