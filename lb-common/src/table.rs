//! The connection table: records, and an index of buckets over them.
//!
//! # Shape
//! A record ([`Conn`]) is found through the *index*: an array of 64-byte buckets, each of seven entries and a head. An entry is
//! one 64-bit word, the 32-bit tag of a flow hash and the number of a record; a NAT connection has two entries, one for the
//! client's packets and one for the answers, and one record, so both directions share one state and one life. A key's home
//! bucket comes from its hash; when that is full, the entry goes to the next of [`CHOICES`] buckets, and every full bucket passed
//! on the way counts it in its head (*spilled*), so that a lookup goes on past a bucket only if that count is not zero.
//!
//! Records are taken by a *hand* that goes round the array: it takes free and expired records, skips live ones, and, when
//! [`ALLOC_PATIENCE`] records gave nothing, evicts the first embryonic one that it passed. As the hand fills records in the order in
//! which it passes them, what it evicts is the oldest. Established connections never give way.
//!
//! # Races
//! - Lookups take no lock. An entry is only a hint: the record's key is compared, and its control word read before and after.
//! - Two CPUs that see the same new flow at once meet at the lock in the head of the flow's home bucket; the second finds the
//!   first's connection. The lock is only ever held inside one run of the XDP program, which no signal ends and nothing on the
//!   same CPU interrupts to run another; user space never takes it. A CPU that does not get it gives the packet up.
//! - A record has one owner at a time, by compare-and-swap on its control word (see [`crate::conn`]). Only the owner writes or
//!   removes the record's entries. Both entries are in place before the record is published as live, and the record is
//!   claimed before either is removed, so no one ever finds one direction without the other.
//! - Different flows insert into one bucket without a common lock (their homes differ): each takes an empty entry by
//!   compare-and-swap.
//! - Two flows that differ only in the VIP and meet at the same server and port have the same answers. The second is refused
//!   (conflict) and tries another server; if both are made in the same instant on two CPUs, the check can miss, and the
//!   first found gets the answers, as in the kernel.

use crate::conn::{self, CLAIMED, Conn, FREE, LIVE, REVERSE, TEMPLATE};
use crate::dest::{Dest, DestConns, overloaded};
use crate::family::Family;
use crate::hash;
use crate::limits::{ALLOC_PATIENCE, ALLOC_TRIES, BUCKET_ENTRIES, CHOICES, LOCK_TRIES};
use crate::tcp::{self, State};
use crate::time::{Tick, reached};

/// A bucket of the index.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Low half: entries whose way led past this bucket because it was full. Bit 32: locked.
    pub head: u64,
    /// Tag in the high half; number of the record plus one in the low half, with [`ENTRY_REVERSE`]; 0 is empty.
    pub entries: [u64; BUCKET_ENTRIES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Entry of the answers' direction.
pub const ENTRY_REVERSE: u64 = 1 << 31;
const NUMBER: u64 = ENTRY_REVERSE - 1;
const LOCKED: u64 = 1 << 32;

/// Positions of the hands, IPv4 and IPv6, each on a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hands {
    /// Record to look at next, ever growing, by [`crate::config::Config::slot`]; the rest keeps the cache lines apart.
    pub hand: [[u64; 8]; 2],
}

const _: () = assert!(size_of::<Hands>() == 128);

/// Buckets that an index for `connections` needs: a power of two with room for two entries a connection at little more than half
/// full.
#[must_use]
pub const fn buckets_for(connections: u32) -> u32 {
    let entries = connections as u64 * 2;
    let wanted = (entries * 100).div_ceil(BUCKET_ENTRIES as u64 * 60);
    let buckets = if wanted < 2 { 2 } else { wanted.next_power_of_two() };
    buckets as u32
}

/// Records for `connections`: a sixteenth more, so that the hand finds a free one in a full table within a few steps.
#[must_use]
pub const fn records_for(connections: u32) -> u32 {
    connections + connections.div_ceil(16)
}

