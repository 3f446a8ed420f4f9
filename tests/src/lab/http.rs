//! The usual set-up for HTTP: a lab with nginx on every server, lvxd, and a service on port 80.

use super::ns::finished;
use super::{Lab, Layout, Lvxd, Method, Nginx, until};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Port of nginx on servers: NAT translates, DR and TUN cannot.
const NAT_PORT: u16 = 8080;

/// A lab that serves HTTP.
#[derive(Debug)]
pub struct HttpLab {
    /// Ends first.
    pub lvxd: Lvxd,
    /// One a server.
    pub nginx: Vec<Nginx>,
    /// The network.
    pub lab: Lab,
    /// Family of the service.
    pub v6: bool,
}

impl HttpLab {
    /// Builds everything, and waits until every server's next hop is known.
    ///
    /// # Errors
    /// Whatever does not start.
    pub fn new(layout: Layout, method: Method, v6: bool, servers: usize) -> Result<Self> {
        Self::with(layout, method, v6, servers, &[])
    }

    /// The same, with more words on the command line of lvxd.
    ///
    /// # Errors
    /// As [`HttpLab::new`].
    pub fn with(layout: Layout, method: Method, v6: bool, servers: usize, more: &[&str]) -> Result<Self> {
        let lab = Lab::new(layout, method, servers)?;
        let nginx = lab
            .servers
            .iter()
            .enumerate()
            .map(|(i, s)| Nginx::start(s, &format!("server-{i}\n"), &[80, NAT_PORT]))
            .collect::<Result<Vec<_>>>()?;
        let lvxd = lab.start_with(more)?;
        let this = Self { lvxd, nginx, lab, v6 };
        this.lvxd.adm(&format!("-A -t {} -s rr", this.service()))?;
        for i in 0..servers {
            this.add(i)?;
        }
        this.resolved(servers)?;
        Ok(this)
    }

    /// The service's address and port.
    #[must_use]
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip(self.v6), 80)
    }

    /// A real server's address and port.
    #[must_use]
    pub fn server(&self, i: usize) -> SocketAddr {
        let port = if self.lab.method == Method::Nat { NAT_PORT } else { 80 };
        SocketAddr::new(self.lab.server(self.v6, i), port)
    }

    /// Adds server `i` to the service.
    ///
    /// # Errors
    /// lvxadm's.
    pub fn add(&self, i: usize) -> Result<()> {
        let option = self.lab.method.option();
        self.lvxd.adm(&format!("-a -t {} -r {} {option}", self.service(), self.server(i))).map(drop)
    }

    /// Waits until `n` servers' next hops are known.
    ///
    /// # Errors
    /// That took too long.
    pub fn resolved(&self, n: usize) -> Result<()> {
        until(Duration::from_secs(10), || {
            let list = self.lvxd.adm("-L -n --json")?;
            let found = list.matches("\"resolved\": true").count();
            anyhow::ensure!(found == n, "{found} of {n} servers are resolved: {list}");
            Ok(())
        })
    }

    /// `http://VIP/path`
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        match self.service().ip() {
            IpAddr::V4(ip) => format!("http://{ip}/{path}"),
            IpAddr::V6(ip) => format!("http://[{ip}]/{path}"),
        }
    }

    /// Who answered `n` requests, each on a connection of its own, by curl.
    ///
    /// # Errors
    /// A request that failed.
    pub fn requests(&self, n: usize) -> Result<BTreeMap<String, usize>> {
        let url = self.url("");
        let mut c = self.lab.client.command("curl");
        c.args(["-sS", "-f", "-g", "--max-time", "20", "-H", "Connection: close"]).args(vec![url; n]);
        let text = finished("curl", &c.output().context("starting curl")?)?;
        let mut shares = BTreeMap::new();
        for line in text.lines() {
            *shares.entry(line.to_owned()).or_default() += 1;
        }
        anyhow::ensure!(shares.values().sum::<usize>() == n, "{n} requests, and answers {shares:?}");
        Ok(shares)
    }
}
