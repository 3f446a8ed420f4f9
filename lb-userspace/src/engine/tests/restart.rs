//! A daemon that takes over the maps of another.

use super::*;

/// The same memory for another engine.
fn again(maps: &Maps, d: &Director) -> Maps {
    let maps::Table::Heap { map, max } = &d.engine.services.keys else { panic!("in memory") };
    let heap = |map, max| maps::Table::Heap { map, max };
    Maps {
        service_keys: heap(map.clone(), *max),
        port_of: maps::Table::Heap { map: HashMap::new(), max: 64 },
        devices: maps::Devices::Heap(vec![0; 64]),
        ..clone(maps)
    }
}

fn clone(m: &Maps) -> Maps {
    Maps {
        config: m.config.clone(),
        index4: m.index4.clone(),
        index6: m.index6.clone(),
        conns4: m.conns4.clone(),
        conns6: m.conns6.clone(),
        hands: m.hands.clone(),
        service_keys: maps::Table::Heap { map: HashMap::new(), max: 0 },
        services: m.services.clone(),
        filter: m.filter.clone(),
        picks: m.picks.clone(),
        dests: m.dests.clone(),
        dest_conns: m.dest_conns.clone(),
        dest_stats: m.dest_stats.clone(),
        cpus: m.cpus.clone(),
        ports: m.ports.clone(),
        port_of: maps::Table::Heap { map: HashMap::new(), max: 64 },
        devices: maps::Devices::Heap(vec![0; 64]),
    }
}

#[test]
fn connections_outlive_the_daemon() {
    let maps = Maps::in_memory(&Sizes { servers: 4, ..SIZES });
    let first = Maps { service_keys: maps::Table::Heap { map: HashMap::new(), max: 8 }, ..clone(&maps) };
    let mut d = Director::over(first);
    let edits = [add_service(80), add(80, 1), add(80, 2), add(80, 3)];
    d.edit(&edits);
    d.connect(80, 1, 1000, 1000);
    d.connect(80, 2, 1001, 1000);
    let slot = d.slot(80, 1);
    let seed = d.engine.config.read(0).unwrap().seed;
    let mut e = Director::over(again(&maps, &d));
    drop(d);
    assert_eq!(e.engine.config.read(0).unwrap().seed, seed, "or no connection would be found");
    assert_eq!(e.lookup(&key_of(&vip(80))), None);
    assert_eq!(e.follow(80, 1000).unwrap().flags, 0);
    e.edit(&edits[..3]);
    assert_eq!(e.slot(80, 1), slot);
    assert_eq!(e.follow(80, 1000).unwrap().flags & USABLE, USABLE);
    assert_eq!(e.engine.service(&vip(80)).unwrap().servers[1].active, 1);
    // Two elements were never referred to, and are free.
    e.edit(&[add(80, 4), add(80, 5)]);
    assert_eq!(e.picks(80, 4), [5, 4, 2, 1]);
}

#[test]
fn maps_of_another_version_are_refused() {
    let maps = Maps::in_memory(&SIZES);
    maps.config.u32(0, offset_of!(Config, abi)).store(ABI_VERSION + 1, Ordering::Relaxed);
    assert!(matches!(Engine::new(maps), Err(MapsError::Version { found }) if found == ABI_VERSION + 1));
}

#[test]
fn fresh_maps_are_configured() {
    let d = Director::new(&SIZES);
    let c = d.engine.config.read(0).unwrap();
    assert_eq!((c.abi, c.services, c.servers, c.picks), (ABI_VERSION, 8, 16, 128));
    assert_eq!(c.records, [213, 213]);
    assert!(c.bucket_mask.iter().all(|m| (m + 1).is_power_of_two()));
    assert!(c.seed[0] != 0 && c.seed[1] & 1 == 1);
    assert_eq!(c.timeouts[tcp::ESTABLISHED as usize], time::ticks_of_seconds(900));
}
