//! Requests over a real socket, to a core whose maps are in memory.

mod abuse;
mod docs;
mod fuzz;

use super::super::core::{Core, Handle};
use super::super::serve::serve;
use super::super::socket::{Socket, SocketError};
use super::super::state::Store;
use super::*;
use crate::api::{Services, Status};
use crate::engine::{Engine, Maps, Sizes};
use crate::model::{Desired, Timeouts};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc::unbounded_channel, watch};

struct Daemon {
    dir: tempfile::TempDir,
    core: Handle,
    _end: watch::Sender<bool>,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with(Access::Full)
    }

    fn start_with(access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { connections: 64, services: 2, servers: 4, picks: 64, cpus: 1 };
        let mut core = Core::new(Engine::new(Maps::in_memory(&sizes)).unwrap(), Box::new(|_| ()));
        core.set_store(Store::new(&dir.path().join("s"), [1, 1]));
        // Without a sender no event comes.
        let (core, _) = core.spawn(unbounded_channel().1).unwrap();
        let socket = Socket::bind(&dir.path().join("s"), 0o660, None).unwrap();
        let (end, ended) = watch::channel(false);
        let router = router(core.clone(), access);
        let listener = socket.listener().unwrap();
        tokio::spawn(async move {
            serve("control socket", listener, 512, router, ended).await;
            drop(socket);
        });
        Self { dir, core, _end: end }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Sends bytes, and gives the status and the body of the answer.
    async fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The daemon may refuse before it has read all of it.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, body.into())
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        self.raw(text.as_bytes()).await
    }

    async fn get(&self, path: &str) -> String {
        let (status, body) = self.request("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn edits(&self, edits: Value) -> (u16, String) {
        self.request("POST", "/v1/edits", &json!({ "edits": edits }).to_string()).await
    }

    async fn services(&self) -> Services {
        serde_json::from_str(&self.get("/v1/services").await).unwrap()
    }
}

fn id(port: u16) -> Value {
    json!({"protocol": "tcp", "address": "10.9.0.1", "port": port})
}

fn add_service(port: u16) -> Value {
    let mut service = id(port);
    service["scheduler"] = "rr".into();
    json!({"op": "add_service", "service": service})
}

fn add_server(port: u16, address: &str) -> Value {
    json!({"op": "add_server", "service": id(port), "server": {"address": address, "port": 80, "forwarding": "nat"}})
}

fn error(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap_or_else(|e| panic!("{e}: {body}"))["error"].clone()
}

#[tokio::test]
async fn what_is_edited_is_shown() {
    let daemon = Daemon::start();
    assert_eq!(daemon.edits(json!([add_service(80), add_server(80, "10.2.0.1")])).await, (204, String::new()));
    let services = daemon.services().await;
    assert_eq!(services.table_size, 64);
    assert_eq!(services.services[0].servers[0].spec.id.to_string(), "10.2.0.1:80");
    let timeouts = json!({"tcp": 10, "tcpfin": 0, "udp": 30});
    assert_eq!(daemon.edits(json!([{"op": "set_timeouts", "timeouts": timeouts}])).await.0, 204);
    let timeouts: Timeouts = serde_json::from_str(&daemon.get("/v1/timeouts").await).unwrap();
    assert_eq!(timeouts, Timeouts { tcp: 10, tcpfin: 120, udp: 30 });
    let status: Status = serde_json::from_str(&daemon.get("/v1/status").await).unwrap();
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.verdicts.len(), lb_common::verdict::VERDICTS);
    // The end of a body in pieces, and no piece before it.
    assert_eq!(daemon.get("/v1/connections").await, "0\r\n\r\n");
    assert_eq!(daemon.request("POST", "/v1/zero", "{}").await.0, 204);
    let one = json!({"service": id(80)}).to_string();
    assert_eq!(daemon.request("POST", "/v1/zero", &one).await.0, 204);
}

