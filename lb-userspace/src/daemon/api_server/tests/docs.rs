//! `docs/api.md` against the routes, the types and the metrics.

use super::*;
use crate::api::ServiceView;
use crate::model::Timeouts;
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md"));

/// The JSON blocks under a heading.
fn examples(heading: &str) -> Vec<Value> {
    let start = DOCUMENT.find(&format!("# {heading}\n")).unwrap_or_else(|| panic!("no `{heading}`"));
    let section = &DOCUMENT[start + 2..];
    let section = &section[..section.find("\n#").unwrap_or(section.len())];
    let blocks = section.split("```json\n").skip(1).map(|b| b.split("```").next().unwrap());
    let values: Vec<Value> = blocks.map(|b| serde_json::from_str(b).unwrap_or_else(|e| panic!("{heading}: {e}"))).collect();
    assert!(!values.is_empty(), "no example under `{heading}`");
    values
}

/// Whether an example has exactly the fields that its type has now.
fn is_whole<T: Serialize + DeserializeOwned>(heading: &str) {
    for example in examples(heading) {
        let parsed: T = serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{heading}: {e}"));
        assert_eq!(serde_json::to_value(parsed).unwrap(), example, "{heading}");
    }
}

#[test]
fn examples_are_true() {
    is_whole::<Services>("`GET /v1/services`");
    is_whole::<Status>("`GET /v1/status`");
    is_whole::<Timeouts>("`GET /v1/timeouts`");
    is_whole::<Connection>("`GET /v1/connections`");
    is_whole::<crate::api::Configure>("`POST /v1/config`");
    is_whole::<Zero>("`POST /v1/zero`");
    is_whole::<ErrorBody>("Errors");
}

#[tokio::test]
async fn requests_do_what_is_said() {
    let daemon = Daemon::start();
    // The document's edits are taken as they stand.
    let edits = examples("`POST /v1/edits`").remove(0).to_string();
    assert_eq!(daemon.request("POST", "/v1/edits", &edits).await, (204, String::new()));
    let shown: Vec<ServiceView> = daemon.services().await.services;
    assert_eq!((shown.len(), shown[0].servers.len()), (1, 1));
    let rows: Vec<(&str, &str)> =
        DOCUMENT.lines().filter_map(|l| l.strip_prefix("| `")?.split_once('`')?.0.split_once(' ')).collect();
    let rows: Vec<_> = rows.into_iter().filter(|(method, _)| ["GET", "POST"].contains(method)).collect();
    assert!(rows.len() >= 7, "{rows:?}");
    for &(method, path) in &rows {
        let (status, body) = daemon.request(method, path, "{}").await;
        assert!(![404, 405, 500].contains(&status), "{method} {path}: {status} {body}");
    }
    // The module's own table lists the same.
    let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api.rs"));
    let listed: BTreeSet<&str> =
        source.lines().filter_map(|l| l.strip_prefix("//! | `")?.split_once('`').map(|(request, _)| request)).collect();
    let documented: BTreeSet<String> = rows.iter().map(|(m, p)| format!("{m} {p}")).collect();
    assert_eq!(listed.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), documented);
}

#[tokio::test]
async fn every_metric_is_told_of() {
    let daemon = Daemon::start();
    let page = daemon.get("/metrics").await;
    let exported: BTreeSet<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let section = &DOCUMENT[DOCUMENT.find("\n## Metrics").unwrap()..];
    let told: BTreeSet<&str> = section.split('`').filter(|w| w.starts_with("lvx_")).collect();
    assert_eq!(told, exported);
}