/// Memory that holds a table of family `F`, and its atomics. The pointers it gives stay valid while it is borrowed.
///
/// # Safety
/// The pointers must be to memory of the right type and size, which only table routines change.
pub unsafe trait Memory<F: Family> {
    /// A bucket; `None` if there is none of that number.
    fn bucket(&self, index: u32) -> Option<*mut Bucket>;
    /// A record.
    fn conn(&self, index: u32) -> Option<*mut Conn<F>>;
    /// The hand.
    fn hand(&self) -> Option<*mut u64>;
    /// A real server's connection counts.
    fn dest_conns(&self, index: u32) -> Option<*mut DestConns>;
    /// A real server, for its thresholds.
    fn dest(&self, index: u32) -> Option<*const Dest>;
    /// Reads a word that others change.
    fn load(word: *const u64) -> u64;
    /// Writes a word that others read; everything written before is visible before it.
    fn store(word: *mut u64, value: u64);
    /// Compare-and-swap; what was there before.
    fn swap_if(word: *mut u64, old: u64, new: u64) -> u64;
    /// Adds (wrapping); what was there before.
    fn add(word: *mut u64, value: u64) -> u64;

    /// Calls `body` with 0, 1, ... until it says false, at most `times` times.
    #[inline(always)]
    fn repeat<B: FnMut(u32) -> bool>(&self, times: u32, body: &mut B) {
        let mut i = 0;
        while i < times && body(i) {
            i += 1;
        }
    }

    /// [`seek`].
    #[inline(always)]
    fn seek(&self, shape: &Shape, hash: u64, t: &Tuple<F>) -> u64
    where
        Self: Sized,
    {
        seek::<F, Self>(self, shape, hash, t)
    }

    /// [`insert_entry`]: the packet path overrides this and the others here to keep them out of line, each verified by itself.
    #[inline(always)]
    fn insert(&self, shape: &Shape, hash: u64, low: u64) -> bool
    where
        Self: Sized,
    {
        insert_entry::<F, Self>(self, shape, hash, low)
    }

    /// [`remove_entry`].
    #[inline(always)]
    fn remove(&self, shape: &Shape, hash: u64, low: u64)
    where
        Self: Sized,
    {
        remove_entry::<F, Self>(self, shape, hash, low);
    }

    /// [`scan`].
    #[inline(always)]
    fn scan(&self, shape: &Shape, start: u32, now: Tick) -> u64
    where
        Self: Sized,
    {
        scan::<F, Self>(self, shape, start, now)
    }

    /// [`allocate`].
    #[inline(always)]
    fn allocate(&self, shape: &Shape, now: Tick) -> u64
    where
        Self: Sized,
    {
        allocate::<F, Self>(self, shape, now)
    }
}

/// Shape and keys of a table.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Seeds of the flow hash.
    pub seed: [u64; 2],
    /// Buckets minus one.
    pub mask: u32,
    /// Records.
    pub records: u32,
}

/// A packet's flow in the direction in which it travels.
#[derive(Clone, Copy, Debug)]
pub struct Tuple<F: Family> {
    /// Source address.
    pub src: F::Addr,
    /// Destination address.
    pub dst: F::Addr,
    /// Both ports as they stand in the packet.
    pub ports: u32,
    /// Protocol number.
    pub proto: u8,
}

/// A live record that a packet belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Found<F: Family> {
    /// Its number.
    pub index: u32,
    /// The packet is an answer.
    pub reverse: bool,
    /// The control word when its key matched.
    pub ctl: u64,
    /// The record.
    pub conn: *mut Conn<F>,
}

/// A connection to make.
#[derive(Clone, Copy, Debug)]
pub struct New<F: Family> {
    /// The client's packet.
    pub tuple: Tuple<F>,
    /// Server's address (NAT; otherwise anything).
    pub real: F::Addr,
    /// Server's port.
    pub real_port: u16,
    /// Deltas, see [`Conn`].
    pub l4_delta: u16,
    /// See [`Conn`].
    pub ip_delta: u16,
    /// Forwarding method.
    pub method: u8,
    /// First state.
    pub state: State,
    /// [`REVERSE`], [`TEMPLATE`].
    pub flags: u64,
    /// Dest.
    pub dest: u32,
    /// First deadline.
    pub expires: Tick,
    /// See [`Conn`].
    pub template: u32,
    /// First guess at the next hop of answers: where the client's packet came from.
    pub reply: u64,
}

/// How [`create`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// A new connection, in this record.
    Made(u32),
    /// Somebody made it first; it is live in this record.
    Exists(u32),
    /// No record or no entry was free or evictable.
    Full,
    /// The bucket stayed locked.
    Busy,
    /// Its answers would be another connection's.
    Conflict,
}

/// What became free, for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reclaimed {
    /// The record was free.
    Nothing,
    /// It was past its time.
    Expired,
    /// It was embryonic.
    Embryonic,
}

impl Reclaimed {
    #[inline(always)]
    const fn of(number: u64) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Expired,
            _ => Self::Embryonic,
        }
    }
}

