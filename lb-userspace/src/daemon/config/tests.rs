use super::*;
use crate::model::random;
use crate::model::{Forwarding, SchedulerKind};
use proptest::prelude::*;

fn parse(text: &str) -> Result<(Config, Desired), String> {
    Config::parse(text, Path::new("f")).map_err(|e| e.to_string())
}

#[test]
fn nothing_is_a_configuration() {
    let (config, desired) = parse("").unwrap();
    assert_eq!(config.interfaces().count(), 0);
    assert_eq!(config.sizes.connections(), limits::DEFAULT_CONNECTIONS);
    assert_eq!(config.socket.mode(), 0o660);
    assert_eq!(desired, Desired::default());
}

#[test]
fn everything_is_read() {
    let (config, desired) = parse(
        r#"
        interfaces = ["eth0", "eth1.100"]
        mode = "native"
        pin_dir = "/sys/fs/bpf/other"
        stay_attached = true
        log = "debug"
        [socket]
        path = "/run/other.sock"
        group = "lvx"
        mode = "0600"
        [sizes]
        connections = 10_000_000
        services = 100
        servers = 1000
        picks = 65536
        [timeouts]
        established = 60
        fin_wait = 5
        udp = 7
        syn_recv = 3
        [tcp]
        sloppy_tcp = true
        conn_reuse = false
        [schedulers]
        mh_tab_index = 16
        [[service]]
        protocol = "tcp"
        address = "192.0.2.1:80"
        scheduler = "rr"
        persistence = 300
        persistence_netmask = "255.255.255.0"
        [[service.server]]
        address = "10.0.0.1:8080"
        forwarding = "nat"
        weight = 5
        upper_threshold = 10
        [[service.server]]
        address = "10.0.0.2"
        forwarding = "dr"
        [[service]]
        protocol = "udp"
        address = "[2001:db8::1]:53"
        scheduler = "rr"
        persistence = 60
        persistence_netmask = 64
        [[service.server]]
        address = "10.0.0.3"
        forwarding = "tun"
        "#,
    )
    .unwrap();
    assert_eq!(config.interfaces().collect::<Vec<_>>(), ["eth0", "eth1.100"]);
    assert_eq!((config.mode, config.stay_attached), (Some(Mode::Native), true));
    assert_eq!(config.socket.mode(), 0o600);
    assert_eq!(config.sizes.connections(), 10_000_000);
    assert_eq!(desired.behaviour.timeouts, StateTimeouts { syn_recv: 3, ..StateTimeouts::default() });
    assert_eq!(desired.behaviour.tcp, Switches { sloppy_tcp: true, conn_reuse: false, ..Switches::default() });
    assert_eq!(desired.behaviour.schedulers.mh_tab_index.slots(), 65_521);
    assert_eq!(desired.timeouts, Timeouts { tcp: 60, tcpfin: 5, udp: 7 });
    let [web, dns] = &desired.services[..] else { panic!("{desired:?}") };
    assert_eq!(web.spec.scheduler, SchedulerKind::Rr);
    // Newest first, as if each had been added in turn.
    let servers: Vec<_> = web.servers.iter().map(|s| (s.id.to_string(), s.forwarding, s.weight)).collect();
    assert_eq!(servers, [("10.0.0.2:80".into(), Forwarding::Dr, 1), ("10.0.0.1:8080".into(), Forwarding::Nat, 5)]);
    assert_eq!(dns.spec.persistence.unwrap().netmask.unwrap().to_string(), "ffff:ffff:ffff:ffff::");
    assert_eq!(dns.servers[0].id.to_string(), "10.0.0.3:53");
}

