//! The maps that the XDP program and the daemon share, checked for shape.
//!
//! Array maps are mapped into memory ([`Mapped`]); the hashes and the device map go through system calls ([`Table`],
//! [`Devices`]). [`Maps::in_memory`] gives the same things without a kernel, for tests of what is done with them.
//!
//! The trap: a pinned map is reused without a look at its shape, so every size is compared here before anything is read.

use super::mapped::Mapped;
use aya::Pod;
use aya::maps::{DevMap, HashMap, Map, MapData, MapError, MapInfo};
use lb_common::config::Config;
use lb_common::conn::{Conn4, Conn6};
use lb_common::dest::{Dest, DestConns, Port};
use lb_common::filter::FILTER_WORDS;
use lb_common::limits::{self, MAX_PORTS, map};
use lb_common::note::{DestNote, ServiceNote};
use lb_common::service::{Service, ServiceKey};
use lb_common::stats::{Cpu, DestStats};
use lb_common::table::{Bucket, Hands, buckets_for, records_for};
use std::hash::Hash;
use std::io;

/// Why maps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The object has no such map.
    #[error("there is no map {map}")]
    Missing {
        /// Its name.
        map: &'static str,
    },
    /// A map of another type.
    #[error("map {map} is not {expected}")]
    Type {
        /// Its name.
        map: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A map of another shape.
    #[error("map {map}: {what} is {found}, not {expected}")]
    Shape {
        /// Its name.
        map: &'static str,
        /// Which number.
        what: &'static str,
        /// What it is.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// A map of an unknown version.
    #[error("the maps are of version {found}, this program is for version {}", limits::ABI_VERSION)]
    Version {
        /// Theirs.
        found: u32,
    },
    /// The kernel gave no information about a map.
    #[error("map {map} cannot be examined")]
    Info {
        /// Its name.
        map: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// A map could not be mapped into memory.
    #[error("map {map} cannot be mapped into memory")]
    Mmap {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("map {map} cannot be read or written")]
    Access {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No random numbers for the seeds.
    #[error("no random numbers for the hash seeds")]
    Random(#[source] io::Error),
}

/// A hash map.
#[derive(Debug)]
pub(super) enum Table<K, V> {
    /// In the kernel.
    Kernel(HashMap<MapData, K, V>),
    /// In this process.
    Heap {
        /// The elements.
        map: std::collections::HashMap<K, V>,
        /// How many it takes.
        max: usize,
    },
}

fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(e) => e.io_error,
        other => io::Error::other(other),
    }
}

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) -> io::Result<()> {
        match self {
            Self::Kernel(m) => m.insert(key, value, 0).map_err(io_error),
            Self::Heap { map, max } => {
                if map.len() >= *max && !map.contains_key(&key) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                map.insert(key, value);
                Ok(())
            }
        }
    }

    /// Removes a key; no error if it is absent.
    pub(super) fn remove(&mut self, key: &K) -> io::Result<()> {
        match self {
            Self::Kernel(m) => match m.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
                Err(e) => {
                    let e = io_error(e);
                    if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
                }
            },
            Self::Heap { map, .. } => {
                map.remove(key);
                Ok(())
            }
        }
    }

    pub(super) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        match self {
            Self::Kernel(m) => m.iter().collect::<Result<_, _>>().map_err(io_error),
            Self::Heap { map, .. } => Ok(map.iter().map(|(k, v)| (*k, *v)).collect()),
        }
    }
}

/// The device map.
pub(super) enum Devices {
    /// In the kernel.
    Kernel(DevMap<MapData>),
    /// In this process.
    Heap(Vec<u32>),
}

