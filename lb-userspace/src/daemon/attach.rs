//! The program on interfaces: one pinned link for each, in the driver or in the generic hook.
//!
//! A pin's name says all that is to be known of the link: `link_native_5_eth0` is on the interface of index 5. A daemon that
//! finds such a pin swaps its program into the link, so that no packet is missed; one whose interface is gone is removed.

use super::config::Mode;
use super::load::{self, LoadError, chain};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, XdpError};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why the program is not on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("interface {0}: no such interface")]
    NoInterface(String),
    /// Somebody else's program is there.
    #[error(
        "interface {0}: another XDP program is on it (`ip link set dev {0} xdp off` removes one that ip or an old tool put there)"
    )]
    Busy(String),
    /// Not allowed.
    #[error(
        "interface {0}: the kernel does not permit XDP on it: this needs CAP_NET_ADMIN in the network namespace, and CAP_BPF"
    )]
    Privilege(String),
    /// The driver will not.
    #[error("interface {name}: no native XDP: {reason} (mode \"auto\" or \"generic\" does without)")]
    Native {
        /// Which.
        name: String,
        /// As far as is known.
        reason: String,
    },
    /// The generic hook will not.
    #[error("interface {name}: no generic XDP: {source}")]
    Generic {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A link cannot be pinned.
    #[error("interface {name}: pin {}: {reason}", path.display())]
    Pin {
        /// Which.
        name: String,
        /// Its pin.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The program.
    #[error(transparent)]
    Program(#[from] LoadError),
}

/// Where on an interface the program is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the generic hook.
    Generic,
}

impl Hook {
    /// As the API shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn fits(self, mode: Mode) -> bool {
        match mode {
            Mode::Native => self == Self::Native,
            Mode::Generic => self == Self::Generic,
            Mode::Auto => true,
        }
    }
}

/// A link's pin.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LinkPin {
    hook: Hook,
    index: u32,
    name: String,
}

impl LinkPin {
    /// A BPF file system refuses dots.
    fn file_name(&self) -> String {
        let name = self.name.replace('%', "%25").replace('.', "%2e");
        format!("link_{}_{}_{name}", self.hook.name(), self.index)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_prefix("link_")?.splitn(3, '_');
        let hook = match parts.next()? {
            "native" => Hook::Native,
            "generic" => Hook::Generic,
            _ => return None,
        };
        let index = parts.next()?.parse().ok()?;
        Some(Self { hook, index, name: parts.next()?.replace("%2e", ".").replace("%25", "%") })
    }
}

/// Whether a file in the pin directory is a link of ours.
pub(super) fn is_link_pin(file_name: &str) -> bool {
    LinkPin::parse(file_name).is_some()
}

/// The index of an interface.
///
/// # Errors
/// If there is none of that name, or the kernel does not say.
pub fn index_of(name: &str) -> Result<u32, AttachError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
    let find = || {
        let any = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        name_to_index(any, name)
    };
    find().map_err(|e: Errno| match e {
        Errno::NODEV | Errno::NXIO => AttachError::NoInterface(name.into()),
        e => AttachError::Generic { name: name.into(), source: e.into() },
    })
}

fn pins(dir: &Path) -> Vec<LinkPin> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| LinkPin::parse(&e.file_name().to_string_lossy())).collect()
}

fn remove(dir: &Path, pin: &LinkPin) {
    let path = dir.join(pin.file_name());
    if let Err(e) = std::fs::remove_file(&path) {
        tracing::warn!("{}: {e}", path.display());
    }
}

/// Takes the program whose links are pinned in `dir` off an interface, or forgets the link of one that is gone. Whether there was one.
pub fn detach(dir: &Path, name: &str) -> bool {
    let mut found = false;
    for pin in pins(dir).iter().filter(|p| p.name == name) {
        remove(dir, pin);
        found = true;
    }
    found
}

/// Puts the program on interfaces.
pub struct Attacher {
    ebpf: Ebpf,
    program: &'static str,
    dir: PathBuf,
    mode: Mode,
}

impl Attacher {
    /// With a loaded program of an object, whose links are pinned in `dir`.
    #[must_use]
    pub fn new(ebpf: Ebpf, program: &'static str, dir: &Path, mode: Mode) -> Self {
        Self { ebpf, program, dir: dir.into(), mode }
    }

    /// Takes the program off every interface but these.
    pub fn keep_only(&self, names: &[String]) {
        for pin in pins(&self.dir) {
            if !names.contains(&pin.name) {
                tracing::info!("interface {}: no longer configured, taking the program off", pin.name);
                remove(&self.dir, &pin);
            }
        }
    }

    /// Takes the program off an interface, or forgets the link of one that is gone.
    pub fn detach(&self, name: &str) {
        detach(&self.dir, name);
    }

