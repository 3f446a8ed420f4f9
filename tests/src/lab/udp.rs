//! A UDP service that answers with its name and what it was sent.

use super::Ns;
use anyhow::Result;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running service.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpEcho {
    /// Answers on `address:port` for each of `addresses` (the VIP under DR and TUN, so that answers come from there).
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn start(ns: &Ns, name: &str, addresses: &[(std::net::IpAddr, u16)]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for at in addresses {
            let socket: UdpSocket = ns.run(|| UdpSocket::bind(at))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let (stop, name) = (stop.clone(), name.to_owned());
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                        let mut answer = name.clone().into_bytes();
                        answer.push(b' ');
                        answer.extend_from_slice(&buffer[..n]);
                        let _ = socket.send_to(&answer, from);
                    }
                }
            }));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}
