//! Random requests: whatever comes in, the daemon answers, with an error of the client's or with success, and an error changes nothing.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Bytes like those of a request, in any state of repair.
fn http() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        select(vec![
            "GET ",
            "POST ",
            "HEAD ",
            "DELETE ",
            "OPTIONS * ",
            "PRI * HTTP/2.0\r\n\r\n",
            "/v1/edits",
            "/v1/services",
            "/v1/zero",
            "/v1/connections",
            "/v1/status",
            "/",
            "?x=%00",
            "/../",
            " HTTP/1.1\r\n",
            " HTTP/1.0\r\n",
            " HTTP/9.9\r\n",
            "\r\n",
            "\n",
            "\r\n\r\n",
            "host: x\r\n",
            "content-length: 5\r\n",
            "content-length: 18446744073709551616\r\n",
            "expect: 100-continue\r\n",
            "transfer-encoding: chunked\r\n",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "upgrade: websocket\r\n",
            "connection: upgrade\r\n",
            "content-type: text/plain\r\n",
            "{\"edits\": []}",
            "{}",
            ": ",
            "\0",
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Any JSON.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(vec!["tcp", "rr", "nat", "10.9.0.1", "::", "add_service", "80", "", "\u{0}", "a\nb"]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((select(FIELDS), inner), 0..4)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

const FIELDS: &[&str] = &[
    "op",
    "service",
    "server",
    "protocol",
    "address",
    "port",
    "scheduler",
    "sched_flags",
    "persistence",
    "timeout_s",
    "netmask",
    "one_packet",
    "forwarding",
    "weight",
    "upper_threshold",
    "lower_threshold",
    "timeouts",
    "tcp",
    "tcpfin",
    "udp",
    "edits",
    "more",
];

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        30 => (1u64..4).prop_map(Value::from),
        3 => select(vec![0u64, 80, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX, i32::MAX as u64, 1 << 31]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
    ]
}

/// An edit that is nearly right, and right often.
fn edit() -> impl Strategy<Value = Value> {
    let address = || {
        let odd = select(vec!["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "::ffff:10.9.0.1", "10.9.0"]);
        prop_oneof![20 => Just("10.9.0.1"), 8 => Just("2001:db8::1"), 1 => odd].prop_map(Value::from)
    };
    let id = || {
        (prop_oneof![20 => Just("tcp"), 8 => Just("udp"), 1 => Just("sctp")], address(), number())
            .prop_map(|(protocol, address, port)| json!({"protocol": protocol, "address": address, "port": port}))
    };
    let service = (
        id(),
        select(vec!["rr", "wlc", "mh", "sh", "lblcr", "lc", "sed", "dh", "wrr", "nosuch"]),
        number(),
        proptest::option::weighted(0.2, (number(), address())),
        any::<bool>(),
    )
        .prop_map(|(mut id, scheduler, flags, persistence, one_packet)| {
            id["scheduler"] = scheduler.into();
            id["sched_flags"] = flags;
            if let Some((timeout, mask)) = persistence {
                id["persistence"] = json!({"timeout_s": timeout, "netmask": mask});
            }
            if one_packet {
                id["one_packet"] = true.into();
            }
            id
        });
    let server =
        (address(), number(), select(vec!["nat", "nat", "dr", "tun", "tun", "tun", "nat", "gre"]), number(), number(), number())
            .prop_map(|(address, port, forwarding, weight, upper, lower)| {
                json!({"address": address, "port": port, "forwarding": forwarding, "weight": weight, "upper_threshold": upper,
                "lower_threshold": lower})
            });
    let op = select(vec![
        "add_service",
        "edit_service",
        "add_server",
        "edit_server",
        "delete_service",
        "delete_server",
        "clear",
        "set_timeouts",
    ]);
    let whole = (op, id(), service, server, number(), number()).prop_map(|(op, id, service, server, a, b)| {
        let mut edit = json!({"op": op});
        match op {
            "add_service" | "edit_service" => edit["service"] = service,
            "delete_service" => edit["service"] = id,
            "set_timeouts" => edit["timeouts"] = json!({"tcp": a, "tcpfin": b, "udp": 0}),
            "clear" => {}
            _ => {
                edit["service"] = id;
                edit["server"] =
                    if op == "delete_server" { json!({"address": server["address"], "port": server["port"]}) } else { server };
            }
        }
        edit
    });
    // A field of one in eight is something else altogether.
    (whole, proptest::option::weighted(0.12, (select(FIELDS), value()))).prop_map(|(mut edit, change)| {
        if let Some((field, value)) = change {
            for part in ["service", "server"] {
                if edit[part].get(field).is_some() {
                    edit[part][field] = value;
                    return edit;
                }
            }
            edit[field] = value;
        }
        edit
    })
}

/// What an error must leave as it was.
async fn state(daemon: &Daemon) -> (Desired, String) {
    let desired = daemon.core.with(|core| core.desired().clone()).await.expect("the core lives");
    let mut shown = daemon.services().await;
    for service in &mut shown.services {
        for server in &mut service.servers {
            server.resolved = false;
        }
    }
    (desired, serde_json::to_string(&shown).unwrap())
}

fn run<S: Strategy>(cases: u32, strategy: &S, check: &impl AsyncFn(&Daemon, S::Value)) {
    // Thousands of refusals are not for the log.
    let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let daemon = runtime.block_on(async { Daemon::start() });
    // Failures are not kept in files beside the sources.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(strategy, |input| {
        runtime.block_on(check(&daemon, input));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn bytes() {
    run(600, &http(), &async |daemon, bytes| {
        let before = state(daemon).await;
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        if let Some(status) = answer.strip_prefix("HTTP/1.1 ").and_then(|a| a.get(..1)) {
            assert!(["1", "2", "4"].contains(&status), "{answer}");
        }
        assert_eq!(state(daemon).await, before);
    });
}

#[test]
fn json() {
    run(400, &(select(vec!["/v1/edits", "/v1/zero"]), value()), &async |daemon, (path, body)| {
        let before = state(daemon).await;
        let (status, answer) = daemon.request("POST", path, &body.to_string()).await;
        match status {
            204 => {}
            400..500 => {
                assert!(error(&answer)["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
                assert_eq!(state(daemon).await, before, "{body}");
            }
            _ => panic!("{body}: {status} {answer}"),
        }
    });
}

#[test]
fn edits() {
    let done = std::cell::Cell::new(0);
    run(1500, &proptest::collection::vec(edit(), 1..5), &async |daemon, edits| {
        let before = state(daemon).await;
        let (status, answer) = daemon.edits(edits.clone().into()).await;
        match status {
            204 => done.set(done.get() + 1),
            400..500 => {
                let error = error(&answer);
                assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
                assert!(error["edit"].as_u64().is_none_or(|n| n < edits.len() as u64), "{answer}");
                assert_eq!(state(daemon).await, before, "{edits:?}");
            }
            _ => panic!("{edits:?}: {status} {answer}"),
        }
    });
    assert!(done.get() > 100, "only {} lists of edits were good ones", done.get());
}
