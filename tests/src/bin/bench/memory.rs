//! What a connection takes of the kernel's memory.

use super::*;

/// Bytes of map memory for one connection, by the kernel's account of the maps that grow with the table.
pub(super) fn memory(args: &Args) -> Result<Vec<(&'static str, f64)>> {
    use std::os::fd::{AsFd, AsRawFd};
    let bed = Bed::new(false, Forwarding::Dr, args.connections, args)?;
    let capacity = f64::from(args.connections + args.connections / 4);
    let account = |name: &str| -> Result<f64> {
        let aya::maps::Map::Array(map) = bed.d.ebpf.map(name).with_context(|| format!("no map {name}"))? else {
            bail!("{name} is no array");
        };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let line = info.lines().find_map(|l| l.strip_prefix("memlock:")).context("no memlock")?;
        Ok(line.trim().parse::<f64>()?)
    };
    let mut rows = Vec::new();
    for (family, index, conns) in [("IPv4", "LVX_INDEX4", "LVX_CONNS4"), ("IPv6", "LVX_INDEX6", "LVX_CONNS6")] {
        let bytes = (account(index)? + account(conns)?) / capacity;
        println!("{family}: {bytes:.0} bytes of map memory a connection, by any method (targets: 160 DR and TUN, 320 NAT)");
        rows.push((family, bytes));
    }
    Ok(rows)
}