#[inline(always)]
fn tag(hash: u64) -> u64 {
    hash & 0xffff_ffff_0000_0000
}

/// The bucket to try after `bucket`: steps depend on the hash, so that keys of one home part ways.
#[inline(always)]
fn onward(hash: u64, bucket: u32, mask: u32) -> u32 {
    bucket.wrapping_add(((hash >> 37) as u32) | 1) & mask
}

#[inline(always)]
unsafe fn matches<F: Family>(c: *const Conn<F>, t: &Tuple<F>, reverse: bool) -> bool {
    // SAFETY: the caller's memory; fields may change under us, which the control word then shows.
    unsafe {
        if reverse {
            let cp = (*c).ports.to_ne_bytes();
            let [s0, s1, d0, d1] = t.ports.to_ne_bytes();
            (*c).real_port == u16::from_ne_bytes([s0, s1])
                && [cp[0], cp[1]] == [d0, d1]
                && (*c).proto == t.proto
                && (*c).real == t.src
                && (*c).client == t.dst
        } else {
            (*c).ports == t.ports && (*c).proto == t.proto && (*c).client == t.src && (*c).vip == t.dst
        }
    }
}

/// Finds the live record of a packet, whatever its deadline.
#[inline(always)]
pub fn find<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> Option<Found<F>> {
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let bucket = m.bucket(at)?;
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let entry = M::load(unsafe { &raw const (*bucket).entries[i] });
            i += 1;
            if tag(entry) != tag(hash) || entry & NUMBER == 0 {
                continue;
            }
            let index = (entry & NUMBER) as u32 - 1;
            let reverse = entry & ENTRY_REVERSE != 0;
            let Some(c) = m.conn(index) else { continue };
            // SAFETY: `c` is a record.
            let ctl = M::load(unsafe { &raw const (*c).ctl });
            // SAFETY: as above.
            if conn::phase(ctl) == LIVE && unsafe { matches(c, t, reverse) } {
                return Some(Found { index, reverse, ctl, conn: c });
            }
        }
        // SAFETY: `bucket` is a bucket.
        if M::load(unsafe { &raw const (*bucket).head }) as u32 == 0 {
            return None;
        }
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
    None
}

/// [`find`] as one scalar: the record's number, with [`ENTRY_REVERSE`]; or [`NO_RECORD`].
#[inline(always)]
pub fn seek<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> u64 {
    match find(m, shape, hash, t) {
        Some(f) => f.index as u64 | if f.reverse { ENTRY_REVERSE } else { 0 },
        None => NO_RECORD,
    }
}

/// [`find`] where speed does not matter.
#[inline(always)]
fn find_cold<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> Option<Found<F>> {
    let sought = m.seek(shape, hash, t);
    if sought == NO_RECORD {
        return None;
    }
    let (index, reverse) = ((sought & NUMBER) as u32, sought & ENTRY_REVERSE != 0);
    let c = m.conn(index)?;
    // SAFETY: a record. It may be another's by now: its key is compared again after its control word is read.
    let ctl = M::load(unsafe { &raw const (*c).ctl });
    // SAFETY: as above.
    if conn::phase(ctl) == LIVE && unsafe { matches(c, t, reverse) } {
        return Some(Found { index, reverse, ctl, conn: c });
    }
    None
}

/// Puts an entry into the first bucket of its way that has room.
#[inline(always)]
pub fn insert_entry<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, low: u64) -> bool {
    let entry = tag(hash) | low;
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let Some(bucket) = m.bucket(at) else { break };
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let word = unsafe { &raw mut (*bucket).entries[i] };
            if M::load(word) == 0 && M::swap_if(word, 0, entry) == 0 {
                return true;
            }
            i += 1;
        }
        // Before the entry is anywhere beyond, so that no lookup stops short of it.
        // SAFETY: `bucket` is a bucket.
        M::add(unsafe { &raw mut (*bucket).head }, 1);
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
    unspill(m, shape, hash, choice);
    false
}

/// Takes back the marks that an entry left in the first `passed` buckets of its way.
#[inline(always)]
fn unspill<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, passed: u32) {
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES && choice < passed {
        let Some(bucket) = m.bucket(at) else { break };
        // SAFETY: `bucket` is a bucket.
        M::add(unsafe { &raw mut (*bucket).head }, 1u64.wrapping_neg());
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
}

/// Removes an entry, if it is there.
#[inline(always)]
pub fn remove_entry<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, low: u64) {
    let entry = tag(hash) | low;
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let Some(bucket) = m.bucket(at) else { return };
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let word = unsafe { &raw mut (*bucket).entries[i] };
            if M::load(word) == entry {
                M::swap_if(word, entry, 0);
                unspill(m, shape, hash, choice);
                return;
            }
            i += 1;
        }
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
}

