//! `aya::Pod` for everything that goes through a map.

use crate::{bench, config, conn, dest, note, once, service, stats, table};

macro_rules! pod {
    ($($t:ty),* $(,)?) => {$(
        // SAFETY: `repr(C)`, `Copy`, without implicit padding, valid for every bit pattern.
        unsafe impl aya::Pod for $t {}
    )*};
}

pod!(
    bench::Bench,
    config::Config,
    conn::Conn4,
    conn::Conn6,
    dest::Dest,
    dest::DestConns,
    dest::Port,
    note::DestNote,
    note::ServiceNote,
    once::Trace,
    service::Service,
    service::ServiceKey,
    stats::Cpu,
    stats::DestStats,
    table::Bucket,
    table::Hands,
);
