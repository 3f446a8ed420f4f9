//! What of a configuration is for the start alone: everything but services, timeouts, switches and settings of schedulers.
//!
//! It is kept as the table that it was written as, so that a key that is added to [`super::Config`] is exported and compared
//! without a word here.

use crate::api::Setting;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// What a running daemon can be given anew.
const RUNNING: [&str; 4] = ["service", "timeouts", "tcp", "schedulers"];

/// The defaults of all keys that have one, as in `configs/lvx.toml`.
pub(super) const DEFAULTS: &str = include_str!("defaults.toml");

/// Of a configuration's text; empty if that is no TOML.
pub(super) fn of(text: &str) -> Table {
    let mut table: Table = text.parse().unwrap_or_default();
    table.retain(|key, _| !RUNNING.contains(&key));
    table
}

fn flatten(prefix: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&name, inner, into),
            // Permission bits may be written either way.
            Value::String(s) if name.ends_with("mode") && i64::from_str_radix(s, 8).is_ok() => {
                into.insert(name, Value::Integer(i64::from_str_radix(s, 8).unwrap_or_default()));
            }
            other => drop(into.insert(name, other.clone())),
        }
    }
}

fn with_defaults(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    flatten("", &of(DEFAULTS), &mut all);
    flatten("", table, &mut all);
    all
}

/// What differs, an absent key being its default.
#[must_use]
pub fn differing(running: &Table, wanted: &Table) -> Vec<Setting> {
    let (running, wanted) = (with_defaults(running), with_defaults(wanted));
    let mut keys: Vec<&String> = running.keys().chain(wanted.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let shown = |v: Option<&Value>| v.map_or_else(|| "none".into(), ToString::to_string);
    keys.into_iter()
        .filter(|key| running.get(*key) != wanted.get(*key))
        .map(|key| Setting { key: key.clone(), running: shown(running.get(key)), wanted: shown(wanted.get(key)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let d =
            |a: &str, b: &str| differing(&of(a), &of(b)).into_iter().map(|s| (s.key, s.running, s.wanted)).collect::<Vec<_>>();
        assert_eq!(
            d("mode = \"auto\"\n[socket]\nmode = \"660\"", "[sizes]\nconnections = 1000000\n[tcp]\nsloppy_tcp = true"),
            []
        );
        let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            d("interfaces = [\"eth0\"]", "interfaces = [\"eth1\"]\n[sizes]\npicks = 64"),
            [three("interfaces", "[\"eth0\"]", "[\"eth1\"]"), three("sizes.picks", "4194304", "64")]
        );
        assert_eq!(d("[socket]\ngroup = \"lvx\"", ""), [three("socket.group", "\"lvx\"", "none")]);
    }
}