#[inline(always)]
fn hash_of<F: Family>(shape: &Shape, t: &Tuple<F>) -> u64 {
    hash::flow::<F>(&shape.seed, t.src, t.dst, t.ports, t.proto)
}

/// The tuples of a claimed record: the client's, and the answers'.
#[inline(always)]
unsafe fn tuples<F: Family>(c: *const Conn<F>) -> (Tuple<F>, Tuple<F>) {
    // SAFETY: the caller owns the record.
    unsafe {
        let ports = (*c).ports;
        let [c0, c1, _, _] = ports.to_ne_bytes();
        let client_port = u16::from_ne_bytes([c0, c1]);
        let proto = (*c).proto;
        let forward = Tuple { src: (*c).client, dst: (*c).vip, ports, proto };
        let back = Tuple { src: (*c).real, dst: (*c).client, ports: conn::ports_word((*c).real_port, client_port), proto };
        (forward, back)
    }
}

/// Takes a live record for taking down. Fails if it changed since `ctl` was read.
#[inline(always)]
pub fn claim<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64) -> bool {
    // SAFETY: `c` is a record.
    M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, conn::claimed(ctl)) == ctl
}

/// Removes a claimed record from the index and from the counters; it stays claimed.
///
/// # Safety
/// The caller claimed `c`, record `index`, whose control word was `ctl` before.
#[inline(always)]
pub unsafe fn take_down<F: Family, M: Memory<F>>(m: &M, shape: &Shape, index: u32, c: *mut Conn<F>, ctl: u64) {
    // SAFETY: claimed.
    let (forward, back) = unsafe { tuples(c) };
    let number = index as u64 + 1;
    m.remove(shape, hash_of(shape, &forward), number);
    if ctl & REVERSE != 0 {
        m.remove(shape, hash_of(shape, &back), number | ENTRY_REVERSE);
    }
    // SAFETY: claimed.
    let dest = unsafe { (*c).dest };
    count(m, dest, ctl, 1u64.wrapping_neg());
}

/// Gives a claimed record back.
///
/// # Safety
/// The caller claimed `c` and took it down; `ctl` is any of its control words since.
#[inline(always)]
pub unsafe fn release<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64) {
    // SAFETY: claimed.
    M::store(unsafe { &raw mut (*c).ctl }, conn::freed(ctl));
}

/// Adds `by` (1 or -1) to the count that a connection with this control word belongs to, and keeps the overload mark.
#[inline(always)]
pub fn count<F: Family, M: Memory<F>>(m: &M, dest: u32, ctl: u64, by: u64) {
    let Some(n) = m.dest_conns(dest) else { return };
    // SAFETY: `n` is a dest's counts.
    unsafe {
        if ctl & TEMPLATE != 0 {
            M::add(&raw mut (*n).templates, by);
            return;
        }
        if tcp::is_active(conn::state(ctl)) {
            M::add(&raw mut (*n).active, by);
        } else {
            M::add(&raw mut (*n).inactive, by);
        }
    }
    let Some(d) = m.dest(dest) else { return };
    // SAFETY: `d` is a dest.
    let (upper, lower) = unsafe { ((*d).upper, (*d).lower) };
    if upper != 0 {
        // SAFETY: `n` is a dest's counts.
        unsafe {
            let connections = M::load(&raw const (*n).active).wrapping_add(M::load(&raw const (*n).inactive));
            let was = M::load(&raw const (*n).overloaded) != 0;
            let is = overloaded(was, connections, upper, lower);
            if is != was {
                M::store(&raw mut (*n).overloaded, is as u64);
            }
        }
    }
}

/// Moves a live connection to another state, in the counters too. Fails if the control word changed since `ctl` was read.
#[inline(always)]
pub fn change_state<F: Family, M: Memory<F>>(m: &M, c: *mut Conn<F>, dest: u32, ctl: u64, state: State) -> bool {
    let new = conn::with_state(ctl, state);
    // SAFETY: `c` is a record.
    if M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, new) != ctl {
        return false;
    }
    if tcp::is_active(conn::state(ctl)) != tcp::is_active(state) {
        let Some(n) = m.dest_conns(dest) else { return true };
        // SAFETY: `n` is a dest's counts. The sum, and with it the overload, stays.
        unsafe {
            let (from, to) = if tcp::is_active(state) {
                (&raw mut (*n).inactive, &raw mut (*n).active)
            } else {
                (&raw mut (*n).active, &raw mut (*n).inactive)
            };
            M::add(to, 1);
            M::add(from, 1u64.wrapping_neg());
        }
    }
    true
}

