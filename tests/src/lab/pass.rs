//! An XDP program that passes everything: the end of a veth pair that XDP transmits to needs a native program of its own.

use super::Ns;
use anyhow::{Context, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The program on an interface, until this is dropped.
#[derive(Debug)]
pub struct PassAll {
    _link: OwnedFd,
}

const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const MODE_DRIVER: u32 = 1 << 2;

#[repr(C)]
struct Load {
    prog_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: i64, attributes: &T) -> Result<OwnedFd> {
    // SAFETY: a command of bpf(2) with attributes of its shape, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("bpf(2)");
    }
    // SAFETY: both commands return a new file descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

impl PassAll {
    /// Puts the program on `interface` of a namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn on(ns: &Ns, interface: &str) -> Result<Self> {
        Self::returning(crate::director::action::PASS, ns, interface)
    }

    /// The same with a program that drops everything: a server that is never heard of.
    ///
    /// # Errors
    /// The kernel's.
    pub fn nothing(ns: &Ns, interface: &str) -> Result<Self> {
        Self::returning(crate::director::action::DROP, ns, interface)
    }

    fn returning(action: u32, ns: &Ns, interface: &str) -> Result<Self> {
        // r0 = action; exit
        let code: [u64; 2] = [u64::from(action) << 32 | 0xb7, 0x0000_0000_0000_0095];
        let load =
            Load { prog_type: PROG_TYPE_XDP, count: 2, instructions: code.as_ptr() as u64, license: c"GPL".as_ptr() as u64 };
        let program = bpf(PROG_LOAD, &load)?;
        let link = ns.run(|| {
            let name = std::ffi::CString::new(interface)?;
            // SAFETY: a string that ends with zero.
            let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
            anyhow::ensure!(ifindex != 0, "no interface {interface}");
            let create = Create { program: program.as_raw_fd() as u32, ifindex, attach_type: ATTACH_XDP, flags: MODE_DRIVER };
            bpf(LINK_CREATE, &create)
        })?;
        Ok(Self { _link: link })
    }
}