#[test]
fn errors_name_the_place_the_key_and_the_reason() {
    let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1:80\"\nscheduler = \"rr\"\n";
    let server = "[[service.server]]\naddress = \"10.0.0.1\"\nforwarding = \"nat\"\n";
    for (text, place, parts) in [
        ("mode = \"fast\"", "f:1:8", &["mode", "fast", "native"][..]),
        ("intrefaces = []", "f:1:1", &["`intrefaces`"]),
        ("interfaces = \"eth0\"", "f:1:14", &["interfaces", "string"]),
        ("interfaces = [\"a/b\"]", "f:1:14", &["interfaces", "`a/b`"]),
        ("interfaces = [\"abcdefghijklmnop\"]", "f:1:14", &["interface's name"]),
        ("log = 3", "f:1:7", &["log"]),
        ("\n[sizes]\nconnections = 0", "f:3:15", &["sizes.connections", "0 is not within 1 to"]),
        ("[sizes]\nconnections = \"many\"", "f:2:15", &["sizes.connections", "string"]),
        ("[sizes]\nconections = 1", "f:2:1", &["`conections`"]),
        ("[timeouts]\nudp = -1", "f:2:7", &["timeouts.udp", "-1 s is not within"]),
        ("[timeouts]\nudp = 99999999", "f:2:7", &["timeouts.udp"]),
        ("[socket]\nmode = 0o1777", "f:2:8", &["socket.mode", "0o1777"]),
        ("[socket]\nmode = \"rw\"", "f:2:8", &["socket.mode", "\"rw\""]),
        ("[tcp]\nconn_reuse = 1", "f:2:14", &["tcp.conn_reuse", "boolean"]),
        ("[schedulers]\nmh_tab_index = 7", "f:2:16", &["schedulers.mh_tab_index", "7 is not within 8 to 17"]),
        ("[schedulers]\nmh_tab_index = -1", "f:2:16", &["-1 is not within 8 to 17"]),
        ("[schedulers]\nmh_tab_index = 18", "f:2:16", &["18 is not within 8 to 17"]),
        ("[schedulers]\nmh_tab_index = \"12\"", "f:2:16", &["schedulers.mh_tab_index", "string"]),
        ("[schedulers]\nmh_tab = 12", "f:2:1", &["`mh_tab`"]),
        ("mode = ", "f:1:", &["mode"]),
        ("mode = \"auto\"\nmode = \"auto\"", "f:2:1", &["mode", "duplicate key"]),
        ("[[service]]\nprotocol = \"sctp\"", "f:2:12", &["service.protocol", "sctp"]),
        ("[[service]]\nprotocol = \"tcp\"", "f:1:1", &["`address`"]),
        (&service.replace("192.0.2.1:80", "192.0.2.1"), "f:3:11", &["service.address", "192.0.2.1"]),
        (&service.replace("192.0.2.1:80", "192.0.2.1:0"), "f:3:11", &["TCP 192.0.2.1:0", "persistence"]),
        (&service.replace("192.0.2.1:80", "192.0.2.1:65536"), "f:3:11", &["service.address"]),
        (&service.replace("192.0.2.1:80", "224.0.0.1:80"), "f:3:11", &["TCP 224.0.0.1:80"]),
        (&service.replace("\"rr\"", "\"fastest\""), "f:4:13", &["service.scheduler", "fastest", "rr"]),
        (&format!("{service}scheduler_flags = [\"sh-port\"]"), "f:5:20", &["scheduler_flags", "sh-port"]),
        (&format!("{service}one_packet = true"), "f:3:11", &["TCP 192.0.2.1:80", "UDP"]),
        (&format!("{service}persistence = 0"), "f:3:11", &["persistence"]),
        (&format!("{service}persistence = -5"), "f:5:15", &["service.persistence"]),
        (&format!("{service}persistence_netmask = 64"), "f:5:23", &["persistence_netmask"]),
        (&format!("{service}persistence = 1\npersistence_netmask = 64"), "f:6:23", &["persistence_netmask"]),
        (&format!("{service}{service}"), "f:7:11", &["TCP 192.0.2.1:80", "exists"]),
        (&format!("{service}{server}{server}"), "f:9:11", &["10.0.0.1:80"]),
        (&format!("{service}{}", server.replace("10.0.0.1", "10.0.0")), "f:6:11", &["service.server.address", "10.0.0"]),
        (&format!("{service}{}", server.replace("10.0.0.1", "2001:db8::1")), "f:6:11", &["[2001:db8::1]:80", "family"]),
        (&format!("{service}{}", server.replace("nat", "masq")), "f:7:14", &["service.server.forwarding", "masq"]),
        (&format!("{service}{server}weight = -1"), "f:8:10", &["service.server.weight"]),
        (&format!("{service}{server}weight = 3000000000"), "f:6:11", &["weight"]),
        (&format!("{service}{server}lower_threshold = 5"), "f:6:11", &["threshold"]),
        (
            &format!("{service}{}", server.replace("10.0.0.1", "10.0.0.1:81").replace("nat", "dr")),
            "f:6:11",
            &["port 81", "only nat"],
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.starts_with(place), "{text}\n{error}");
        assert!(!error.contains('\n'), "{error}");
        for part in parts {
            assert!(error.contains(part), "{text}\n{error}\nlacks {part}");
        }
    }
}

