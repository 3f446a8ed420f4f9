//! Counters, rates, sweeping, connections.

use super::*;

#[test]
fn counters_are_sums_since_the_last_zeroing() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    let (one, two) = (d.slot(80, 1), d.slot(80, 2));
    d.count(0, one, 1, 100);
    d.count(1, one, 2, 200);
    d.count(1, two, 5, 500);
    let v = d.engine.service(&vip(80)).unwrap();
    assert_eq!((v.stats.connections, v.stats.in_bytes), (8, 800));
    assert_eq!(v.servers.iter().map(|s| s.stats.connections).collect::<Vec<_>>(), [5, 3]);
    // A server that goes takes nothing from its service; back again, its own counters go on.
    d.edit(&[delete(80, 2)]);
    assert_eq!(d.engine.service(&vip(80)).unwrap().stats.connections, 8);
    d.edit(&[add(80, 2)]);
    d.count(0, two, 1, 0);
    let v = d.engine.service(&vip(80)).unwrap();
    assert_eq!((v.stats.connections, v.servers[0].stats.connections), (9, 6));
    d.engine.zero(Some(&vip(80))).unwrap();
    d.count(0, two, 1, 0);
    let v = d.engine.service(&vip(80)).unwrap();
    assert_eq!((v.stats.connections, v.servers[0].stats.connections, v.servers[1].stats.connections), (1, 1, 0));
    assert_eq!(d.engine.zero(Some(&vip(81))).unwrap_err().code, EditErrorKind::NoSuchService);
    // A service made again starts anew, its servers too.
    d.edit(&[delete_service(80)]);
    d.edit(&[add_service(80), add(80, 2)]);
    let v = d.engine.service(&vip(80)).unwrap();
    assert_eq!((v.stats, v.servers[0].stats), Default::default());
    d.count(0, two, 1, 0);
    d.engine.zero(None).unwrap();
    assert_eq!(d.engine.service(&vip(80)).unwrap().stats, Default::default());
}

#[test]
fn rates_follow_the_kernels_estimator() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    d.count(0, d.slot(80, 1), 200, 0);
    d.engine.estimate();
    let v = d.engine.service(&vip(80)).unwrap();
    assert_eq!((v.rates.connections, v.servers[1].rates.connections, v.servers[0].rates.connections), (25, 25, 0));
}

/// Rates fall to nothing, and then nobody looks until the next packet, which counts in full.
#[test]
fn rates_at_rest_rise_again() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    let slot = d.slot(80, 1);
    for _ in 0..2 {
        d.count(1, slot, 200, 0);
        d.engine.estimate();
        assert_eq!(d.engine.service(&vip(80)).unwrap().rates.connections, 25);
        for _ in 0..60 {
            d.engine.estimate();
        }
        assert_eq!(d.engine.service(&vip(80)).unwrap().rates.connections, 0);
        assert!(d.engine.at_rest.is_some());
    }
}

#[test]
fn services_are_shown_in_the_order_of_their_making() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(3), add_service(1), add_service(2)]);
    d.edit(&[add(1, 1)]);
    let shown: Vec<_> = d.engine.services().services.iter().map(|s| s.spec.id.port).collect();
    assert_eq!(shown, [3, 1, 2]);
    assert_eq!(d.engine.services().table_size, SIZES.connections);
}

#[test]
fn the_sweeper_takes_down_what_is_past_its_time() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    for port in 1..=50 {
        d.connect(80, 1, port, if port % 2 == 0 { 10 } else { 100 });
    }
    let used = |d: &Director| d.engine.tables()[0].used;
    assert_eq!(used(&d), 50);
    let mut sweeper = d.engine.sweeper();
    d.wait(11);
    let (mut expired, mut live, mut steps) = (0, 0, 0);
    loop {
        let swept = sweeper.step(10);
        assert!(swept.seen <= 10);
        expired += swept.expired;
        live += swept.live;
        steps += 1;
        if swept.round {
            break;
        }
    }
    assert_eq!((expired, live), (25, 25));
    // IPv6 was never used.
    assert_eq!(steps, 213usize.div_ceil(10));
    assert_eq!(used(&d), 25);
    assert_eq!(d.conns.read(d.slot(80, 1)).unwrap().active, 25);
    assert!(d.follow(80, 2).is_none() && d.follow(80, 1).is_some());
    d.wait(100);
    assert_eq!(sweeper.step(u32::MAX).expired, 25);
    assert_eq!(used(&d), 0);
}

