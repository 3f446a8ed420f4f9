//! nginx on a real server: its name at `/`, files to download, and uploads by PUT.

use super::{Ns, Running, until};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// The process.
    pub process: Running,
    /// Where its files are; uploads come here.
    pub root: PathBuf,
    _files: tempfile::TempDir,
}

impl Nginx {
    /// Serves on these ports, both families; `/` says `name`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(ns: &Ns, name: &str, ports: &[u16]) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let at = files.path();
        let root = at.join("root");
        std::fs::create_dir(&root)?;
        std::fs::write(root.join("index.html"), name)?;
        let mut listen = String::new();
        for p in ports {
            let _ = write!(listen, "listen {p} backlog=4096; listen [::]:{p} backlog=4096; ");
        }
        let dir = at.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {dir}/{kind}; "))
            .collect();
        let config = format!(
            "user root; worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; client_max_body_size 1g; keepalive_requests 1000000; {temporary}\n\
             server {{ {listen} root {dir}/root; location /up/ {{ client_body_in_file_only on; dav_methods PUT; create_full_put_path on; }} }} }}\n"
        );
        let path = at.join("nginx.conf");
        std::fs::write(&path, config)?;
        let mut c = ns.command("nginx");
        c.arg("-c").arg(&path).arg("-e").arg(at.join("error.log")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = ns.start(&mut c)?;
        let port = *ports.first().context("no port")?;
        let nginx = Self { process, root, _files: files };
        until(Duration::from_secs(10), || {
            ns.run(|| std::net::TcpStream::connect(("127.0.0.1", port))).with_context(|| nginx.error_log())
        })?;
        Ok(nginx)
    }

    fn error_log(&self) -> String {
        let dir = self.root.parent().unwrap_or(Path::new("/"));
        std::fs::read_to_string(dir.join("error.log")).unwrap_or_default()
    }

    /// A file to download.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.root.join(name), bytes)?)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it may end itself.
        if self.process.signal(Signal::TERM).is_ok() {
            let _ = self.process.wait(Duration::from_secs(5));
        }
    }
}
