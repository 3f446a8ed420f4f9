//! Program and maps: loaded anew, or maps of an earlier daemon taken over from their pins.
//!
//! The trap: a pinned map is reused by the loader without a look at it. Version and sizes are therefore compared before. Maps
//! whose configuration was never written (the version is 0) are those of a start that was cut off before any packet saw
//! them, and are replaced.

use super::config::Sizes;
use crate::object::PROGRAM;
use aya::maps::{Array, Map, MapData, MapError, MapInfo, RingBuf};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lb_common::config::Config;
use lb_common::dest::DestConns;
use lb_common::filter::FILTER_WORDS;
use lb_common::limits::{ABI_VERSION, MAX_PORTS, TRACES, map};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why program and maps cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Pinned maps of another version.
    #[error(
        "the maps pinned in {} are of version {found}, this lvxd is for version {ABI_VERSION} and cannot take them over; what is there \
         goes on balancing. Either wait for its connections with --drain SECONDS, or end them with --discard",
        dir.display()
    )]
    Version {
        /// Where.
        dir: PathBuf,
        /// Theirs.
        found: u32,
    },
    /// Pinned maps of other sizes.
    #[error(
        "map {map} pinned in {} has {found} elements, the configured sizes (or this machine's CPUs) ask for {expected}: \
         configure the sizes that it was made with, or discard the maps and their connections with --discard",
        dir.display()
    )]
    Size {
        /// Where.
        dir: PathBuf,
        /// Which.
        map: &'static str,
        /// Its.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// Some maps are pinned, others not.
    #[error("map {map} is missing among those pinned in {}: discard the others with --discard", dir.display())]
    Incomplete {
        /// Where.
        dir: PathBuf,
        /// Which.
        map: &'static str,
    },
    /// Pins cannot be looked at or removed.
    #[error("{}: {source}", path.display())]
    Pin {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Sizes beyond what a map takes.
    #[error("sizes.servers of {servers} with {cpus} CPUs is more than a map can hold")]
    TooLarge {
        /// Real servers.
        servers: u32,
        /// Possible CPUs.
        cpus: u32,
    },
    /// The number of CPUs is unknown.
    #[error("{0}: {1}")]
    Cpus(&'static str, io::Error),
    /// Not allowed.
    #[error("the kernel does not permit {0}: lvxd needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON of the initial user namespace")]
    Privilege(&'static str),
    /// Not enough memory.
    #[error("there is not enough memory for map {0}: lower sizes.connections, or the other sizes")]
    Memory(String),
    /// A map cannot be made.
    #[error("map {map} cannot be made: {source}")]
    Map {
        /// Which.
        map: String,
        /// Why.
        source: io::Error,
    },
    /// The program is refused.
    #[error("the kernel refuses the XDP program: {source} ({reason})")]
    Refused {
        /// Why.
        source: io::Error,
        /// The verifier's last word.
        reason: String,
    },
    /// Anything else about the object.
    #[error("XDP program: {0}")]
    Object(String),
}

/// Program and maps.
pub struct Loaded {
    /// The object; its program is loaded.
    pub ebpf: Ebpf,
    /// Whether the maps are those of an earlier daemon.
    pub adopted: bool,
}

/// Number of possible CPUs.
///
/// # Errors
/// If the kernel does not say.
pub fn possible_cpus() -> Result<u32, LoadError> {
    aya::util::nr_cpus().map(|n| n as u32).map_err(|(what, e)| LoadError::Cpus(what, e))
}

/// Pinned maps and their numbers of elements.
fn shapes(sizes: &Sizes, cpus: u32) -> Result<Vec<(&'static str, u32)>, LoadError> {
    let (connections, servers) = (sizes.connections(), sizes.servers());
    servers.checked_mul(cpus).ok_or(LoadError::TooLarge { servers, cpus })?;
    let sizes = crate::engine::Sizes { connections, services: sizes.services(), servers, picks: sizes.picks(), cpus };
    let fixed = [
        (map::CONFIG, 1),
        (map::HANDS, 1),
        (map::FILTER, FILTER_WORDS),
        (map::PORTS, MAX_PORTS),
        (map::TRACES, TRACES),
        (map::PORT_OF, MAX_PORTS),
        (map::TX, MAX_PORTS),
    ];
    Ok(sizes.max_entries().into_iter().chain(fixed).collect())
}

/// What the pins of a directory are.
#[derive(Debug, PartialEq, Eq)]
enum Pins {
    /// There are none that anything depends on.
    None,
    /// Maps of the right version and sizes.
    Ours,
}

fn examine(dir: &Path, shapes: &[(&'static str, u32)]) -> Result<Pins, LoadError> {
    let pinned = |name: &str| dir.join(name).exists();
    if !pinned(map::CONFIG) {
        return match shapes.iter().find(|(name, _)| pinned(name)) {
            Some(_) => Err(LoadError::Incomplete { dir: dir.into(), map: map::CONFIG }),
            None => Ok(Pins::None),
        };
    }
    let found = read_config(dir)?.abi;
    if found == 0 {
        return Ok(Pins::None);
    }
    if found != ABI_VERSION {
        return Err(LoadError::Version { dir: dir.into(), found });
    }
    for &(map, expected) in shapes {
        if !pinned(map) {
            return Err(LoadError::Incomplete { dir: dir.into(), map });
        }
        let path = dir.join(map);
        let info = MapInfo::from_pin(&path).map_err(|e| LoadError::Pin { path, source: io_error(e) })?;
        if info.max_entries() != expected {
            return Err(LoadError::Size { dir: dir.into(), map, found: info.max_entries(), expected });
        }
    }
    Ok(Pins::Ours)
}

/// The pinned configuration.
fn read_config(dir: &Path) -> Result<Config, LoadError> {
    let path = dir.join(map::CONFIG);
    let read = || -> Result<Config, MapError> {
        let data = MapData::from_pin(&path)?;
        Array::<_, Config>::try_from(Map::Array(data))?.get(&0, 0)
    };
    match read() {
        Ok(config) => Ok(config),
        // A layout of another size is another version's.
        Err(MapError::InvalidValueSize { .. }) => Err(LoadError::Version { dir: dir.into(), found: 0 }),
        Err(e) => Err(LoadError::Pin { path: path.clone(), source: io_error(e) }),
    }
}

/// What tells pinned maps from any others: the seeds of their flow hash.
///
/// # Errors
/// If they cannot be read.
pub fn identity(dir: &Path) -> Result<[u64; 2], LoadError> {
    Ok(read_config(dir)?.seed)
}

/// Waits until no connection in maps of another version is active any more, as far as that can be read, for `limit` at most. Maps of this
/// version, or none, are not waited for.
///
/// # Errors
/// If they cannot be looked at.
pub fn drain(dir: &Path, limit: Duration) -> Result<bool, LoadError> {
    if !dir.join(map::CONFIG).exists() {
        return Ok(false);
    }
    match read_config(dir) {
        Ok(config) if config.abi == ABI_VERSION || config.abi == 0 => return Ok(false),
        Ok(_) | Err(LoadError::Version { .. }) => {}
        Err(e) => return Err(e),
    }
    let end = Instant::now() + limit;
    let mut said = None;
    loop {
        // Every version so far counts connections alike.
        let active = active_connections(&dir.join(map::DEST_CONNS));
        match active {
            Some(0) => break,
            Some(n) if said != Some(n) => tracing::info!("draining: {n} connections are active"),
            None if said.is_none() => {
                tracing::warn!("draining: connections of that version cannot be counted, waiting {limit:.0?}");
            }
            _ => {}
        }
        said = active.or(Some(0));
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!("draining: the time is up");
            break;
        }
        super::notify::starting(Duration::from_secs(10));
        std::thread::sleep(left.min(Duration::from_millis(500)));
    }
    Ok(true)
}

/// Active connections of all servers, in a map that may be another version's; `None` if it is not laid out as this one's.
fn active_connections(path: &Path) -> Option<u64> {
    let map: Array<_, DestConns> = Map::Array(MapData::from_pin(path).ok()?).try_into().ok()?;
    let counts = map.iter().filter_map(Result::ok);
    // A count in the middle of being moved may stand at -1 for an instant.
    Some(counts.map(|c| c.active).filter(|n| *n <= u64::from(u32::MAX)).sum())
}

/// Removes all pins: nothing keeps maps and links then but open file descriptors.
///
/// # Errors
/// The first pin that cannot be removed; an absent directory is none.
pub fn remove_pins(dir: &Path) -> Result<(), LoadError> {
    remove(dir, true)
}

/// Removes the pins of maps: a program that is attached goes on with them until another is swapped in.
fn remove_maps(dir: &Path) -> Result<(), LoadError> {
    remove(dir, false)
}

fn remove(dir: &Path, links: bool) -> Result<(), LoadError> {
    let failed = |path: &Path, source: io::Error| LoadError::Pin { path: path.into(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed(dir, e))?,
    };
    let mut names: Vec<_> = entries.collect::<Result<_, _>>().map_err(|e| failed(dir, e))?;
    // Links first: no packet is to meet half the maps.
    names.sort_by_key(|e| !super::attach::is_link_pin(&e.file_name().to_string_lossy()));
    for entry in names {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (links && super::attach::is_link_pin(&name)) || name.starts_with("LVX_") {
            std::fs::remove_file(entry.path()).map_err(|e| failed(&entry.path(), e))?;
        }
    }
    Ok(())
}

/// Loads the program, with pinned maps if there are any that fit, or else with new ones, which are pinned.
///
/// # Errors
/// If pinned maps do not fit, or the kernel refuses anything. New pins are then gone again.
pub fn load(object: &[u8], dir: &Path, sizes: &Sizes, discard: bool) -> Result<Loaded, LoadError> {
    let shapes = shapes(sizes, possible_cpus()?)?;
    if discard {
        tracing::warn!("discarding the maps pinned in {}, and their connections", dir.display());
        remove_maps(dir)?;
    }
    let adopted = examine(dir, &shapes)? == Pins::Ours;
    if !adopted {
        // A program that is on interfaces stays there, until this one takes its place in one step.
        remove_maps(dir)?;
    }
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(dir);
    for (name, entries) in &shapes {
        loader.map_max_entries(name, *entries);
    }
    let mut load = || -> Result<Ebpf, LoadError> {
        let mut ebpf = loader.load(object).map_err(object_error)?;
        program(&mut ebpf, PROGRAM)?.load().map_err(program_error)?;
        Ok(ebpf)
    };
    match load() {
        Ok(ebpf) => Ok(Loaded { ebpf, adopted }),
        Err(e) => {
            if !adopted && let Err(e) = remove_maps(dir) {
                tracing::warn!("{e}");
            }
            Err(e)
        }
    }
}

/// The program of a loaded object.
///
/// # Errors
/// If it is not there.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or_else(|| LoadError::Object(format!("the object has no program {name}")))?;
    program.try_into().map_err(|e: ProgramError| LoadError::Object(e.to_string()))
}

/// The ring buffer by which the packet path asks for plans.
///
/// # Errors
/// If it is not there.
pub fn signals(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, LoadError> {
    let map = ebpf.take_map(map::SIGNALS).ok_or_else(|| LoadError::Object(format!("the object has no map {}", map::SIGNALS)))?;
    RingBuf::try_from(map).map_err(|e| LoadError::Object(e.to_string()))
}

pub(super) fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(e) => e.io_error,
        MapError::IoError(e) => e,
        other => io::Error::other(other),
    }
}

fn is(error: &io::Error, errno: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn object_error(error: EbpfError) -> LoadError {
    use rustix::io::Errno;
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            if is(&io_error, Errno::PERM) {
                LoadError::Privilege("BPF maps")
            } else if is(&io_error, Errno::NOMEM) || is(&io_error, Errno::TOOBIG) {
                LoadError::Memory(name)
            } else {
                LoadError::Map { map: name, source: io_error }
            }
        }
        EbpfError::MapError(MapError::PinError { name, error }) => {
            LoadError::Map { map: name.unwrap_or_default(), source: io::Error::other(chain(&error)) }
        }
        other => LoadError::Object(chain(&other)),
    }
}

fn program_error(error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            if is(&io_error, rustix::io::Errno::PERM) && verifier_log.to_string().trim().is_empty() {
                return LoadError::Privilege("XDP programs");
            }
            let log = verifier_log.to_string();
            tracing::debug!("verifier: {log}");
            let last = log.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("processed "));
            LoadError::Refused { source: io_error, reason: last.unwrap_or("no reason given").into() }
        }
        other => LoadError::Object(chain(&other)),
    }
}

/// An error and its causes, in a line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let next = e.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = e.source();
    }
    text.replace('\n', "; ")
}
