//! The view on ratatui's test backend: what is where, at which size, after which keys.

use super::app::{App, Effect, Message, Place};
use super::sample::{Fill, Sample, Status, Verdict};
use super::view;
use crate::api::{Connection, ServerView, ServiceView, Services, Stats};
use crate::model::{Forwarding, Protocol, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::{Duration, Instant};

fn stats(n: u64) -> Stats {
    Stats { connections: n, in_packets: 10 * n, out_packets: 9 * n, in_bytes: 1000 * n, out_bytes: 100_000 * n }
}

fn server(address: &str, n: u64) -> ServerView {
    let id: ServerId = address.parse().unwrap();
    let spec = ServerSpec { id, forwarding: Forwarding::Nat, weight: 1, upper_threshold: 0, lower_threshold: 0 };
    ServerView {
        spec,
        active: n,
        inactive: 2 * n,
        persistent: 0,
        resolved: true,
        overloaded: false,
        stats: stats(n),
        rates: Stats::default(),
    }
}

fn service(address: &str, servers: Vec<ServerView>) -> ServiceView {
    let id: ServerId = address.parse().unwrap();
    let spec = ServiceSpec {
        id: ServiceId { protocol: Protocol::Tcp, address: id.address, port: id.port },
        scheduler: SchedulerKind::Wrr,
        sched_flags: SchedFlags::default(),
        persistence: None,
        one_packet: false,
    };
    let sum = servers.iter().map(|s| s.stats.connections).sum();
    ServiceView { spec, stats: stats(sum), rates: Stats::default(), servers }
}

/// Counters at `n`, so long after `start`.
fn sample(start: Instant, after_ms: u64, n: u64) -> Message {
    let mut quiesced = server("10.0.0.12:8080", 0);
    quiesced.spec.weight = 0;
    let mut away = server("10.0.0.13:8080", 3 * n);
    away.resolved = false;
    let mut full = server("[2001:db8:1:2:3:4:5:6]:8080", 5 * n);
    full.overloaded = true;
    let status = Status {
        version: "9.9.9".into(),
        pid: 4711,
        tables: vec![Fill { family: "ipv4".into(), size: 1_000_000, used: 12 }],
        verdicts: vec![Verdict { name: "dropped_server_gone".into(), packets: 7 * n }],
    };
    let services = vec![
        service("192.0.2.10:80", vec![quiesced, server("10.0.0.11:8080", n), away]),
        service("[2001:db8::10]:443", vec![full]),
    ];
    let at = start + Duration::from_millis(after_ms);
    Message::Sample(Box::new(Sample { at, services: Services { table_size: 1_000_000, services }, status }))
}

fn app() -> App {
    let start = Instant::now();
    let mut app = App::new(Duration::from_secs(1));
    app.update(sample(start, 0, 100));
    app.update(sample(start, 2000, 300));
    app
}

fn press(app: &mut App, keys: &str) -> Effect {
    let mut effect = Effect::None;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x7f' => KeyCode::Backspace,
            other => KeyCode::Char(other),
        };
        effect = app.update(Message::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
    effect
}

fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = app.last.as_ref().map_or_else(Instant::now, |s| s.at);
    terminal.draw(|frame| view::draw(frame, app, now, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn eighty_by_twenty_four() {
    let lines = screen(&mut app(), 80, 24);
    let expected = [
        "lvxadm top  lvxd 9.9.9 pid 4711  every 1 s",
        "CPS 900  PPS 9000 in 8100 out  BPS 900K in 90.0M out  act 2700 inact 5400",
        "Table  ipv4 12/1000000  dropped 700/s (most dropped_server_gone)",
        "All services  by Service and servers, least first",
        "Service and servers      State  Wght Activ Inact   CPS InPPS OutPPS InBPS OutBPS",
        "TCP 192.0.2.10:80 wrr      1/3        1200  2400   400  4000   3600  400K  40.0M",
        "-> 10.0.0.11:8080           up     1   300   600   100  1000    900  100K  10.0M",
        "-> 10.0.0.12:8080        quies     0     0     0     0     0      0     0      0",
        "-> 10.0.0.13:8080        unres     1   900  1800   300  3000   2700  300K  30.0M",
        "TCP [2001:d..10]:443 wrr   0/1        1500  3000   500  5000   4500  500K  50.0M",
        "-> [2001:db..4:5:6]:8080 overl     1  1500  3000   500  5000   4500  500K  50.0M",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        let cut: String = expected.chars().take(80).collect();
        assert_eq!(*line, cut.trim_end(), "{lines:#?}");
    }
    assert!(lines[23].contains("?:help"), "{lines:#?}");
}

#[test]
fn sorting_filtering_and_the_way_into_servers_and_back() {
    let mut app = app();
    let names = |app: &App| app.lines().iter().map(|e| e.label.clone()).collect::<Vec<_>>();
    press(&mut app, "c");
    assert!(app.descending);
    let lines = names(&app);
    assert!(lines[0].contains("443") && lines[3].contains("10.0.0.13") && lines[5].contains("10.0.0.12"), "{lines:?}");
    press(&mut app, "r");
    assert!(names(&app)[0].contains(":80 "), "{:?}", names(&app));
    press(&mut app, "n/UNRESOLVED\n");
    assert_eq!(names(&app), ["TCP 192.0.2.10:80 wrr", "-> 10.0.0.13:8080"]);
    press(&mut app, "\x1bt");
    assert_eq!(names(&app).len(), 2, "without servers");
    press(&mut app, "g\n");
    assert!(matches!(app.level().place, Place::Service(id) if id.port == 80));
    assert_eq!(names(&app).len(), 3);
    press(&mut app, "j\n");
    let Place::Server(service, at) = app.level().place else { panic!("{:?}", app.level()) };
    assert_eq!(app.wish().connections, Some((service, at)));
    let c = |client: &str, state: &str| Connection {
        protocol: Protocol::Tcp,
        expires_ms: 899_000,
        state: state.into(),
        client: client.parse().unwrap(),
        service: "192.0.2.10:80".parse().unwrap(),
        server: at.to_string().parse().unwrap(),
    };
    let list = vec![c("198.51.100.2:2", "ESTABLISHED"), c("198.51.100.1:1", "FIN_WAIT")];
    app.update(Message::Connections((service, at), list.clone()));
    let lines = screen(&mut app, 80, 24);
    assert!(lines[5].starts_with("TCP 198.51.100.1:1 to 192.0.2.10:80") && lines[5].contains("FIN_WAIT"), "{lines:#?}");
    assert!(lines[6].ends_with("14:59"), "{lines:#?}");
    press(&mut app, "/estab\n");
    assert_eq!(app.connection_lines().len(), 1);
    press(&mut app, "\x1b\x1b\x1b");
    assert_eq!(app.level().place, Place::All);
    // Too late: somebody has gone elsewhere.
    app.update(Message::Connections((service, at), list));
    assert!(app.connections.is_none());
}

#[test]
fn the_cursor_stays_on_its_server_when_others_come_and_go() {
    let mut app = app();
    press(&mut app, "jj");
    let key = app.level().key;
    assert!(key.unwrap().1.unwrap().to_string().contains("10.0.0.12"));
    press(&mut app, "c");
    assert_eq!((app.level().key, app.level().cursor), (key, 5));
    let Message::Sample(mut s) = sample(Instant::now(), 9000, 400) else { unreachable!() };
    s.services.services.pop();
    app.update(Message::Sample(s));
    assert_eq!((app.level().key, app.level().cursor), (key, 3));
}

#[test]
fn counters_that_were_set_to_zero_and_pauses() {
    let start = Instant::now();
    let mut app = App::new(Duration::from_secs(1));
    app.update(sample(start, 0, 1000));
    app.update(sample(start, 1000, 50));
    assert_eq!(app.table.groups[0].servers[1].rates.connections, 50.0);
    press(&mut app, " ");
    app.update(sample(start, 2000, 90));
    assert_eq!(app.table.groups[0].servers[1].rates.connections, 50.0, "paused");
    press(&mut app, " ");
    app.update(sample(start, 3000, 150));
    assert_eq!(app.table.groups[0].servers[1].rates.connections, 50.0, "(150 - 50) over 2 s");
}

#[test]
fn what_is_said_when_the_daemon_is_away_or_silent() {
    let mut app = app();
    app.update(Message::Lost("cannot reach the daemon".into()));
    assert!(screen(&mut app, 80, 24)[0].contains("LOST, trying again: cannot reach"));
    app.update(sample(Instant::now(), 5000, 400));
    assert!(!screen(&mut app, 80, 24)[0].contains("LOST"));
    let at = app.last.as_ref().unwrap().at;
    assert_eq!(app.stale(at + Duration::from_secs(3)), None);
    assert_eq!(app.stale(at + Duration::from_secs(9)), Some(Duration::from_secs(9)));
}

#[test]
fn help_the_interval_and_the_ends() {
    let mut app = app();
    press(&mut app, "?");
    let lines = screen(&mut app, 80, 24);
    assert!(
        lines.iter().any(|l| l.contains("any key goes back")) && lines.iter().any(|l| l.contains("no next hop")),
        "{lines:#?}"
    );
    assert_eq!(press(&mut app, "q"), Effect::None);
    press(&mut app, "++-");
    assert_eq!(app.interval, Duration::from_secs(2));
    assert_eq!(press(&mut app, "/q"), Effect::None);
    assert_eq!(press(&mut app, "\nq"), Effect::Quit);
    let control = |c| Message::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    assert_eq!(app.update(control('c')), Effect::Quit);
    assert_eq!(app.update(control('z')), Effect::Suspend);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any keys, on any size of screen: nothing panics, and the cursor is on a line if there is one.
    #[test]
    fn any_keys_on_any_screen(keys in "[a-zA-Z/?<>+\\- \n\x1b\x7f.0-9]{0,30}", width in 0u16..200, height in 0u16..40) {
        let mut app = app();
        for key in keys.chars() {
            press(&mut app, &key.to_string());
            screen(&mut app, width, height);
            let lines = app.lines().len();
            prop_assert!(app.level().cursor < lines.max(1));
        }
    }
}

/// The part of the next test that runs in a terminal.
#[test]
fn panics_in_a_terminal() {
    if std::env::var_os("LVX_TEST_TERMINAL").is_none() {
        return;
    }
    let mut screen = super::screen::Screen::take().unwrap();
    let mut app = app();
    screen.terminal().draw(|frame| view::draw(frame, &mut app, Instant::now(), true)).unwrap();
    panic!("on purpose");
}

/// A panic is told on the ordinary screen, not on one that is about to go.
#[test]
fn a_panic_gives_the_terminal_back_first() {
    let test = std::env::current_exe().unwrap();
    let line = format!("'{}' --exact --nocapture cli::top::tests::panics_in_a_terminal; stty -a", test.display());
    let mut script = std::process::Command::new("script");
    script
        .args(["-q", "-c", &line, "/dev/null"])
        .env("LVX_TEST_TERMINAL", "1")
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null());
    let output = script.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (taken, given, told) = (text.find("\x1b[?1049h"), text.find("\x1b[?1049l"), text.find("on purpose"));
    assert!(taken.is_some() && taken < given && given < told, "{text}");
    // The words of stty, of a terminal in which lines are edited and echoed.
    let modes = &text[told.unwrap_or(0)..];
    assert!(modes.contains(" icanon") && modes.contains(" echo ") && modes.contains("isig"), "{text}");
}
