//! JSON of lists: what `docs/json.md` describes, field by field.

use serde::Serialize;

/// Number of the description. A field that is renamed, removed or given another meaning raises it.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// A value whose JSON is an object, as a document.
///
/// # Errors
/// The value has no JSON.
pub(super) fn document<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Document { schema: SCHEMA, value }).map(|text| text + "\n")
}

/// `-L --daemon`: LVX has no synchronization daemon.
#[derive(Default, Serialize)]
pub(super) struct Daemons {
    daemons: [(); 0],
}

#[cfg(test)]
pub(super) mod tests {
    //! The description has every field that there is, and no other.

    use super::*;
    use crate::api::{
        Connection, InterfaceView, Plan, PlannerView, ServerView, ServiceView, Services, Setting, Stats, Status, SweeperView,
        TableView, VerdictView,
    };
    use crate::model::{
        Action, Change, Field, Forwarding, Persistence, Protocol, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId,
        ServiceSpec, Timeouts,
    };
    use serde_json::Value;
    use std::collections::BTreeSet;

    const DESCRIPTION: &str = include_str!("../../../docs/json.md");

    /// Fields in the table below a title.
    fn described(title: &str) -> BTreeSet<String> {
        let section = DESCRIPTION.split("\n## ").find(|s| s.starts_with(&format!("`{title}`"))).expect(title);
        section.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next().map(str::to_owned)).collect()
    }

    fn fields(value: &Value, at: &str, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields_) => {
                for (name, value) in fields_ {
                    let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    if !value.is_array() {
                        out.insert(at.clone());
                    }
                    fields(value, &at, out);
                }
            }
            Value::Array(values) => {
                out.insert(format!("{at}[]"));
                values.iter().for_each(|v| fields(v, &format!("{at}[]"), out));
            }
            _ => {}
        }
    }

    /// Whether JSON has just the fields that are described below a title.
    pub(in crate::cli) fn check(title: &str, json: &str) {
        let mut found = BTreeSet::new();
        fields(&serde_json::from_str(json).unwrap(), "", &mut found);
        assert_eq!(found, described(title), "docs/json.md, {title}");
    }

    fn services() -> Services {
        let address = "192.0.2.1".parse().unwrap();
        let server = ServerView {
            spec: ServerSpec {
                id: ServerId { address, port: 80 },
                forwarding: Forwarding::Nat,
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
            active: 0,
            inactive: 0,
            persistent: 0,
            resolved: true,
            overloaded: false,
            stats: Stats::default(),
            rates: Stats::default(),
        };
        let spec = ServiceSpec {
            id: ServiceId { protocol: Protocol::Udp, address, port: 80 },
            scheduler: SchedulerKind::Sh,
            sched_flags: SchedFlags(3),
            persistence: Some(Persistence { timeout_s: 1, netmask: Some(address) }),
            one_packet: true,
        };
        let service = ServiceView { spec, stats: Stats::default(), rates: Stats::default(), servers: vec![server] };
        Services { table_size: 1, services: vec![service] }
    }

    #[test]
    fn every_field_is_described() {
        check("lvxadm -L --json", &document(&services()).unwrap());
        check("lvxadm -L --timeout --json", &document(&Timeouts::default()).unwrap());
        check("lvxadm -L --daemon --json", &document(&Daemons::default()).unwrap());
        let at = "192.0.2.1:80".parse().unwrap();
        let connection =
            Connection { protocol: Protocol::Tcp, expires_ms: 1, state: "NONE".into(), client: at, service: at, server: at };
        check("lvxadm -L -c --json", &serde_json::to_string(&connection).unwrap());
        let table = TableView {
            family: "ipv4".into(),
            size: 1,
            used: 0,
            active: 0,
            inactive: 0,
            templates: 0,
            reclaimed_expired: 0,
            evicted_embryonic: 0,
            evicted_closing: 0,
            swept: 0,
            states: std::collections::BTreeMap::new(),
        };
        let status = Status {
            version: "1".into(),
            pid: 1,
            interfaces: vec![InterfaceView { name: "eth0".into(), index: 1, mode: "native".into() }],
            tables: vec![table],
            sweeper: SweeperView::default(),
            planner: PlannerView::default(),
            verdicts: vec![VerdictView { name: "x".into(), meaning: "y".into(), packets: 0 }],
        };
        check("lvxadm status --json", &document(&status).unwrap());
        let service = services().services.remove(0);
        let change = Change {
            action: Action::Add,
            service: Some(service.spec.id),
            server: Some(service.servers[0].spec.id),
            fields: vec![Field { name: "weight".into(), old: String::new(), new: "1".into() }],
            connections: 0,
            cut: 0,
        };
        let setting = Setting { key: "mode".into(), running: "none".into(), wanted: "auto".into() };
        check("lvxadm plan --json", &document(&Plan { changes: vec![change], restart: vec![setting] }).unwrap());
    }

    /// The numbers themselves: what a script reads.
    #[test]
    fn a_document() {
        let text = document(&Timeouts { tcp: 900, tcpfin: 120, udp: 300 }).unwrap();
        assert_eq!(text, "{\n  \"schema\": 1,\n  \"tcp\": 900,\n  \"tcpfin\": 120,\n  \"udp\": 300\n}\n");
    }
}
