//! What the kernel must be and allow, looked at before anything is touched.

use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

/// Oldest kernel, major and minor.
const MAJOR: u32 = 6;
const MINOR: u32 = 1;

/// Why this kernel will not do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// Too old.
    #[error("this is Linux {0}; lvxd needs {MAJOR}.{MINOR} or newer")]
    Old(String),
    /// Privileges are missing.
    #[error("lvxd needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON, and lacks {0}: start it as root or from its service unit")]
    Privilege(String),
}

/// Checks version and privileges.
///
/// # Errors
/// If it is too old, or a privilege is missing.
pub fn check() -> Result<(), KernelError> {
    let release = uname().release().to_string_lossy().into_owned();
    check_version(&release)?;
    match capabilities(None) {
        Ok(sets) => check_capabilities(sets.effective),
        // The kernel will say what it refuses.
        Err(_) => Ok(()),
    }
}

fn check_version(release: &str) -> Result<(), KernelError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // A release that is no number is for the kernel's errors to judge.
    if version.0 != 0 && version < (MAJOR, MINOR) { Err(KernelError::Old(release.into())) } else { Ok(()) }
}

fn check_capabilities(effective: CapabilitySet) -> Result<(), KernelError> {
    // CAP_SYS_ADMIN stands for the two that were split off from it.
    let admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = [
        ("CAP_NET_ADMIN", effective.contains(CapabilitySet::NET_ADMIN)),
        ("CAP_BPF", admin || effective.contains(CapabilitySet::BPF)),
        ("CAP_PERFMON", admin || effective.contains(CapabilitySet::PERFMON)),
    ]
    .into_iter()
    .filter_map(|(name, has)| (!has).then_some(name))
    .collect();
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Privilege(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["6.1.0-13-amd64", "6.18.5", "7.0", "10.2-rc1", "6.1", "custom"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for old in ["5.15.0-91-generic", "6.0.12", "4.19"] {
            let error = check_version(old).unwrap_err().to_string();
            assert!(error.contains(old) && error.contains("6.1"), "{error}");
        }
    }

    #[test]
    fn missing_privileges_are_named() {
        let some = CapabilitySet::NET_ADMIN | CapabilitySet::BPF;
        assert_eq!(check_capabilities(some), Err(KernelError::Privilege("CAP_PERFMON".into())));
        assert_eq!(check_capabilities(some | CapabilitySet::PERFMON), Ok(()));
        assert_eq!(check_capabilities(CapabilitySet::SYS_ADMIN), Err(KernelError::Privilege("CAP_NET_ADMIN".into())));
    }
}
