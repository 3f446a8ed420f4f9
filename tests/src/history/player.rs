//! Lives through histories with a balancer and a [`Tap`], and writes the answers down.
//!
//! Many histories run at a time, each with a service of its own: a pause is had once for all of them. The trap: what happens to a
//! connection whose server was removed is not part of a history, nor what happens to one that ended already: such steps
//! do nothing, here and in [`super::model`].

use super::tap::{Collision, Tap};
use super::{Count, History, Schedule, Setting, Step};
use anyhow::{Context, Result, bail};
use lb_userspace::model::Protocol;
use std::net::IpAddr;
use std::time::Duration;

/// The service of a history as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Whose.
    pub history: &'a History,
    /// Its scheduler now.
    pub schedule: Schedule,
}

impl History {
    /// The mark of the service of a history by mark.
    #[must_use]
    pub const fn mark_of(number: u32) -> u32 {
        number + 1
    }
}

impl Service<'_> {
    /// Its mark, if it is one by mark.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.history.mark.then(|| History::mark_of(self.history.number))
    }
}

/// Who lives through histories.
pub trait Balancer {
    /// `-A`
    ///
    /// # Errors
    /// It was refused; so for all of these.
    fn add_service(&mut self, service: &Service<'_>) -> Result<()>;
    /// `-E`
    ///
    /// # Errors
    /// See above.
    fn edit_service(&mut self, service: &Service<'_>) -> Result<()>;
    /// `-D`
    ///
    /// # Errors
    /// See above.
    fn delete_service(&mut self, service: &Service<'_>) -> Result<()>;
    /// `-a`
    ///
    /// # Errors
    /// See above.
    fn add_server(&mut self, service: &Service<'_>, server: u32, setting: Setting) -> Result<()>;
    /// `-e`
    ///
    /// # Errors
    /// See above.
    fn edit_server(&mut self, service: &Service<'_>, server: u32, setting: Setting) -> Result<()>;
    /// `-d`
    ///
    /// # Errors
    /// See above.
    fn delete_server(&mut self, service: &Service<'_>, server: u32) -> Result<()>;
    /// Servers, newest first, with their connections.
    ///
    /// # Errors
    /// See above.
    fn counts(&mut self, service: &Service<'_>) -> Result<Vec<Count>>;
    /// Seconds after which a reset connection is forgotten.
    fn waits_s(&self) -> u64;
    /// What is to be done before these histories begin.
    ///
    /// # Errors
    /// It could not be done.
    fn prepare(&mut self, _histories: &[History]) -> Result<()> {
        Ok(())
    }
    /// Called after each step: a balancer that plans ahead may need a moment.
    fn settle(&mut self) {}
}

/// A connection of a history that is lived through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) client: u32,
    pub(super) to: u32,
    /// `None` if it was refused, or has ended.
    pub(super) server: Option<u32>,
}

struct Life {
    history: History,
    schedule: Schedule,
    next: usize,
    connections: Vec<Connection>,
    servers: Vec<u32>,
}

/// Lives through all of them; gives them back with the answers.
///
/// # Errors
/// Something that is no choice went wrong; with the history up to there.
pub fn play(balancer: &mut dyn Balancer, tap: &mut Tap, histories: &[History]) -> Result<Vec<History>> {
    balancer.prepare(histories)?;
    let mut lives = Vec::new();
    for history in histories {
        let life =
            Life { schedule: history.schedule, history: history.clone(), next: 0, connections: Vec::new(), servers: Vec::new() };
        balancer.add_service(&life.service()).with_context(|| format!("add the service of {}", life.history.number))?;
        lives.push(life);
    }
    loop {
        for at in 0..lives.len() {
            let life = &mut lives[at];
            while let Some(step) = life.history.steps.get(life.next) {
                if *step == Step::Wait {
                    break;
                }
                let step = step.clone();
                let done = life.step(balancer, tap, &step);
                if let Some(collision) = done.as_ref().err().and_then(anyhow::Error::downcast_ref::<Collision>).copied() {
                    // What comes after is not the schedulers' doing, in either of them: both end before it.
                    life.end_here();
                    lives.iter_mut().filter(|other| other.is_at(collision.service)).for_each(Life::end_here);
                    break;
                }
                done.with_context(|| life.history.prefix(life.next).to_string())?;
                balancer.settle();
                life.next += 1;
            }
        }
        if lives.iter().all(|life| life.next == life.history.steps.len()) {
            break;
        }
        std::thread::sleep(Duration::from_secs(balancer.waits_s()));
        for life in lives.iter_mut().filter(|life| life.next < life.history.steps.len()) {
            life.next += 1;
        }
    }
    for life in &lives {
        balancer.delete_service(&life.service()).context("delete a service")?;
    }
    Ok(lives.into_iter().map(|life| life.history).collect())
}

impl Life {
    fn end_here(&mut self) {
        self.history.steps.truncate(self.next);
    }

    fn is_at(&self, vip: IpAddr) -> bool {
        self.history.steps.iter().any(|s| matches!(s, Step::Connect { to, .. } if self.history.vip(*to) == vip))
    }

    fn service(&self) -> Service<'_> {
        Service { history: &self.history, schedule: self.schedule }
    }

    fn step(&mut self, balancer: &mut dyn Balancer, tap: &mut Tap, step: &Step) -> Result<()> {
        match *step {
            Step::Add(n, setting) => {
                balancer.add_server(&self.service(), n, setting)?;
                self.servers.push(n);
            }
            Step::Edit(n, setting) => balancer.edit_server(&self.service(), n, setting)?,
            Step::Delete(n) => {
                balancer.delete_server(&self.service(), n)?;
                self.servers.retain(|s| *s != n);
            }
            Step::Schedule(schedule) => {
                self.schedule = schedule;
                balancer.edit_service(&self.service())?;
            }
            Step::Connect { client, to, .. } => {
                let server = tap.connect(&self.history, self.connections.len(), client, to)?;
                self.connections.push(Connection { client, to, server });
                self.history.steps[self.next] = Step::Connect { client, to, got: Some(server) };
            }
            Step::Close(k) => self.end(tap, k, false)?,
            Step::Reset(k) => self.end(tap, k, true)?,
            Step::CloseAll(n) => {
                for k in 0..self.connections.len() {
                    if self.connections[k].server == Some(n) {
                        self.end(tap, k, false)?;
                    }
                }
            }
            Step::Counts(_) => {
                let counts = balancer.counts(&self.service())?;
                self.history.steps[self.next] = Step::Counts(Some(counts));
            }
            Step::Wait => bail!("a pause is had for all at once"),
        }
        Ok(())
    }

    fn end(&mut self, tap: &mut Tap, connection: usize, reset: bool) -> Result<()> {
        let Some(&Connection { client, to, server }) = self.connections.get(connection) else { return Ok(()) };
        let Some(server) = server.filter(|s| self.servers.contains(s)) else { return Ok(()) };
        if self.history.protocol == Protocol::Udp {
            return Ok(());
        }
        self.connections[connection].server = None;
        if reset {
            return tap.reset(&self.history, connection, client, to, server);
        }
        tap.close(&self.history, connection, client, to, server)
    }
}
