//! The connection tables of a daemon that runs, from outside: its pinned maps, mapped into memory.
//!
//! Tests read here what the daemon itself would have to be believed about ([`Tables::scan`]), fill tables faster than packets could
//! ([`Tables::fill`]), and break counts on purpose ([`Tables::counts`]).
//!
//! The trap: what makes connections takes locks that a packet may have to wait for, if only for the length of a time slice. So tables are
//! filled while there is no traffic.

use anyhow::{Context, Result, bail, ensure};
use aya::maps::MapData;
use lb_common::config::Config;
use lb_common::conn::{self, Conn, LIVE, TEMPLATE, ports_word};
use lb_common::dest::{Dest, DestConns};
use lb_common::family::{Family, V4, V6};
use lb_common::limits::map;
use lb_common::table::{Bucket, Created, Hands, New, Raw, Shape, Tuple, create};
use lb_common::tcp::{self, State};
use lb_common::time::{Tick, tick_of_ns};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

/// An array map in memory, until this is dropped.
#[derive(Debug)]
struct Area<T> {
    start: *mut T,
    len: u32,
    bytes: usize,
}

// SAFETY: memory without an owner thread.
unsafe impl<T> Send for Area<T> {}
// SAFETY: as above; what changes meanwhile is read volatile, or by the table's routines.
unsafe impl<T> Sync for Area<T> {}

impl<T> Area<T> {
    fn open(pins: &Path, name: &str) -> Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let data = MapData::from_pin(pins.join(name)).with_context(|| format!("opening the pin of {name}"))?;
        let info = data.info()?;
        ensure!(info.value_size() as usize == size_of::<T>() && size_of::<T>().is_multiple_of(8), "{name}: another layout");
        let (len, bytes) = (info.max_entries(), info.max_entries() as usize * size_of::<T>());
        // SAFETY: a new mapping; the kernel keeps the map while it is mapped.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, data.fd().as_fd(), 0)
        };
        let start = start.with_context(|| format!("mapping {name}"))?.cast();
        Ok(Self { start, len, bytes })
    }

    /// An element, wherever packets have it at this moment.
    fn get(&self, index: u32) -> Option<*mut T> {
        // SAFETY: within the mapping.
        (index < self.len).then(|| unsafe { self.start.add(index as usize) })
    }

    fn read(&self, index: u32) -> Option<T> {
        // SAFETY: an element, of plain numbers.
        self.get(index).map(|p| unsafe { p.read_volatile() })
    }
}

impl<T> Drop for Area<T> {
    fn drop(&mut self) {
        // SAFETY: mapped so in `open`, and nobody has a pointer any more.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.bytes) };
    }
}

/// Both tables of a daemon.
#[derive(Debug)]
pub struct Tables {
    config: Area<Config>,
    index4: Area<Bucket>,
    index6: Area<Bucket>,
    conns4: Area<Conn<V4>>,
    conns6: Area<Conn<V6>>,
    hands: Area<Hands>,
    dests: Area<Dest>,
    dest_conns: Area<DestConns>,
}

/// What a full scan found: connections by real server's element.
pub type Scan = BTreeMap<u32, DestConns>;

/// A connection to be put into a table, client by client.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    /// TCP state.
    pub state: State,
    /// Seconds until it expires.
    pub seconds: u32,
    /// Element of the real server.
    pub dest: u32,
}

