//! A thousand services of ten servers.

use super::*;
use std::time::{Duration, Instant};

fn service(n: u32) -> ServiceId {
    ServiceId { protocol: Protocol::Tcp, address: [10, 9, (n / 200) as u8, (n % 200 + 1) as u8].into(), port: 80 }
}

fn edits() -> Vec<Edit> {
    (0..1000)
        .flat_map(|n| {
            let service = service(n);
            let servers = (1..=10).map(move |i| Edit::AddServer { service, server: server(i, 1) });
            std::iter::once(Edit::AddService { service: spec(service) }).chain(servers)
        })
        .collect()
}

const LARGE: Sizes = Sizes { connections: 1000, services: 1024, servers: 16_384, picks: 1 << 16, cpus: 2 };

/// What a debug build on a busy machine may take; an optimised one takes a hundredth.
const BOUND: Duration = Duration::from_secs(20);

#[test]
fn in_one_call() {
    let edits = edits();
    let mut d = Director::new(&LARGE);
    let start = Instant::now();
    d.edit(&edits);
    let took = start.elapsed();
    assert_eq!(d.engine.services().services.len(), 1000);
    assert!(took < BOUND, "{took:?}");
    eprintln!("11,000 edits in one call: {took:?}");
}

#[test]
fn in_a_call_each() {
    let edits = edits();
    let mut d = Director::new(&LARGE);
    let start = Instant::now();
    for edit in &edits {
        d.edit(std::slice::from_ref(edit));
    }
    let took = start.elapsed();
    assert_eq!(d.engine.services().services.iter().map(|s| s.servers.len()).sum::<usize>(), 10_000);
    assert!(took < BOUND, "{took:?}");
    eprintln!("11,000 edits in a call each: {took:?}");
}