/// Every line of `configs/lvx.toml` that is commented out is a key with its default.
#[test]
fn the_defaults_are_documented() {
    let text = include_str!("../../../../configs/lvx.toml");
    let mut all = String::new();
    for line in text.lines() {
        match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => all.push_str(rest),
            _ => all.push_str(line),
        }
        all.push('\n');
    }
    let (config, desired) = parse(&all).unwrap();
    assert_eq!(desired.services.len(), 1, "the example");
    let (usual, none) = parse("").unwrap();
    assert_eq!(desired.timeouts, none.timeouts);
    assert_eq!(desired.behaviour, none.behaviour);
    let differ: Vec<_> = differing(&config.fixed, &usual.fixed).into_iter().map(|s| s.key).collect();
    // These have no default that could be written.
    let without = ["interfaces", "socket.group", "socket.read_group", "metrics.listen", "metrics.allow_remote"];
    assert!(differ.iter().all(|key| without.contains(&key.as_str())), "{differ:?}");
    assert_eq!(differing(&usual.fixed, &toml::Table::new()), []);
    let written = config.fixed.to_string();
    for key in fixed::DEFAULTS.lines().filter_map(|l| Some(l.split_once(" =")?.0)) {
        assert!(written.contains(&format!("{key} =")), "{key} is not documented");
    }
}

#[test]
fn the_examples_are_in_order() {
    for (text, method) in [
        (include_str!("../../../../configs/nat.toml"), Forwarding::Nat),
        (include_str!("../../../../configs/dr.toml"), Forwarding::Dr),
        (include_str!("../../../../configs/tun.toml"), Forwarding::Tun),
    ] {
        let (config, desired) = parse(text).unwrap();
        assert!(config.interfaces().count() > 0);
        assert!(desired.services.iter().flat_map(|s| &s.servers).all(|s| s.forwarding == method));
    }
}

proptest! {
    #[test]
    fn what_is_exported_reads_as_what_ran(desired in random::desired()) {
        let text = write(&fixed::of("interfaces = [\"eth0\"]\n[socket]\nmode = 0o600"), &desired);
        let (config, read) = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&read, &desired, "{}", text);
        prop_assert_eq!(config.interfaces().collect::<Vec<_>>(), ["eth0"]);
        prop_assert_eq!(config.socket.mode(), 0o600);
        prop_assert_eq!(write(&config.fixed, &read), text);
    }

    /// Nothing that anybody writes is more than refused.
    #[test]
    fn no_text_is_too_odd(text in "([\\[\\]a-z_=.\" \n0-9#{},-]|service|server|sizes|tcp){0,80}") {
        let _ = parse(&text);
    }
}
