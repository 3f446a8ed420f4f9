//! One request over one connection, from an address and port of the caller's choice.

use super::Ns;
use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// A connection from `source`; `None` if it is refused.
///
/// # Errors
/// Anything else.
pub fn connected(client: &Ns, source: SocketAddrV4, to: SocketAddrV4) -> Result<Option<TcpStream>> {
    let fd = client.run(|| -> rustix::io::Result<_> {
        // A process that another test starts would keep it open.
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&fd, true)?;
        bind(&fd, &SocketAddr::V4(source))?;
        match connect(&fd, &SocketAddr::V4(to)) {
            Ok(()) => Ok(Some(fd)),
            Err(rustix::io::Errno::CONNREFUSED) => Ok(None),
            Err(e) => Err(e),
        }
    });
    let Some(fd) = fd.with_context(|| format!("{source} to {to}"))? else { return Ok(None) };
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(Some(stream))
}

/// Asks for `/`: the number, from 1, of the server that says `server-0`, `server-1`, ... there.
///
/// # Errors
/// It is not answered.
pub fn ask(stream: &mut TcpStream) -> Result<u32> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with('\n') || !text.contains("server-") {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            bail!("closed after {text:?}");
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let number: u32 = text.lines().last().unwrap_or_default().trim_start_matches("server-").parse()?;
    Ok(number + 1)
}