/// [`scan`]'s and [`allocate`]'s answer where nothing was free or evictable.
pub const NO_RECORD: u64 = u64::MAX;

/// Looks for a record to take, from `start` on: its number, from bit 32 how many were passed before it, from bit 48 a [`Reclaimed`].
#[inline(always)]
pub fn scan<F: Family, M: Memory<F>>(m: &M, shape: &Shape, start: u32, now: Tick) -> u64 {
    let mut found = NO_RECORD;
    let mut spare = NO_RECORD;
    m.repeat(ALLOC_TRIES, &mut |passed| {
        let mut at = start as u64 + passed as u64;
        if at >= shape.records as u64 {
            at -= shape.records as u64;
        }
        let this = |kind: Reclaimed| (kind as u64) << 48 | (passed as u64) << 32 | at;
        let Some(c) = m.conn(at as u32) else { return false };
        // SAFETY: `c` is a record.
        let (ctl, expires) = unsafe { (M::load(&raw const (*c).ctl), (&raw const (*c).expires).read_volatile()) };
        if conn::phase(ctl) == FREE {
            found = this(Reclaimed::Nothing);
            return false;
        }
        if conn::phase(ctl) == LIVE {
            if reached(now, expires) {
                found = this(Reclaimed::Expired);
                return false;
            }
            if spare == NO_RECORD && tcp::is_embryonic(conn::state(ctl)) {
                spare = this(Reclaimed::Embryonic);
            }
        }
        passed + 1 < ALLOC_PATIENCE || spare == NO_RECORD
    });
    if found == NO_RECORD { spare } else { found }
}

/// A record for a new connection, claimed and taken down: its number, and from bit 32 a [`Reclaimed`].
#[inline(always)]
pub fn allocate<F: Family, M: Memory<F>>(m: &M, shape: &Shape, now: Tick) -> u64 {
    if shape.records == 0 {
        return NO_RECORD;
    }
    let Some(hand) = m.hand() else { return NO_RECORD };
    let mut attempt = 0;
    // A claim can fail when another CPU was faster; a few attempts are ample.
    while attempt < 4 {
        attempt += 1;
        let start = (M::add(hand, 1) % shape.records as u64) as u32;
        let found = m.scan(shape, start, now);
        if found == NO_RECORD {
            return NO_RECORD;
        }
        let (index, passed, kind) = (found as u32, (found >> 32) & 0xffff, Reclaimed::of(found >> 48));
        if passed != 0 {
            M::add(hand, passed);
        }
        let Some(c) = m.conn(index) else { return NO_RECORD };
        // SAFETY: `c` is a record.
        let word = unsafe { &raw mut (*c).ctl };
        let ctl = M::load(word);
        if kind == Reclaimed::Nothing {
            if conn::phase(ctl) == FREE && M::swap_if(word, ctl, conn::claimed(ctl)) == ctl {
                return (kind as u64) << 32 | index as u64;
            }
        } else if conn::phase(ctl) == LIVE {
            // SAFETY: as above. It may have moved on since the hand passed: look again.
            let expired = reached(now, unsafe { (&raw const (*c).expires).read_volatile() });
            if (expired || tcp::is_embryonic(conn::state(ctl))) && claim::<F, M>(c, ctl) {
                // SAFETY: just claimed.
                unsafe { take_down(m, shape, index, c, ctl) };
                return (kind as u64) << 32 | index as u64;
            }
        }
    }
    NO_RECORD
}

