//! Clients that are idle, slow, half open, greedy or mad, while an ordinary one is served in time.

use super::*;
use std::time::{Duration, Instant};

/// Within this an ordinary client is served, whatever others do. Well below every timeout that would let it in by itself.
const BOUND: Duration = Duration::from_secs(3);

/// What an ordinary client does.
async fn is_served(daemon: &Daemon) {
    let start = Instant::now();
    let add = daemon.edits(json!([add_service(80), add_server(80, "10.2.0.1")])).await;
    assert_eq!(add, (204, String::new()));
    assert_eq!(daemon.services().await.services.len(), 1);
    assert_eq!(daemon.edits(json!([{"op": "clear"}])).await.0, 204);
    assert!(start.elapsed() < BOUND, "served after {:?}", start.elapsed());
}

/// A connection that has sent this, and does no more.
async fn stuck(daemon: &Daemon, sent: &[u8]) -> UnixStream {
    // The backlog is full for a moment at times.
    let mut stream = loop {
        match UnixStream::connect(daemon.socket()).await {
            Ok(stream) => break stream,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(e) => panic!("{e}"),
        }
    };
    // It may have been cut off already.
    let _ = stream.write_all(sent).await;
    stream
}

async fn many_stuck(daemon: &Daemon, n: usize, sent: &[u8]) -> Vec<UnixStream> {
    let mut all = Vec::new();
    for _ in 0..n {
        all.push(stuck(daemon, sent).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_clients() {
    let daemon = Daemon::start();
    let idle = many_stuck(&daemon, 1000, b"").await;
    is_served(&daemon).await;
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_never_finish_their_headers() {
    let daemon = Daemon::start();
    let mut slow = many_stuck(&daemon, 1000, b"GET /v1/services HTTP/1.1\r\nx-slow").await;
    for stream in &mut slow {
        let _ = stream.write_all(b": a").await;
    }
    is_served(&daemon).await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_never_finish_their_bodies() {
    let daemon = Daemon::start();
    let head = format!("POST /v1/edits HTTP/1.1\r\ncontent-length: {MAX_BODY}\r\n\r\n{{");
    let slow = many_stuck(&daemon, 1000, head.as_bytes()).await;
    is_served(&daemon).await;
    drop(slow);
}

/// A head that comes a byte at a time is given up as a whole.
#[tokio::test]
async fn a_trickle_of_headers_ends() {
    let daemon = Daemon::start();
    let mut stream = stuck(&daemon, b"GET /v1/status HTTP/1.1\r\n").await;
    let start = Instant::now();
    while stream.write_all(b"x").await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "it is still listened to");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    is_served(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_reading() {
    let daemon = Daemon::start();
    // Large answers: what is refused is quoted, and connections of a full table are many lines.
    let request: &[u8] = b"GET /v1/services HTTP/1.1\r\n\r\n";
    let stopped = many_stuck(&daemon, 100, request).await;
    let listing = many_stuck(&daemon, 600, b"GET /v1/connections HTTP/1.1\r\n\r\n").await;
    is_served(&daemon).await;
    drop((stopped, listing));
}

/// Who says that nothing more comes still gets the answer.
#[tokio::test]
async fn half_closed_clients_are_answered() {
    let daemon = Daemon::start();
    for request in ["GET /v1/status HTTP/1.1\r\n\r\n", "POST /v1/zero HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"] {
        let mut stream = stuck(&daemon, request.as_bytes()).await;
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
    // Within a request there is nothing to answer.
    for part in ["", "GET /v1/sta", "POST /v1/edits HTTP/1.1\r\ncontent-length: 50\r\n\r\n{\"edits\""] {
        let mut stream = stuck(&daemon, part.as_bytes()).await;
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut answer)).await.expect("it is let go");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{part:?}");
    }
    is_served(&daemon).await;
}

/// A connection is for one request: what follows it is not read.
#[tokio::test]
async fn pipelined_requests_and_garbage() {
    let daemon = Daemon::start();
    let clear = json!({"edits": [add_service(80)]}).to_string();
    let second = format!("POST /v1/edits HTTP/1.1\r\ncontent-length: {}\r\n\r\n{clear}", clear.len());
    for after in [second.as_bytes(), b"\0\xff\xfe garbage \r\n\r\n", &[b'x'; 300_000]] {
        let (status, body) = daemon.raw(&[b"GET /v1/timeouts HTTP/1.1\r\n\r\n", after].concat()).await;
        assert_eq!(status, 200);
        assert!(!body.contains("HTTP/1.1"), "{body}");
    }
    assert_eq!(daemon.services().await.services, []);
}

/// Lengths that contradict each other must not let one request hide in another.
#[tokio::test]
async fn smuggled_lengths_are_refused() {
    let daemon = Daemon::start();
    for head in [
        "POST /v1/edits HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "POST /v1/edits HTTP/1.1\r\ncontent-length: -1\r\n\r\n{}",
        "POST /v1/edits HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
        "POST /v1/edits HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        "POST /v1/edits HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    ] {
        let (status, answer) = daemon.raw(head.as_bytes()).await;
        assert!((400..500).contains(&status), "{head}: {status} {answer}");
    }
    is_served(&daemon).await;
}

/// Bodies up to the limit, at the same time, take turns.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies() {
    let daemon = std::sync::Arc::new(Daemon::start());
    let body = format!("{{\"edits\": [{}]}}", " ".repeat(MAX_BODY - 100));
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (daemon, body) = (daemon.clone(), body.clone());
            tokio::spawn(async move { daemon.request("POST", "/v1/edits", &body).await })
        })
        .collect();
    is_served(&daemon).await;
    for request in all {
        assert_eq!(request.await.unwrap().0, 204);
    }
    assert_eq!(daemon.request("POST", "/v1/edits", &format!("{body}{}", " ".repeat(200))).await.0, 413);
}