#[tokio::test]
async fn refused_edits_have_a_status_a_reason_and_no_effect() {
    let daemon = Daemon::start();
    assert_eq!(daemon.edits(json!([add_service(80), add_server(80, "10.2.0.1")])).await.0, 204);
    let before = daemon.services().await;
    let server = |change: Value| {
        let mut edit = add_server(80, "10.2.0.2");
        for (key, value) in change.as_object().unwrap() {
            edit["server"][key] = value.clone();
        }
        edit
    };
    for (edit, status, code, names) in [
        (add_service(80), 409, "service_exists", "TCP 10.9.0.1:80"),
        (add_server(80, "10.2.0.1"), 409, "server_exists", "10.2.0.1:80"),
        (add_server(81, "10.2.0.1"), 404, "service_not_defined", "TCP 10.9.0.1:81"),
        (json!({"op": "delete_service", "service": id(81)}), 404, "no_such_service", "TCP 10.9.0.1:81"),
        (
            json!({"op": "delete_server", "service": id(80), "server": {"address": "10.2.0.9", "port": 80}}),
            404,
            "no_such_server",
            "10.2.0.9:80",
        ),
        (add_service(0), 422, "zero_port", "TCP 10.9.0.1:0"),
        (server(json!({"address": "2001:db8::1"})), 422, "family_mismatch", "[2001:db8::1]:80"),
        (server(json!({"weight": 4_000_000_000u32})), 422, "out_of_range", "10.2.0.2:80"),
        (server(json!({"lower_threshold": 1})), 422, "out_of_range", "10.2.0.2:80"),
    ] {
        // The good edit before it is undone with it.
        let (got, body) = daemon.edits(json!([add_service(8080), edit])).await;
        let error = error(&body);
        assert_eq!(got, status, "{body}");
        assert_eq!((error["code"].as_str(), error["edit"].as_u64()), (Some(code), Some(1)), "{body}");
        assert!(error["message"].as_str().unwrap().contains(names), "{body}");
        assert_eq!(daemon.services().await, before);
    }
    let unknown = json!({"service": id(81)}).to_string();
    assert_eq!(daemon.request("POST", "/v1/zero", &unknown).await.0, 404);
}