/// Makes a connection, whole or not at all.
///
/// `replace` is a live record of the same flow that the caller takes for dead (its server is gone, a SYN restarts it); an
/// expired one is replaced in any case.
#[inline(always)]
pub fn create<F: Family, M: Memory<F>>(
    m: &M,
    shape: &Shape,
    now: Tick,
    new: &New<F>,
    replace: Option<u64>,
) -> (Created, Reclaimed) {
    let hash = hash_of(shape, &new.tuple);
    let Some(home) = m.bucket(hash as u32 & shape.mask) else { return (Created::Full, Reclaimed::Nothing) };
    // SAFETY: `home` is a bucket.
    let head = unsafe { &raw mut (*home).head };
    let mut locked = false;
    m.repeat(LOCK_TRIES, &mut |_| {
        let h = M::load(head);
        locked = h & LOCKED == 0 && M::swap_if(head, h, h | LOCKED) == h;
        !locked
    });
    if !locked {
        return (Created::Busy, Reclaimed::Nothing);
    }
    let result = create_locked(m, shape, hash, now, new, replace);
    M::add(head, LOCKED.wrapping_neg());
    result
}

#[inline(always)]
fn create_locked<F: Family, M: Memory<F>>(
    m: &M,
    shape: &Shape,
    hash: u64,
    now: Tick,
    new: &New<F>,
    replace: Option<u64>,
) -> (Created, Reclaimed) {
    let mut kind = Reclaimed::Nothing;
    let mut own: Option<(u32, *mut Conn<F>, u64)> = None;
    if let Some(old) = find_cold(m, shape, hash, &new.tuple) {
        // SAFETY: a record.
        let expired = reached(now, unsafe { (&raw const (*old.conn).expires).read_volatile() });
        let dead = expired || replace.is_some_and(|ctl| conn::same_owner(ctl, old.ctl));
        if old.reverse || !dead {
            return (Created::Exists(old.index), kind);
        }
        if !claim::<F, M>(old.conn, old.ctl) {
            // A packet or the sweeper changed it this instant. Give this packet up; the next one finds a settled record.
            return (Created::Busy, kind);
        }
        // SAFETY: just claimed.
        unsafe { take_down(m, shape, old.index, old.conn, old.ctl) };
        own = Some((old.index, old.conn, old.ctl));
    }
    let (index, c, ctl) = match own {
        Some(own) => own,
        None => {
            let allocated = m.allocate(shape, now);
            if allocated == NO_RECORD {
                return (Created::Full, kind);
            }
            kind = Reclaimed::of(allocated >> 32);
            let index = allocated as u32;
            let Some(c) = m.conn(index) else { return (Created::Full, kind) };
            // SAFETY: claimed.
            (index, c, M::load(unsafe { &raw const (*c).ctl }))
        }
    };
    // SAFETY: claimed: nobody else writes, and readers look at the control word.
    unsafe {
        (*c).expires = new.expires;
        (*c).dest = new.dest;
        (*c).ports = new.tuple.ports;
        (*c).real_port = new.real_port;
        (*c).l4_delta = new.l4_delta;
        (*c).proto = new.tuple.proto;
        (*c).method = new.method;
        (*c).ip_delta = new.ip_delta;
        (*c).template = new.template;
        (*c).client = new.tuple.src;
        (*c).vip = new.tuple.dst;
        (*c).real = new.real;
        (*c).reply_generation = 0;
        (*c).reply = new.reply;
    }
    let number = index as u64 + 1;
    if new.flags & REVERSE != 0 {
        // SAFETY: claimed.
        let (_, back) = unsafe { tuples(c) };
        let back_hash = hash_of(shape, &back);
        let clash = match find_cold(m, shape, back_hash, &back) {
            // SAFETY: a record.
            Some(other) => !reached(now, unsafe { (&raw const (*other.conn).expires).read_volatile() }),
            None => false,
        };
        if clash {
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Conflict, kind);
        }
        if !m.insert(shape, back_hash, number | ENTRY_REVERSE) {
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Full, kind);
        }
        if !m.insert(shape, hash, number) {
            m.remove(shape, back_hash, number | ENTRY_REVERSE);
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Full, kind);
        }
    } else if !m.insert(shape, hash, number) {
        // SAFETY: claimed, in no index.
        unsafe { release::<F, M>(c, ctl) };
        return (Created::Full, kind);
    }
    let live = conn::published(ctl, new.state, new.flags);
    count(m, new.dest, live, 1);
    // SAFETY: claimed; this publishes it.
    M::store(unsafe { &raw mut (*c).ctl }, live);
    (Created::Made(index), kind)
}

/// Whether nobody owns or uses a record.
#[must_use]
pub const fn is_idle(ctl: u64) -> bool {
    conn::phase(ctl) == FREE
}

/// Whether a record was left claimed: only a daemon killed between claiming and freeing leaves one.
#[must_use]
pub const fn is_claimed(ctl: u64) -> bool {
    conn::phase(ctl) == CLAIMED
}
