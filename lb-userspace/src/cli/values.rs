//! Values of options: numbers, addresses, masks, flags.

use super::names::Names;
use crate::model::{Protocol, SchedFlags};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A decimal number as `strtol` reads it: blanks and a sign in front, nothing behind.
#[must_use]
pub(super) fn number(text: &str, min: i64, max: i64) -> Option<i64> {
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| (min..=max).contains(n))
}

/// An IPv4 address as `inet_aton` reads it: one to four numbers, the last of which fills what is left; hexadecimal and octal too.
#[must_use]
pub(super) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let mut address = 0u32;
    for (i, part) in parts.iter().enumerate() {
        let (digits, radix) = if let Some(hex) = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
            (hex, 16)
        } else if part.len() > 1 && part.starts_with('0') {
            (&part[1..], 8)
        } else {
            (*part, 10)
        };
        if digits.starts_with('+') {
            return None;
        }
        let n = u32::from_str_radix(digits, radix).ok()?;
        let last = i + 1 == parts.len();
        let bits = if last { 32 - 8 * i as u32 } else { 8 };
        if bits < 32 && n >> bits != 0 {
            return None;
        }
        address |= if last { n } else { n << (24 - 8 * i) };
    }
    Some(Ipv4Addr::from(address))
}

/// An address, and the port if there is one.
#[must_use]
pub(super) fn address(text: &str, protocol: Protocol, names: &Names) -> Option<(IpAddr, Option<u16>)> {
    if text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (host, mut port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            // A port must follow, if only an empty one.
            (host, Some(after.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let ip = if let Ok(ip) = host.parse::<Ipv6Addr>() {
        IpAddr::V6(ip)
    } else {
        let mut host = host;
        if port.is_none()
            && let Some((before, after)) = host.rsplit_once(':')
        {
            (host, port) = (before, Some(after));
        }
        IpAddr::V4(inet_aton(host).or_else(|| names.host(host))?)
    };
    let port = match port {
        None => None,
        Some(text) => Some(match number(text, 0, 65535) {
            Some(n) => n as u16,
            None => names.port(text, protocol)?,
        }),
    };
    Some((ip, port))
}

/// A persistence mask: of IPv4 any mask, of IPv6 a prefix length. The inner `None` is the whole address.
#[must_use]
pub(super) fn netmask(text: &str, service: IpAddr) -> Option<Option<IpAddr>> {
    if service.is_ipv4() {
        let mask = inet_aton(text)?;
        return Some((mask != Ipv4Addr::BROADCAST).then_some(IpAddr::V4(mask)));
    }
    let prefix = number(text, 1, 128)? as u32;
    Some((prefix != 128).then(|| IpAddr::V6(Ipv6Addr::from(u128::MAX << (128 - prefix)))))
}

/// The names of the three flags of a scheduler.
fn flag_names(scheduler: &str) -> [&'static str; 3] {
    match scheduler {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    }
}

/// Scheduler flags.
///
/// # Errors
/// Which name is none, or another scheduler's.
pub(super) fn sched_flags(text: &str, scheduler: &str) -> Result<SchedFlags, String> {
    let mut flags = SchedFlags::default();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let (owner, bit) = ["", "sh", "mh"]
            .iter()
            .find_map(|owner| Some((*owner, flag_names(owner).iter().position(|n| *n == name)?)))
            .ok_or_else(|| format!("invalid scheduler flag `{name}'"))?;
        // A scheduler that is named later is not looked at, as by ipvsadm.
        if !(owner.is_empty() || scheduler.is_empty() || owner == scheduler) {
            return Err(format!("incompatible scheduler flag `{name}'"));
        }
        flags.0 |= 1 << bit;
    }
    Ok(flags)
}

/// How they are shown; `None` if there are none.
#[must_use]
pub(super) fn show_sched_flags(flags: SchedFlags, scheduler: &str) -> Option<String> {
    let names = flag_names(scheduler);
    let list: Vec<&str> = (0..3).filter(|bit| flags.0 & (1 << bit) != 0).map(|bit| names[bit]).collect();
    (!list.is_empty()).then(|| list.join(","))
}

/// Where a real server's entry points.
#[must_use]
pub(super) fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_strtol_reads_them() {
        assert_eq!(number("80", 0, 65535), Some(80));
        assert_eq!(number(" +7", 0, 10), Some(7));
        for bad in ["", "-", "3x", "1.5", "abc", "65536", "-1", "99999999999999999999"] {
            assert_eq!(number(bad, 0, 65535), None, "{bad}");
        }
    }

    #[test]
    fn addresses_as_inet_aton_reads_them() {
        let ip = |s: &str| s.parse::<Ipv4Addr>().ok();
        assert_eq!(inet_aton("10.9.0.10"), ip("10.9.0.10"));
        assert_eq!(inet_aton("255.0.255"), ip("255.0.0.255"));
        assert_eq!(inet_aton("24"), ip("0.0.0.24"));
        assert_eq!(inet_aton("0x7f.1"), ip("127.0.0.1"));
        for bad in ["10.9.0.300", "", "1.2.3.4.5", "a", "1..2", "+1.2.3.4"] {
            assert_eq!(inet_aton(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_belong_to_schedulers() {
        let flags = |text, scheduler| sched_flags(text, scheduler).map(|f| f.0);
        assert_eq!(flags("sh-port,,sh-fallback", "sh"), Ok(3));
        assert_eq!(flags("sh-port", ""), Ok(2));
        assert_eq!(flags("", "rr"), Ok(0));
        assert_eq!(flags("flag-1,flag-3", "rr"), Ok(5));
        assert_eq!(flags("mh-port", "sh"), Err("incompatible scheduler flag `mh-port'".into()));
        assert_eq!(flags("sh-port", "rr"), Err("incompatible scheduler flag `sh-port'".into()));
        assert_eq!(flags("SH-PORT", "sh"), Err("invalid scheduler flag `SH-PORT'".into()));
    }

    #[test]
    fn addresses_with_ports() {
        let n = Names::of("http 80/tcp").offline();
        let a = |s: &str| address(s, Protocol::Tcp, &n);
        assert_eq!(a("10.9.0.10:80"), Some((IpAddr::from([10, 9, 0, 10]), Some(80))));
        assert_eq!(a("10.9.0.10:http"), a("10.9.0.10:80"));
        assert_eq!(a("[2001:db8::10]:80").unwrap().1, Some(80));
        // Without brackets all of it is the address.
        assert_eq!(a("2001:db8::10:80").unwrap().1, None);
        for bad in ["80", "", ":80", "10.9.0.10:99999", "10.9.0.10:-1", "[2001:db8::1", "[::1]", "[::1]80", "nosuch.invalid:80"] {
            assert_eq!(a(bad), None, "{bad}");
        }
    }
}