#[tokio::test]
async fn a_full_table_is_said_so() {
    let daemon = Daemon::start();
    let (status, body) = daemon.edits(json!([add_service(1), add_service(2), add_service(3)])).await;
    assert_eq!((status, error(&body)["code"].as_str()), (422, Some("full")), "{body}");
    assert_eq!(daemon.services().await.services, []);
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let daemon = Daemon::start();
    for (method, path, body, status, names) in [
        ("POST", "/v1/edits", "", 400, "body"),
        ("POST", "/v1/edits", "{", 400, "line 1"),
        ("POST", "/v1/edits", "[]", 400, "body"),
        ("POST", "/v1/edits", "{}", 400, "`edits`"),
        ("POST", "/v1/edits", r#"{"edits": [], "force": true}"#, 400, "`force`"),
        ("POST", "/v1/edits", r#"{"edits": [{"op": "explode"}]}"#, 400, "`explode`"),
        ("POST", "/v1/edits", r#"{"edits": [{"op": "delete_service", "service": {"protocol": "sctp"}}]}"#, 400, "`sctp`"),
        ("POST", "/v1/edits", &json!({"edits": [add_service(80).to_string()]}).to_string(), 400, "body"),
        ("POST", "/v1/edits", &json!({"edits": [add_service(80)]}).to_string().replace("rr", "wizard"), 400, "`wizard`"),
        ("POST", "/v1/edits", &json!({"edits": [add_service(80)]}).to_string().replace("80", "65536"), 400, "65536"),
        ("POST", "/v1/edits", &json!({"edits": [add_service(80)]}).to_string().replace("10.9.0.1", "10.9.0"), 400, "IP address"),
        ("POST", "/v1/edits", "\u{feff}{\"edits\": []}", 400, "body"),
        ("POST", "/v1/zero", r#"{"services": null}"#, 400, "`services`"),
        ("GET", "/v1/edits", "", 405, "GET"),
        ("DELETE", "/v1/services", "", 405, "DELETE"),
        ("GET", "/", "", 404, "/"),
        ("GET", "/v2/status", "", 404, "/v2/status"),
    ] {
        let (got, answer) = daemon.request(method, path, body).await;
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        let message = error(&answer)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(names), "{method} {path} {body}: {message}");
    }
    let service = json!({"edits": [add_service(80)]}).to_string().replace("\"scheduler\"", "\"colour\": 1, \"scheduler\"");
    let (status, answer) = daemon.request("POST", "/v1/edits", &service).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("`colour`"), "{answer}");
    assert_eq!(daemon.services().await.services, []);
}

#[tokio::test]
async fn clients_that_misbehave_do_not_hurt_others() {
    let daemon = Daemon::start();
    // Half open, half a request, and garbage.
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(b"POST /v1/edits HTTP/1.1\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
        idle.push(stream);
        idle.push(UnixStream::connect(daemon.socket()).await.unwrap());
    }
    assert_eq!(daemon.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await.0, 400);
    let large = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(daemon.raw(large.as_bytes()).await.0, 431);
    daemon.get("/v1/status").await;
    let head = format!("POST /v1/edits HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", MAX_BODY + 1);
    let (status, body) = daemon.raw(head.as_bytes()).await;
    assert_eq!(status, 413, "{body}");
    let start = std::time::Instant::now();
    assert_eq!(daemon.edits(json!([add_service(80)])).await.0, 204);
    let many: Vec<Value> = (0..5_000).map(|_| json!({"op": "clear"})).collect();
    assert_eq!(daemon.edits(many.into()).await.0, 204);
    assert!(start.elapsed() < BODY_TIME / 2, "others were waited for");
}

#[tokio::test]
async fn a_core_that_ended_is_an_error_and_its_state_is_kept() {
    let daemon = Daemon::start();
    assert_eq!(daemon.edits(json!([add_service(80)])).await.0, 204);
    daemon.core.with(Core::end).await.unwrap();
    let (status, body) = daemon.request("GET", "/v1/services", "").await;
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("ending"), "{body}");
    let store = Store::new(&daemon.socket(), [1, 1]);
    let kept = loop {
        match store.load().unwrap() {
            Some(Desired { services, .. }) if !services.is_empty() => break services,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(kept[0].spec.id.port, 80);
}

#[tokio::test]
async fn the_socket_is_guarded() {
    let daemon = Daemon::start();
    let path = daemon.socket();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let error = Socket::bind(&path, 0o660, None).unwrap_err();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    let stale = daemon.dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    drop(Socket::bind(&stale, 0o600, None).unwrap());
    assert!(!stale.exists());
    let file = daemon.dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Socket::bind(&file, 0o660, None), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let nobody = Socket::bind(&daemon.dir.path().join("x"), 0o660, Some("no such group")).unwrap_err().to_string();
    assert!(nobody.contains("`no such group`"), "{nobody}");
}

#[tokio::test]
async fn the_socket_for_reading_is_for_reading() {
    let daemon = Daemon::start_with(Access::ReadOnly { full: "/run/x.sock".into() });
    for path in ["/v1/status", "/v1/services", "/v1/timeouts", "/v1/connections"] {
        daemon.get(path).await;
    }
    for (method, path) in
        [("POST", "/v1/edits"), ("POST", "/v1/zero"), ("PUT", "/v1/services"), ("DELETE", "/"), ("BREW", "/v1/status")]
    {
        let (status, body) = daemon.request(method, path, &json!({"edits": [{"op": "clear"}]}).to_string()).await;
        assert_eq!(status, 403, "{method} {path}: {body}");
        let message = error(&body)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("{method} {path}")) && message.contains("/run/x.sock"), "{message}");
    }
    let (status, body) = daemon.request("HEAD", "/v1/status", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
}

/// What quotes a request is bounded.
#[tokio::test]
async fn a_reason_is_short() {
    let daemon = Daemon::start();
    let (status, body) = daemon.request("POST", "/v1/edits", &format!("{{\"{}\": 1}}", "\u{e9}".repeat(100_000))).await;
    assert_eq!(status, 400);
    assert!(body.len() < MAX_MESSAGE + 100, "{}", body.len());
    assert!(error(&body)["message"].as_str().unwrap().contains("unknown field"), "{body}");
}