    /// Puts the program on an interface, in place of an earlier daemon's if that is there.
    ///
    /// # Errors
    /// If it cannot be put there in the wanted mode.
    pub fn attach(&mut self, name: &str, index: u32) -> Result<Hook, AttachError> {
        for pin in pins(&self.dir).into_iter().filter(|p| p.name == name) {
            if pin.index == index && pin.hook.fits(self.mode) {
                match self.swap(&pin) {
                    Ok(()) => return Ok(pin.hook),
                    Err(e) => tracing::debug!("interface {name}: the pinned link is of no use: {e}"),
                }
            }
            remove(&self.dir, &pin);
        }
        if self.mode == Mode::Generic {
            return self.fresh(name, index, Hook::Generic);
        }
        match self.fresh(name, index, Hook::Native) {
            Err(AttachError::Native { reason, .. }) if self.mode == Mode::Auto => {
                tracing::warn!("interface {name}: no native XDP ({reason}): falling back to generic mode, which is slower");
                self.fresh(name, index, Hook::Generic)
            }
            other => other,
        }
    }

    /// Swaps the program of a pinned link.
    fn swap(&mut self, pin: &LinkPin) -> Result<(), String> {
        let pinned = PinnedLink::from_pin(self.dir.join(pin.file_name())).map_err(|e| chain(&e))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|e| chain(&e))?;
        let program = load::program(&mut self.ebpf, self.program).map_err(|e| chain(&e))?;
        let id = program.attach_to_link(link).map_err(|e| chain(&e))?;
        // Only the file descriptor is given up; the pin keeps the link.
        program.take_link(id).map(drop).map_err(|e| chain(&e))
    }

    fn fresh(&mut self, name: &str, index: u32, hook: Hook) -> Result<Hook, AttachError> {
        let mode = match hook {
            Hook::Native => XdpMode::Driver,
            Hook::Generic => XdpMode::Skb,
        };
        let refused = |error: io::Error| match Errno::from_io_error(&error) {
            // The second: one in the other mode.
            Some(Errno::BUSY | Errno::EXIST) => AttachError::Busy(name.into()),
            Some(Errno::PERM | Errno::ACCESS) => AttachError::Privilege(name.into()),
            Some(Errno::NODEV) => AttachError::NoInterface(name.into()),
            _ if hook == Hook::Generic => AttachError::Generic { name: name.into(), source: error },
            _ => AttachError::Native { name: name.into(), reason: reason(name, &error) },
        };
        let program = load::program(&mut self.ebpf, self.program)?;
        let id = program.attach_to_if_index(index, mode).map_err(|e| refused(errno_of(e)))?;
        let link = program.take_link(id).map_err(|e| refused(errno_of(e)))?;
        // A link that the kernel refused was attempted the old way, which cannot be pinned: dropping it takes it off again.
        let link = FdLink::try_from(link).map_err(|_| refused(Errno::INVAL.into()))?;
        let pin = LinkPin { hook, index, name: name.into() };
        let path = self.dir.join(pin.file_name());
        link.pin(&path).map_err(|e| AttachError::Pin { name: name.into(), path, reason: chain(&e) })?;
        Ok(hook)
    }
}

fn errno_of(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(e) => e.io_error,
        ProgramError::XdpError(XdpError::NetlinkError(e)) => {
            e.raw_os_error().map_or_else(|| io::Error::other(e.to_string()), io::Error::from_raw_os_error)
        }
        other => io::Error::other(chain(&other)),
    }
}

/// What an error of the driver is likely to mean.
fn reason(name: &str, error: &io::Error) -> String {
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"))
        .ok()
        .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    let who = driver.map_or_else(|| "the driver".into(), |d| format!("the driver {d}"));
    match Errno::from_io_error(error) {
        Some(Errno::OPNOTSUPP) => format!("{who} has none, or not with the interface's present offloads"),
        Some(Errno::RANGE) => format!("{who} cannot with the present MTU; on veth, the peer's MTU is too large"),
        Some(Errno::NOSPC) => format!("{who} has too few receive queues; on veth, the peer has more transmit queues"),
        Some(Errno::NOMEM) => format!("{who} has too few queues or too little memory"),
        Some(Errno::INVAL) => format!("{who} refuses it as things are set; most often the MTU is too large"),
        _ => format!("{who} refuses it: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_say_what_they_are() {
        for name in ["eth0", "eth0.100", "a_b_c", "100%.x", "%2e"] {
            for hook in [Hook::Native, Hook::Generic] {
                let pin = LinkPin { hook, index: 7, name: name.into() };
                assert!(!pin.file_name().contains('.'), "{pin:?}");
                assert_eq!(LinkPin::parse(&pin.file_name()), Some(pin));
            }
        }
        for other in ["LVX_CONFIG", "link_native_x_eth0", "link_old_1_eth0", "link_native_1", ""] {
            assert_eq!(LinkPin::parse(other), None);
        }
    }

    #[test]
    fn an_absent_interface_is_named() {
        let error = index_of("lvx-no-such0").unwrap_err().to_string();
        assert_eq!(error, "interface lvx-no-such0: no such interface");
        assert!(index_of("lo").is_ok());
    }
}
