//! A laboratory of network namespaces: a client, a director and real servers on one machine, with real programs in them.
//!
//! Namespaces have no names: file descriptors and processes hold them, so that nothing is left however a test ends. Only the
//! network is separate; the BPF file system and all files are those of the machine.

mod daemon;
mod generator;
mod http;
mod nginx;
mod ns;
mod pass;
mod pty;
mod request;
mod stalls;
mod topology;
mod udp;

pub use daemon::{Lvxd, binary, public_copy};
pub use generator::Generator;
pub use http::HttpLab;
pub use nginx::Nginx;
pub use ns::{Ns, Running, until};
pub use pass::PassAll;
pub use pty::Pty;
pub use request::{ask, connected};
pub use stalls::Stalls;
pub use topology::{Lab, Layout, Method};
pub use udp::UdpEcho;

/// Whether network tests can run here; says why not. Under `CI` they must.
///
/// # Panics
/// If they cannot run although `CI` is set.
#[must_use]
pub fn possible() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "tests of networks need root");
    eprintln!("skipped: tests of networks need root");
    false
}
