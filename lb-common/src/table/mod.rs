//! The connection table: records, and an index of buckets over them.
//!
//! # Shape
//! A record ([`Conn`]) is found through the *index*: an array of 64-byte buckets, each of seven entries and a head. An entry is
//! one 64-bit word, the 32-bit tag of a flow hash and the number of a record; a NAT connection has two entries, one for the
//! client's packets and one for the answers, and one record, so both directions share one state and one life. A key's home
//! bucket comes from its hash; when that is full, the entry goes to the next of [`CHOICES`] buckets, and every full bucket passed
//! on the way counts it in its head (*spilled*), so that a lookup goes on past a bucket only if that count is not zero.
//!
//! A new connection's record comes from the stack of free ones, or from a *hand* that goes round the array; see `hand.rs` for what
//! gives way in a full table. Established connections never do.
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

#[cfg(any(test, feature = "user"))]
mod audit;
mod create;
mod hand;
#[cfg(any(test, feature = "user"))]
mod host;
mod index;
mod records;
#[cfg(any(test, feature = "user"))]
mod sweep;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "user"))]
pub use audit::{Audit, Healed, counts};
pub use create::create;
pub use hand::{allocate, scan};
#[cfg(any(test, feature = "user"))]
pub use host::{HostMemory, Raw};
pub use index::{find, insert_entry, remove_entry, seek};
pub use records::{change_state, claim, confirm, count, is_claimed, is_dead, is_idle, references, release, take_down};
#[cfg(any(test, feature = "user"))]
pub use sweep::{Recovered, Swept, end, recover, snapshot, sweep_range, touched};

use crate::conn::Conn;
use crate::dest::{Dest, DestConns};
use crate::family::Family;
use crate::limits::BUCKET_ENTRIES;
use crate::tcp::State;
use crate::time::Tick;
#[cfg(doc)]
use crate::{
    conn::{REVERSE, TEMPLATE},
    limits::{ALLOC_PATIENCE, CHOICES},
};

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
/// [`scan`]'s and [`allocate`]'s answer where nothing was free or evictable.
pub const NO_RECORD: u64 = u64::MAX;

/// Positions of the hands, IPv4 and IPv6, each on a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hands {
    /// By [`crate::config::Config::slot`]: the record to look at next, ever growing ([`HAND`]), the stack of free records ([`STACK`]),
    /// what the hand passed in vain ([`BARREN`]); the rest keeps the cache lines apart.
    pub hand: [[u64; 8]; 2],
}

const _: () = assert!(size_of::<Hands>() == 128);

/// Word of a family's [`Hands`]: the hand.
pub const HAND: usize = 0;
/// Word of a family's [`Hands`]: number of the uppermost free record plus one in the low half, number of changes in the high half.
pub const STACK: usize = 1;
/// Word of a family's [`Hands`]: records passed in vain since one was found in the low half, when in the high half.
pub const BARREN: usize = 2;

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
    /// The family's eight words of [`Hands`], the first of them.
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

/// How [`create()`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// A new connection, in this record.
    Made(u32),
    /// Somebody made it first; it is live in this record.
    Exists(u32),
    /// No record was free or evictable.
    Full,
    /// All buckets that an entry of its may be in are full.
    Crowded,
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
    /// It was embryonic: a handshake that was not through, a UDP flow of one packet, or a template that no such came to use.
    Embryonic,
    /// One side or both were done with it.
    Closing,
}

impl Reclaimed {
    #[inline(always)]
    const fn of(number: u64) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Expired,
            2 => Self::Embryonic,
            _ => Self::Closing,
        }
    }
}
