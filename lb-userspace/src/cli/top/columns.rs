//! The columns of services and servers: what is in them, how wide they are, which stay where there is little room.

use super::number::short;
use super::sample::{Entry, State};
use crate::model::Forwarding;
use std::cmp::Ordering;

/// A column that can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Column {
    Name,
    Forward,
    State,
    Weight,
    Active,
    Inactive,
    Connections,
    InPackets,
    OutPackets,
    InBytes,
    OutBytes,
}

/// From left to right.
pub(super) const COLUMNS: [Column; 11] = [
    Column::Name,
    Column::Forward,
    Column::State,
    Column::Weight,
    Column::Active,
    Column::Inactive,
    Column::Connections,
    Column::InPackets,
    Column::OutPackets,
    Column::InBytes,
    Column::OutBytes,
];

/// Those that go where there is no room, first to go first. Name, active and CPS stay.
const EXPENDABLE: [Column; 8] = [
    Column::Forward,
    Column::OutBytes,
    Column::InBytes,
    Column::OutPackets,
    Column::Inactive,
    Column::Weight,
    Column::InPackets,
    Column::State,
];

/// A name with `255.255.255.255:65535` fits.
const NAME: usize = 24;
/// From this width on, states are written out.
const WIDE: usize = 96;

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "Service and servers",
            Self::Forward => "Forward",
            Self::State => "State",
            Self::Weight => "Wght",
            Self::Active => "Activ",
            Self::Inactive => "Inact",
            Self::Connections => "CPS",
            Self::InPackets => "InPPS",
            Self::OutPackets => "OutPPS",
            Self::InBytes => "InBPS",
            Self::OutBytes => "OutBPS",
        }
    }

    /// Of everything but the name, which has the rest.
    fn width(self, total: usize) -> usize {
        match self {
            Self::State if total >= WIDE => 10,
            Self::Forward => 7,
            other => other.title().len().max(5),
        }
    }

    /// The text in it, at most as wide as the column.
    pub(super) fn cell(self, e: &Entry, wide: bool) -> String {
        match self {
            Self::Name => e.label.clone(),
            Self::Forward => e.forwarding.map_or("", forwarding).into(),
            Self::State if wide => e.state.text(),
            Self::State => e.state.text().chars().take(5).collect(),
            Self::Weight => e.weight.map(|w| short(f64::from(w))).unwrap_or_default(),
            Self::Active => short(e.active as f64),
            Self::Inactive => short(e.inactive as f64),
            Self::Connections => short(e.rates.connections),
            Self::InPackets => short(e.rates.in_packets),
            Self::OutPackets => short(e.rates.out_packets),
            Self::InBytes => short(e.rates.in_bytes),
            Self::OutBytes => short(e.rates.out_bytes),
        }
    }

    /// Which of two comes first when they are sorted upwards. Equal ones stay in the order of their names.
    pub(super) fn order(self, a: &Entry, b: &Entry) -> Ordering {
        let by = |f: fn(&Entry) -> f64| f(a).total_cmp(&f(b));
        match self {
            Self::Name => a.key.cmp(&b.key),
            Self::Forward => a.forwarding.map(forwarding).cmp(&b.forwarding.map(forwarding)),
            Self::State => attention(a.state).cmp(&attention(b.state)),
            Self::Weight => a.weight.cmp(&b.weight),
            Self::Active => a.active.cmp(&b.active),
            Self::Inactive => a.inactive.cmp(&b.inactive),
            Self::Connections => by(|e| e.rates.connections),
            Self::InPackets => by(|e| e.rates.in_packets),
            Self::OutPackets => by(|e| e.rates.out_packets),
            Self::InBytes => by(|e| e.rates.in_bytes),
            Self::OutBytes => by(|e| e.rates.out_bytes),
        }
    }

    /// Names read upwards; of everything else the most is wanted first.
    pub(super) fn starts_descending(self) -> bool {
        !matches!(self, Self::Name | Self::Forward)
    }
}

/// Services by how many of their servers are away, servers by their state.
fn attention(state: State) -> (usize, State) {
    match state {
        State::Servers(up, all) => (all - up, State::Servers(up, all)),
        other => (0, other),
    }
}

/// As ipvsadm says it.
pub(super) fn forwarding(f: Forwarding) -> &'static str {
    match f {
        Forwarding::Nat => "Masq",
        Forwarding::Dr => "Route",
        Forwarding::Tun => "Tunnel",
    }
}

/// The columns that fit, with their widths, and whether states are written out.
pub(super) fn layout(total: usize) -> (Vec<(Column, usize)>, bool) {
    let mut columns = COLUMNS.to_vec();
    let rest = |columns: &[Column]| -> usize {
        let taken: usize = columns.iter().skip(1).map(|c| c.width(total) + 1).sum();
        total.saturating_sub(taken)
    };
    for gone in EXPENDABLE {
        if rest(&columns) >= NAME {
            break;
        }
        columns.retain(|c| *c != gone);
    }
    let name = rest(&columns);
    let widths = columns.into_iter().map(|c| (c, if c == Column::Name { name } else { c.width(total) }));
    (widths.collect(), total >= WIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_columns_hold_all_but_the_method() {
        let (columns, wide) = layout(80);
        assert!(!wide);
        let names: Vec<Column> = columns.iter().map(|c| c.0).collect();
        assert_eq!(names, COLUMNS.iter().copied().filter(|c| *c != Column::Forward).collect::<Vec<_>>());
        assert_eq!(columns[0].1, NAME);
    }

    #[test]
    fn whatever_the_width_lines_fit() {
        for total in 0..300 {
            let (columns, _) = layout(total);
            let sum: usize = columns.iter().map(|c| c.1 + 1).sum::<usize>() - 1;
            assert!(sum <= total || columns.len() == 3, "{total}: {columns:?}");
            assert_eq!(columns[0].0, Column::Name);
        }
    }
}
