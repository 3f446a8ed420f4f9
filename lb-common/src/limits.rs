//! Limits, capacities and the names of the maps, in one place.

/// Version of every layout and algorithm that pinned maps depend on. A daemon refuses maps that carry another one.
pub const ABI_VERSION: u32 = 3;

/// Connections of one family that the table holds by default.
pub const DEFAULT_CONNECTIONS: u32 = 1_000_000;
/// Largest configurable number of connections of one family.
pub const MAX_CONNECTIONS: u32 = 64_000_000;
/// Virtual services by default.
pub const DEFAULT_SERVICES: u32 = 16_384;
/// Real server entries (a server in two services counts twice) by default, removed ones that connections still use included.
pub const DEFAULT_SERVERS: u32 = 32_768;
/// Slots for picks by default, shared by all services; each slot is 4 bytes.
pub const DEFAULT_PICKS: u32 = 1 << 22;
/// One-packet flows under NAT whose way back is remembered ([`crate::once::Trace`]); a power of two.
pub const TRACES: u32 = 1 << 16;
/// Interfaces that packets may leave by.
pub const MAX_PORTS: u32 = 64;
/// Bits in the service filter.
pub const FILTER_BITS: u32 = 1 << 18;

/// Real servers that a new connection tries, in ring order, before it is refused for want of a usable one.
pub const MAX_PICK_TRIES: u32 = 64;
/// Vacancies of a service that are remembered ([`crate::service::Service::vacancies`]); a power of two.
pub const VACANCIES: usize = 32;
/// Vacancies that a new connection looks at.
pub const VACANCY_TRIES: u32 = 4;
/// Buckets that one key may be stored in. A table with as many connections as it has records for fills 64 % of the index at most. In a
/// simulation of 65,536 buckets after long coming and going, 4 choices had no place for one entry in 8,000 at 60 % and one in 800 at 70 %; 8
/// had one for all at 60 %, and missed one in 600,000 at 70 %. Filled to 64 % with a million connections, one creation had none.
/// Lookups do not pay for it: they go past a bucket only if entries did.
pub const CHOICES: u32 = 8;
/// Index entries in a bucket.
pub const BUCKET_ENTRIES: usize = 7;
/// Attempts at a bucket's lock before the packet is given up.
pub const LOCK_TRIES: u32 = 256;
/// Records that one pass of the hand looks at for one that is free or gives way.
pub const ALLOC_TRIES: u32 = 1024;
/// Passes of the hand that find nothing, or whose find another CPU snatches away, before a new connection is refused.
pub const ALLOC_ATTEMPTS: u32 = 8;
/// Records looked at for a free one before an embryonic or a closing connection is evicted instead.
pub const ALLOC_PATIENCE: u32 = 16;
/// An embryonic connection gives way rather than a closing one that the hand passed so many records before it, or fewer. Larger, closing
/// connections would fill the table during a flood, and handshakes would be left with ever less time.
pub const EMBRYONIC_REACH: u32 = 4;
/// Records looked at for anything else before a half-closed connection is evicted.
pub const HALF_CLOSED_PATIENCE: u32 = 256;
/// Binary logarithm of the ticks (about a second) for which a hand that went all the way round in vain rests.
pub const REST_SHIFT: u32 = 8;
/// Ticks past its deadline before a record's memory is taken. To packets it is dead at its deadline; this is for the packet that came just
/// before it on another CPU and is about to write a new deadline: its run ended long before.
pub const REAP_GRACE: u32 = 2;
/// Seconds that a template past its deadline goes on while there are connections under it.
pub const TEMPLATE_REARM_S: u32 = 60;
/// ICMP errors that one CPU may send in a second.
pub const ICMP_PER_SECOND: u32 = 1_000;

/// Bytes of the ring buffer of signals: room for one from every service, and each service has at most one under way.
pub const SIGNAL_BYTES: u32 = 1 << 18;

/// Names of the maps: the pins carry them too.
pub mod map {
    /// [`crate::config::Config`], one element.
    pub const CONFIG: &str = "LVX_CONFIG";
    /// [`crate::table::Bucket`], IPv4.
    pub const INDEX4: &str = "LVX_INDEX4";
    /// [`crate::table::Bucket`], IPv6.
    pub const INDEX6: &str = "LVX_INDEX6";
    /// [`crate::conn::Conn4`].
    pub const CONNS4: &str = "LVX_CONNS4";
    /// [`crate::conn::Conn6`].
    pub const CONNS6: &str = "LVX_CONNS6";
    /// [`crate::table::Hands`], one element.
    pub const HANDS: &str = "LVX_HANDS";
    /// Hash from [`crate::service::ServiceKey`] to the index in [`SERVICES`], and of answerers to that in [`DESTS`] ([`crate::once`]).
    pub const SERVICE_KEYS: &str = "LVX_SERVICE_KEYS";
    /// [`crate::once::Trace`].
    pub const TRACES: &str = "LVX_TRACES";
    /// [`crate::service::Service`].
    pub const SERVICES: &str = "LVX_SERVICES";
    /// The words of the service filter.
    pub const FILTER: &str = "LVX_FILTER";
    /// `u32` index in [`DESTS`] per pick.
    pub const PICKS: &str = "LVX_PICKS";
    /// [`crate::dest::Dest`].
    pub const DESTS: &str = "LVX_DESTS";
    /// [`crate::dest::DestConns`].
    pub const DEST_CONNS: &str = "LVX_DEST_CONNS";
    /// [`crate::stats::DestStats`], element `cpu * servers + dest`.
    pub const DEST_STATS: &str = "LVX_DEST_STATS";
    /// [`crate::note::DestNote`], element as in [`DESTS`].
    pub const DEST_NOTES: &str = "LVX_DEST_NOTES";
    /// [`crate::note::ServiceNote`], element as in [`SERVICES`].
    pub const SERVICE_NOTES: &str = "LVX_SERVICE_NOTES";
    /// [`crate::stats::Cpu`], one element a possible CPU.
    pub const CPUS: &str = "LVX_CPUS";
    /// [`crate::dest::Port`].
    pub const PORTS: &str = "LVX_PORTS";
    /// Hash from `u32` ifindex to the `u32` index in [`PORTS`].
    pub const PORT_OF: &str = "LVX_PORT_OF";
    /// Ring buffer of `u32` indices in [`SERVICES`]: services whose scheduler wants to be asked again.
    pub const SIGNALS: &str = "LVX_SIGNALS";
    /// Device map, element per port.
    pub const TX: &str = "LVX_TX";
}