impl Tables {
    /// Those pinned in a directory.
    ///
    /// # Errors
    /// They are not there, or of another layout.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            config: Area::open(pins, map::CONFIG)?,
            index4: Area::open(pins, map::INDEX4)?,
            index6: Area::open(pins, map::INDEX6)?,
            conns4: Area::open(pins, map::CONNS4)?,
            conns6: Area::open(pins, map::CONNS6)?,
            hands: Area::open(pins, map::HANDS)?,
            dests: Area::open(pins, map::DESTS)?,
            dest_conns: Area::open(pins, map::DEST_CONNS)?,
        })
    }

    fn config(&self) -> Result<Config> {
        self.config.read(0).context("no configuration")
    }

    fn shape(&self, v6: bool) -> Result<Shape> {
        let config = self.config()?;
        let slot = usize::from(v6);
        Ok(Shape { seed: config.seed, mask: config.bucket_mask[slot], records: config.records[slot] })
    }

    /// The tables' time.
    ///
    /// # Errors
    /// No configuration.
    pub fn now(&self) -> Result<Tick> {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        let ns = t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
        Ok(tick_of_ns(ns).wrapping_add(self.config()?.clock_offset))
    }

    fn raw<F: Family>(&self, index: &Area<Bucket>, conns: &Area<Conn<F>>) -> Raw<F> {
        let dests = (self.dests.start.cast_const(), self.dests.len);
        let dest_conns = (self.dest_conns.start, self.dest_conns.len);
        // SAFETY: mapped as long as `self`, in the sizes of the maps; the value does not outlive the call it is made for.
        unsafe { Raw::new((index.start, index.len), (conns.start, conns.len), self.hands.start, dest_conns, dests) }
    }

    /// Elements of real servers that are in a service.
    #[must_use]
    pub fn servers(&self) -> Vec<u32> {
        let present = |i: &u32| self.dests.read(*i).is_some_and(|d| d.flags & lb_common::dest::PRESENT != 0);
        (0..self.dests.len).filter(present).collect()
    }

    /// A real server's counts, to be looked at or broken.
    #[must_use]
    pub fn counts(&self, dest: u32) -> DestConns {
        self.dest_conns.read(dest).unwrap_or_default()
    }

    /// Breaks a real server's counts.
    pub fn set_counts(&self, dest: u32, counts: DestConns) {
        if let Some(p) = self.dest_conns.get(dest) {
            // SAFETY: an element.
            unsafe { p.write_volatile(counts) }
        }
    }

    /// Every live record of both tables, counted.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let mut found = Scan::new();
        for i in 0..self.conns4.len {
            let Some(c) = self.conns4.read(i) else { break };
            note(&mut found, c.ctl, c.dest);
        }
        for i in 0..self.conns6.len {
            let Some(c) = self.conns6.read(i) else { break };
            note(&mut found, c.ctl, c.dest);
        }
        found
    }

    /// The counts that differ from a full scan, as text; for tables at rest.
    ///
    /// # Errors
    /// They do.
    pub fn check(&self) -> Result<()> {
        let found = self.scan();
        let mut wrong = Vec::new();
        for dest in 0..self.dest_conns.len {
            let n = self.counts(dest);
            let want = found.get(&dest).copied().unwrap_or_default();
            if (n.active, n.inactive, n.templates) != (want.active, want.inactive, want.templates) {
                wrong.push(format!("element {dest}: counted {n:?}, in the table {want:?}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { bail!("counts differ from the tables: {}", wrong.join("; ")) }
    }

    /// Puts TCP connections of `n` different clients to one VIP into a table: NAT, so each has two entries. How many there are now: in a
    /// table that is nearly full, one in some ten thousand finds all buckets of its way full.
    ///
    /// # Errors
    /// More than that do not fit.
    pub fn fill(&self, v6: bool, n: u32, filling: Filling) -> Result<u32> {
        if v6 {
            let raw = self.raw(&self.index6, &self.conns6);
            self.fill_family(&raw, n, filling, |i| ([0xfd, u64::from(i).to_be()], [0xfd, 9 << 56], [0xfd, 2 << 56]))
        } else {
            let raw = self.raw(&self.index4, &self.conns4);
            self.fill_family(&raw, n, filling, |i| ((0x0a40_0000 + i).to_be(), 0x0a09_0001u32.to_be(), 0x0a02_000bu32.to_be()))
        }
    }

    fn fill_family<F: Family>(
        &self,
        raw: &Raw<F>,
        n: u32,
        filling: Filling,
        addresses: impl Fn(u32) -> (F::Addr, F::Addr, F::Addr),
    ) -> Result<u32> {
        let shape = self.shape(F::ID == lb_common::family::FAMILY_V6)?;
        let now = self.now()?;
        let mut made = 0;
        for i in 0..n {
            let (src, dst, real) = addresses(i);
            let tuple =
                Tuple { src, dst, ports: ports_word((i as u16 | 1024).to_be(), 80u16.to_be()), proto: lb_common::proto::TCP };
            let new = New {
                tuple,
                real,
                real_port: 8080u16.to_be(),
                l4_delta: 0,
                ip_delta: 0,
                method: lb_common::proto::NAT,
                state: filling.state,
                flags: conn::REVERSE,
                dest: filling.dest,
                expires: now.wrapping_add(lb_common::time::ticks_of_seconds(filling.seconds)),
                template: 0,
                reply: 0,
            };
            let (created, _) = create(raw, &shape, now, &new, None);
            ensure!(matches!(created, Created::Made(_) | Created::Full), "connection {i}: {created:?}");
            made += u32::from(matches!(created, Created::Made(_)));
        }
        ensure!(made >= n - n.div_ceil(1000), "only {made} of {n} connections fit");
        Ok(made)
    }
}

fn note(found: &mut Scan, ctl: u64, dest: u32) {
    if conn::phase(ctl) != LIVE {
        return;
    }
    let n = found.entry(dest).or_default();
    if ctl & TEMPLATE != 0 {
        n.templates += 1;
    } else if tcp::is_active(conn::state(ctl)) {
        n.active += 1;
    } else {
        n.inactive += 1;
    }
}