#[test]
fn counts_that_differ_from_the_table_are_put_right() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    for port in 1..=20 {
        d.connect(80, 1 + port as u8 % 2, port, 100);
    }
    let mut sweeper = d.engine.sweeper();
    let right = [d.conns.read(d.slot(80, 1)).unwrap(), d.conns.read(d.slot(80, 2)).unwrap()];
    assert_eq!(sweeper.audit(|| true), 0);
    d.conns.write(d.slot(80, 1), &DestConns { active: 7, inactive: u64::MAX, templates: 3, ..right[0] });
    let shown = d.engine.service(&vip(80)).unwrap();
    assert_eq!((shown.servers[1].active, shown.servers[1].inactive), (7, 0), "never below zero");
    assert_eq!(d.engine.tables()[0].used, 7 + 3 + 10);
    // Once is no proof, nor is an audit that was cut off. What comes between audits does not matter.
    assert_eq!((sweeper.audit(|| true), sweeper.audit(|| false)), (0, 0));
    d.connect(80, 1, 100, 100);
    d.count(0, d.slot(80, 1), 1, 0);
    assert_eq!((sweeper.audit(|| true), sweeper.audit(|| true)), (1, 0));
    let healed = [d.conns.read(d.slot(80, 1)).unwrap(), d.conns.read(d.slot(80, 2)).unwrap()];
    assert_eq!(healed, [DestConns { active: 11, ..right[0] }, right[1]]);
    assert_eq!((sweeper.audit(|| true), sweeper.audit(|| true)), (0, 0));
    let view = d.engine.sweeper_view();
    assert_eq!((view.audits, view.healed), (6, 1));
}

#[test]
fn connections_are_shown_as_ipvsadm_does() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    d.connect(80, 1, 40_001, 900);
    d.connect(80, 1, 40_002, 10);
    d.wait(20);
    let shown: Vec<_> = d.engine.connections().collect();
    assert_eq!(shown.len(), 1, "the other is past its time");
    let c = &shown[0];
    assert_eq!((c.protocol, c.state.as_str()), (Protocol::Tcp, "ESTABLISHED"));
    assert!((870_000..881_000).contains(&c.expires_ms), "{}", c.expires_ms);
    assert_eq!(c.client, "10.1.0.2:40001".parse().unwrap());
    assert_eq!(c.service, "10.9.0.10:80".parse().unwrap());
    assert_eq!(c.server, "10.2.0.11:80".parse().unwrap());
}

#[test]
fn templates_show_client_port_zero() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    let t = &*d.engine.table4;
    let new = New::<V4> {
        tuple: Tuple { ports: ports_word(0, 80u16.to_be()), ..d.tuple(80, 0) },
        real: 0,
        real_port: 80u16.to_be(),
        l4_delta: 0,
        ip_delta: 0,
        method: lb_common::proto::DR,
        state: tcp::TEMPLATE,
        flags: lb_common::conn::TEMPLATE,
        dest: d.slot(80, 1),
        expires: t.now().wrapping_add(time::ticks_of_seconds(60)),
        template: 0,
        reply: 0,
    };
    assert!(matches!(create(t, &t.shape(), t.now(), &new, None).0, Created::Made(_)));
    let c = d.engine.connections().next().unwrap();
    // Assured once a connection under it was established.
    assert_eq!((c.state.as_str(), c.client.port(), c.server), ("NONE", 0, "10.2.0.11:80".parse().unwrap()));
    assert_eq!(d.engine.service(&vip(80)).unwrap().servers[0].persistent, 1);
}

#[test]
fn verdicts_are_summed_over_cpus() {
    let d = Director::new(&SIZES);
    d.cpus.u64(0, 0).fetch_add(2, Ordering::Relaxed);
    d.cpus.u64(1, 0).fetch_add(3, Ordering::Relaxed);
    assert_eq!(d.engine.verdicts()[0].packets, 5);
}
