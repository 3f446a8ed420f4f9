//! The maps. Sizes here are those of the smallest set that verifies; the daemon sets the real ones before loading.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap, HashMap, PerCpuArray, RingBuf};
use lb_common::config::Config;
use lb_common::conn::{Conn4, Conn6};
use lb_common::dest::{Dest, DestConns, Port};
use lb_common::family::{V4, V6};
use lb_common::filter::FILTER_WORDS;
use lb_common::limits::{MAX_PORTS, SIGNAL_BYTES, TRACES};
use lb_common::note::{DestNote, ServiceNote};
use lb_common::once::Trace;
use lb_common::service::{Service, ServiceKey};
use lb_common::stats::{Cpu, DestStats};
use lb_common::table::{Bucket, Hands, New};

/// See [`lb_common::limits::map::CONFIG`].
#[map]
pub static LVX_CONFIG: Array<Config> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::INDEX4`].
#[map]
pub static LVX_INDEX4: Array<Bucket> = Array::pinned(2, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::INDEX6`].
#[map]
pub static LVX_INDEX6: Array<Bucket> = Array::pinned(2, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::CONNS4`].
#[map]
pub static LVX_CONNS4: Array<Conn4> = Array::pinned(2, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::CONNS6`].
#[map]
pub static LVX_CONNS6: Array<Conn6> = Array::pinned(2, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::HANDS`].
#[map]
pub static LVX_HANDS: Array<Hands> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::SERVICE_KEYS`].
#[map]
pub static LVX_SERVICE_KEYS: HashMap<ServiceKey, u32> = HashMap::pinned(1, 0);
/// See [`lb_common::limits::map::TRACES`].
#[map]
pub static LVX_TRACES: Array<Trace> = Array::pinned(TRACES, 0);
/// See [`lb_common::limits::map::SERVICES`].
#[map]
pub static LVX_SERVICES: Array<Service> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::FILTER`].
#[map]
pub static LVX_FILTER: Array<u64> = Array::pinned(FILTER_WORDS, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::PICKS`].
#[map]
pub static LVX_PICKS: Array<u32> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::DESTS`].
#[map]
pub static LVX_DESTS: Array<Dest> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::DEST_CONNS`].
#[map]
pub static LVX_DEST_CONNS: Array<DestConns> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::DEST_STATS`].
#[map]
pub static LVX_DEST_STATS: Array<DestStats> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::DEST_NOTES`].
#[map]
pub static LVX_DEST_NOTES: Array<DestNote> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::SERVICE_NOTES`].
#[map]
pub static LVX_SERVICE_NOTES: Array<ServiceNote> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::CPUS`].
#[map]
pub static LVX_CPUS: Array<Cpu> = Array::pinned(1, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::PORTS`].
#[map]
pub static LVX_PORTS: Array<Port> = Array::pinned(MAX_PORTS, BPF_F_MMAPABLE);
/// See [`lb_common::limits::map::PORT_OF`].
#[map]
pub static LVX_PORT_OF: HashMap<u32, u32> = HashMap::pinned(MAX_PORTS, 0);
/// See [`lb_common::limits::map::TX`].
#[map]
pub static LVX_TX: DevMap = DevMap::pinned(MAX_PORTS, 0);
/// See [`lb_common::limits::map::SIGNALS`].
#[map]
pub static LVX_SIGNALS: RingBuf = RingBuf::pinned(SIGNAL_BYTES, 0);
/// Room for the connection that this CPU is making; the stack has none.
#[map]
pub static LVX_SCRATCH4: PerCpuArray<New<V4>> = PerCpuArray::with_max_entries(1, 0);
/// As [`LVX_SCRATCH4`].
#[map]
pub static LVX_SCRATCH6: PerCpuArray<New<V6>> = PerCpuArray::with_max_entries(1, 0);
