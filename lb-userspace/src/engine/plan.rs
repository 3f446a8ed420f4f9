//! What the engine and a scheduler have to say to each other.

use super::dests::Dests;
use crate::model::{SchedulerKind, ServerSpec, ServiceSpec};
use crate::sched::plan::{Plan, Planner};
use crate::sched::{Flow, Server, TableSize};
use lb_common::sched_hash::Kind;
use lb_common::service::{COUNTED, EXPECTED, HASH_FALLBACK, HASH_PORT, HASH_SIP, HASHED, IDLE_FIRST, LEAST, WEIGHTED};

/// A planner for a service, which knows nothing of its servers yet.
pub(super) fn planner(spec: &ServiceSpec, mh_table: TableSize) -> Planner {
    Planner::sized(spec.scheduler, spec.sched_flags, mh_table)
}

/// A server as the scheduler sees it: as configured, and as its counters are now.
pub(super) fn server(dest: u32, spec: &ServerSpec, dests: &Dests) -> Server {
    let counts = dests.shown(dest);
    Server {
        // A count in the middle of being moved may stand at -1 for an instant.
        active: if counts.active > i64::MAX as u64 { 0 } else { counts.active },
        inactive: if counts.inactive > i64::MAX as u64 { 0 } else { counts.inactive },
        overloaded: counts.overloaded != 0,
        upper: spec.upper_threshold,
        lower: spec.lower_threshold,
        ..Server::new(dest, spec.id.address, spec.id.port, spec.weight)
    }
}

/// What a plan is for.
pub(super) fn flow(spec: &ServiceSpec) -> Flow {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Flow::to(spec.id.address, now.tv_sec.unsigned_abs())
}

/// Whether a scheduler looks at connection counts, so that its plans are for one moment.
pub(super) const fn is_counted(kind: SchedulerKind) -> bool {
    !matches!(kind, SchedulerKind::Rr | SchedulerKind::Wrr | SchedulerKind::Sh | SchedulerKind::Dh | SchedulerKind::Mh)
}

/// What the packet path compares where it finds that a server has one connection less than its plan knew; 0 for schedulers that have other
/// reasons for their choice.
const fn least(kind: SchedulerKind) -> u32 {
    match kind {
        SchedulerKind::Lc => LEAST,
        SchedulerKind::Wlc => LEAST | WEIGHTED,
        SchedulerKind::Sed => LEAST | EXPECTED,
        SchedulerKind::Nq => LEAST | EXPECTED | IDLE_FIRST,
        _ => 0,
    }
}

/// Flags of a service's element that its plan asks for.
pub(super) fn flags(kind: SchedulerKind, plan: &Plan) -> u32 {
    match plan {
        // A plan that is to be looked at from its first picks on depends on what they do to the counts.
        Plan::Sequence { low_water, .. } if is_counted(kind) || low_water.is_some_and(|n| n <= 1) => COUNTED | least(kind),
        Plan::Sequence { .. } => 0,
        Plan::Table(t) => {
            let flag = |on: bool, flag: u32| if on { flag } else { 0 };
            HASHED | flag(t.kind == Kind::Sip, HASH_SIP) | flag(t.port, HASH_PORT) | flag(t.fallback, HASH_FALLBACK)
        }
    }
}

/// All such flags.
pub(super) const FLAGS: u32 = COUNTED | HASHED | HASH_SIP | HASH_PORT | HASH_FALLBACK | LEAST | WEIGHTED | EXPECTED | IDLE_FIRST;
