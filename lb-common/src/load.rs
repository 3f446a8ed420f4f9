//! How loaded a real server is: what `lc`, `wlc`, `sed` and `nq` compare, in the daemon and in the packet path alike.
//!
//! A load is a fraction, load over weight; two are compared by cross multiplication, as in the kernel (`ip_vs_lc.c`, `ip_vs_wlc.c`,
//! `ip_vs_sed.c`, `ip_vs_nq.c`).

/// What counts as load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Overhead, whatever the weight.
    Plain,
    /// Overhead for each unit of weight.
    Weighted,
    /// Active connections, the new one included, for each unit of weight.
    Expected,
}

/// 256 for an active connection, 1 for an inactive one (`ip_vs_dest_conn_overhead`).
#[inline(always)]
#[must_use]
pub const fn overhead(active: u64, inactive: u64) -> u64 {
    active.wrapping_mul(256).wrapping_add(inactive)
}

/// Load over weight.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Load.
    pub over: u64,
    /// Weight; not 0.
    pub under: u32,
}

impl Load {
    /// Of a server with weight, an [`overhead`] and so many active connections.
    #[inline(always)]
    #[must_use]
    pub const fn of(measure: Measure, overhead: u64, active: u64, weight: u32) -> Self {
        let under = if weight == 0 { 1 } else { weight };
        match measure {
            Measure::Plain => Self { over: overhead, under: 1 },
            Measure::Weighted => Self { over: overhead, under },
            Measure::Expected => Self { over: active.wrapping_add(1), under },
        }
    }

    /// Whether this one is at most as much as another. In 64 bits, as the kernel does it: right for 2^39 connections beside a weight of
    /// 65,535, ipvsadm's largest.
    #[inline(always)]
    #[must_use]
    pub const fn at_most(self, other: Self) -> bool {
        self.over.wrapping_mul(other.under as u64) <= other.over.wrapping_mul(self.under as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_fractions() {
        let of = |m, active, inactive, weight| Load::of(m, overhead(active, inactive), active, weight);
        // Three connections for a weight of 3 are as much as one for a weight of 1.
        assert!(of(Measure::Weighted, 3, 0, 3).at_most(of(Measure::Weighted, 1, 0, 1)));
        assert!(of(Measure::Weighted, 1, 0, 1).at_most(of(Measure::Weighted, 3, 0, 3)));
        assert!(!of(Measure::Plain, 3, 0, 3).at_most(of(Measure::Plain, 1, 0, 1)));
        // An active connection is worth 256 inactive ones.
        assert!(of(Measure::Plain, 0, 256, 1).at_most(of(Measure::Plain, 1, 0, 1)));
        assert!(!of(Measure::Plain, 0, 257, 1).at_most(of(Measure::Plain, 1, 0, 1)));
        // `sed` counts the new connection, and no inactive one: (1 + 1) / 2 is no more than (0 + 1) / 1.
        assert!(of(Measure::Expected, 1, 9, 2).at_most(of(Measure::Expected, 0, 0, 1)));
        assert!(!of(Measure::Expected, 2, 0, 2).at_most(of(Measure::Expected, 0, 99, 1)));
        assert!(of(Measure::Weighted, 1 << 30, 0, 65_535).at_most(of(Measure::Weighted, 1 << 30, 1, 65_535)));
    }
}
