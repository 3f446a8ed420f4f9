//! Time as the connection table keeps it: ticks of 2^22 ns (4.19 ms) of `CLOCK_MONOTONIC_COARSE`, in 32 bits.
//!
//! The counter wraps after 208 days; comparisons are made on the wrapped difference, so a timeout may be up to 104 days.
//! The longest that ipvsadm accepts is 31 days.

/// Bits that a tick drops from nanoseconds.
pub const TICK_SHIFT: u32 = 22;

/// A point in time, in ticks, wrapping.
pub type Tick = u32;

/// The tick that a monotonic time in nanoseconds falls into.
#[inline(always)]
#[must_use]
pub const fn tick_of_ns(ns: u64) -> Tick {
    (ns >> TICK_SHIFT) as u32
}

/// Ticks in `seconds`, rounded to the nearest, at least one.
#[must_use]
pub const fn ticks_of_seconds(seconds: u32) -> u32 {
    let t = ((seconds as u64 * 1_000_000_000) + (1 << (TICK_SHIFT - 1))) >> TICK_SHIFT;
    if t == 0 { 1 } else { t as u32 }
}

/// Milliseconds in `ticks`.
#[must_use]
pub const fn ms_of_ticks(ticks: u32) -> u64 {
    ((ticks as u64) << TICK_SHIFT) / 1_000_000
}

/// Whether `now` has reached `deadline`.
#[inline(always)]
#[must_use]
pub const fn reached(now: Tick, deadline: Tick) -> bool {
    now.wrapping_sub(deadline) as i32 >= 0
}

/// Ticks left until `deadline`; 0 once it is reached.
#[must_use]
pub const fn left(now: Tick, deadline: Tick) -> u32 {
    if reached(now, deadline) { 0 } else { deadline.wrapping_sub(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_work_across_the_wrap() {
        let now = u32::MAX - 1;
        let deadline = now.wrapping_add(5);
        assert!(!reached(now, deadline));
        assert_eq!(left(now, deadline), 5);
        assert!(reached(now.wrapping_add(5), deadline));
        assert_eq!(left(now.wrapping_add(6), deadline), 0);
    }

    #[test]
    fn a_second_is_238_ticks_and_31_days_fit() {
        assert_eq!(ticks_of_seconds(1), 238);
        assert_eq!(ticks_of_seconds(0), 1);
        assert!(ticks_of_seconds(31 * 24 * 3600) < i32::MAX as u32);
        assert!(ms_of_ticks(ticks_of_seconds(900)).abs_diff(900_000) < 5);
    }
}
