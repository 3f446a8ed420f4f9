//! The warning that a connection table is filling up: once when it is nearly full, and again only after it had room in between.

/// Warned at this share of the table, in percent.
const HIGH: u64 = 80;
/// Not warned again before it fell below this.
const LOW: u64 = 75;

/// Whether one table's filling was warned of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Occupancy {
    warned: bool,
}

/// What to tell the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tell {
    /// It is nearly full: so many percent.
    High(u64),
    /// It has room again.
    Low(u64),
}

impl Occupancy {
    /// The table holds `live` of `size` connections now.
    pub(super) fn note(&mut self, live: u64, size: u32) -> Option<Tell> {
        let size = u64::from(size.max(1));
        let percent = live * 100 / size;
        if !self.warned && live * 100 >= size * HIGH {
            self.warned = true;
            return Some(Tell::High(percent));
        }
        if self.warned && live * 100 < size * LOW {
            self.warned = false;
            return Some(Tell::Low(percent));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warned_once_until_there_was_room() {
        let mut o = Occupancy::default();
        let told: Vec<_> = [0, 799, 800, 801, 1000, 1062, 760, 800, 750, 749, 100, 799, 900].map(|n| o.note(n, 1000)).into();
        let high = |n| Some(Tell::High(n));
        let low = |n| Some(Tell::Low(n));
        assert_eq!(told, [None, None, high(80), None, None, None, None, None, None, low(74), None, None, high(90)]);
    }

    #[test]
    fn small_and_large_tables() {
        assert_eq!(Occupancy::default().note(1, 1), Some(Tell::High(100)));
        assert_eq!(Occupancy::default().note(0, 0), None);
        assert_eq!(Occupancy::default().note(64_000_000, 64_000_000), Some(Tell::High(100)));
    }
}