impl Devices {
    /// Sets the interface of an element; 0 empties it.
    pub(super) fn set(&mut self, index: u32, ifindex: u32) -> io::Result<()> {
        match self {
            Self::Kernel(m) => m.set(index, ifindex, None, 0).map_err(io::Error::other),
            Self::Heap(v) => {
                let slot = v.get_mut(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
                *slot = ifindex;
                Ok(())
            }
        }
    }
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Connections of one family.
    pub connections: u32,
    /// Virtual services.
    pub services: u32,
    /// Real server entries.
    pub servers: u32,
    /// Picks.
    pub picks: u32,
    /// CPUs.
    pub cpus: u32,
}

impl Sizes {
    /// Elements of every map whose size is not fixed, for the loader.
    #[must_use]
    pub fn max_entries(&self) -> [(&'static str, u32); 13] {
        let (records, buckets) = (records_for(self.connections), buckets_for(self.connections));
        [
            (map::INDEX4, buckets),
            (map::INDEX6, buckets),
            (map::CONNS4, records),
            (map::CONNS6, records),
            // Services, and servers of one-packet services.
            (map::SERVICE_KEYS, self.services.saturating_add(self.servers)),
            (map::SERVICES, self.services),
            (map::DESTS, self.servers),
            (map::DEST_CONNS, self.servers),
            (map::DEST_STATS, self.servers.saturating_mul(self.cpus)),
            (map::DEST_NOTES, self.servers),
            (map::SERVICE_NOTES, self.services),
            (map::PICKS, self.picks),
            (map::CPUS, self.cpus),
        ]
    }
}

/// All maps.
pub struct Maps {
    pub(super) config: Mapped<Config>,
    pub(super) index4: Mapped<Bucket>,
    pub(super) index6: Mapped<Bucket>,
    pub(super) conns4: Mapped<Conn4>,
    pub(super) conns6: Mapped<Conn6>,
    pub(super) hands: Mapped<Hands>,
    pub(super) service_keys: Table<ServiceKey, u32>,
    pub(super) services: Mapped<Service>,
    pub(super) filter: Mapped<u64>,
    pub(super) picks: Mapped<u32>,
    pub(super) dests: Mapped<Dest>,
    pub(super) dest_conns: Mapped<DestConns>,
    pub(super) dest_stats: Mapped<DestStats>,
    pub(super) dest_notes: Mapped<DestNote>,
    pub(super) service_notes: Mapped<ServiceNote>,
    pub(super) cpus: Mapped<Cpu>,
    pub(super) ports: Mapped<Port>,
    pub(super) port_of: Table<u32, u32>,
    pub(super) devices: Devices,
}

/// Takes a map out of the object.
fn take(ebpf: &mut aya::Ebpf, map: &'static str) -> Result<Map, MapsError> {
    ebpf.take_map(map).ok_or(MapsError::Missing { map })
}

fn info(data: &MapData, map: &'static str) -> Result<MapInfo, MapsError> {
    data.info().map_err(|source| MapsError::Info { map, source: Box::new(source) })
}

fn same(map: &'static str, what: &'static str, found: u64, expected: u64) -> Result<(), MapsError> {
    if found == expected { Ok(()) } else { Err(MapsError::Shape { map, what, found, expected }) }
}

/// Maps an array into memory. It stays with the object, whose programs refer to it until they are loaded.
fn array<T: Pod>(ebpf: &aya::Ebpf, name: &'static str) -> Result<Mapped<T>, MapsError> {
    let Map::Array(data) = ebpf.map(name).ok_or(MapsError::Missing { map: name })? else {
        return Err(MapsError::Type { map: name, expected: "an array" });
    };
    let info = info(data, name)?;
    same(name, "the key's size", info.key_size().into(), 4)?;
    same(name, "the value's size", info.value_size().into(), size_of::<T>() as u64)?;
    Mapped::map(data.fd(), info.max_entries()).map_err(|source| MapsError::Mmap { map: name, source })
}

fn hash<K: Pod, V: Pod>(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<(Table<K, V>, u32), MapsError> {
    let Map::HashMap(data) = take(ebpf, name)? else {
        return Err(MapsError::Type { map: name, expected: "a hash" });
    };
    let info = info(&data, name)?;
    same(name, "the key's size", info.key_size().into(), size_of::<K>() as u64)?;
    same(name, "the value's size", info.value_size().into(), size_of::<V>() as u64)?;
    let table = HashMap::try_from(Map::HashMap(data)).map_err(|e| MapsError::Access { map: name, source: io_error(e) })?;
    Ok((Table::Kernel(table), info.max_entries()))
}

impl Maps {
    /// Takes the maps of a loaded object, before or after its programs are loaded.
    ///
    /// # Errors
    /// The first map that is missing, of another shape, or cannot be mapped into memory.
    pub fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapsError> {
        let (service_keys, service_key_count) = hash(ebpf, map::SERVICE_KEYS)?;
        let (port_of, _) = hash(ebpf, map::PORT_OF)?;
        let Map::DevMap(data) = take(ebpf, map::TX)? else {
            return Err(MapsError::Type { map: map::TX, expected: "a device map" });
        };
        same(map::TX, "the number of elements", info(&data, map::TX)?.max_entries().into(), MAX_PORTS.into())?;
        let devices = DevMap::try_from(Map::DevMap(data)).map_err(|e| MapsError::Access { map: map::TX, source: io_error(e) })?;
        let maps = Self {
            config: array(ebpf, map::CONFIG)?,
            index4: array(ebpf, map::INDEX4)?,
            index6: array(ebpf, map::INDEX6)?,
            conns4: array(ebpf, map::CONNS4)?,
            conns6: array(ebpf, map::CONNS6)?,
            hands: array(ebpf, map::HANDS)?,
            service_keys,
            services: array(ebpf, map::SERVICES)?,
            filter: array(ebpf, map::FILTER)?,
            picks: array(ebpf, map::PICKS)?,
            dests: array(ebpf, map::DESTS)?,
            dest_conns: array(ebpf, map::DEST_CONNS)?,
            dest_stats: array(ebpf, map::DEST_STATS)?,
            dest_notes: array(ebpf, map::DEST_NOTES)?,
            service_notes: array(ebpf, map::SERVICE_NOTES)?,
            cpus: array(ebpf, map::CPUS)?,
            ports: array(ebpf, map::PORTS)?,
            port_of,
            devices: Devices::Kernel(devices),
        };
        let keys = u64::from(maps.services.len()) + u64::from(maps.dests.len());
        if u64::from(service_key_count) < keys {
            let (found, expected) = (service_key_count.into(), keys);
            return Err(MapsError::Shape { map: map::SERVICE_KEYS, what: "the number of elements", found, expected });
        }
        maps.check()?;
        Ok(maps)
    }

    /// The same without a kernel. Nothing but what is done to it here ever changes it.
    #[must_use]
    pub fn in_memory(sizes: &Sizes) -> Self {
        let records = records_for(sizes.connections);
        let buckets = buckets_for(sizes.connections);
        Self {
            config: Mapped::heap(1),
            index4: Mapped::heap(buckets),
            index6: Mapped::heap(buckets),
            conns4: Mapped::heap(records),
            conns6: Mapped::heap(records),
            hands: Mapped::heap(1),
            service_keys: Table::Heap { map: std::collections::HashMap::new(), max: (sizes.services + sizes.servers) as usize },
            services: Mapped::heap(sizes.services),
            filter: Mapped::heap(FILTER_WORDS),
            picks: Mapped::heap(sizes.picks),
            dests: Mapped::heap(sizes.servers),
            dest_conns: Mapped::heap(sizes.servers),
            dest_stats: Mapped::heap(sizes.servers * sizes.cpus),
            dest_notes: Mapped::heap(sizes.servers),
            service_notes: Mapped::heap(sizes.services),
            cpus: Mapped::heap(sizes.cpus),
            ports: Mapped::heap(MAX_PORTS),
            port_of: Table::Heap { map: std::collections::HashMap::new(), max: MAX_PORTS as usize },
            devices: Devices::Heap(vec![0; MAX_PORTS as usize]),
        }
    }

    /// Sizes that depend on each other.
    fn check(&self) -> Result<(), MapsError> {
        const COUNT: &str = "the number of elements";
        same(map::CONFIG, COUNT, self.config.len().into(), 1)?;
        same(map::HANDS, COUNT, self.hands.len().into(), 1)?;
        same(map::FILTER, COUNT, self.filter.len().into(), FILTER_WORDS.into())?;
        same(map::PORTS, COUNT, self.ports.len().into(), MAX_PORTS.into())?;
        same(map::DEST_NOTES, COUNT, self.dest_notes.len().into(), self.dests.len().into())?;
        same(map::SERVICE_NOTES, COUNT, self.service_notes.len().into(), self.services.len().into())?;
        same(map::DEST_CONNS, COUNT, self.dest_conns.len().into(), self.dests.len().into())?;
        same(map::DEST_STATS, COUNT, self.dest_stats.len().into(), u64::from(self.dests.len()) * u64::from(self.cpus.len()))?;
        for (map, len) in [(map::INDEX4, self.index4.len()), (map::INDEX6, self.index6.len())] {
            same(map, COUNT, len.into(), len.next_power_of_two().into())?;
        }
        Ok(())
    }

    /// How to wait for packets under way.
    pub(super) fn barrier(&self) -> Barrier {
        Barrier { kernel: matches!(self.devices, Devices::Kernel(_)) }
    }
}

/// Waits for packets under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    kernel: bool,
}

impl Barrier {
    /// Returns once no packet that arrived before now is still being worked on, so that what it may have seen can be reused.
    ///
    /// XDP programs run inside RCU read sections; `membarrier(MEMBARRIER_CMD_GLOBAL)` waits for all of them to end.
    pub(super) fn settle(self) {
        if self.kernel {
            use rustix::thread::{MembarrierCommand, membarrier};
            if membarrier(MembarrierCommand::Global).is_err() {
                // Refused where CPUs are isolated (nohz_full). No packet takes longer than this.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}
