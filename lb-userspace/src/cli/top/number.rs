//! Numbers and names in few columns.

/// A count or rate in at most five characters: `0.5`, `99999`, `123K`, `1.23M`. K is a thousand.
pub(super) fn short(v: f64) -> String {
    if !v.is_finite() || v < 0.05 {
        return "0".into();
    }
    if v < 9.95 {
        return if (v - v.round()).abs() < 0.05 { format!("{v:.0}") } else { format!("{v:.1}") };
    }
    if v < 99_999.5 {
        return format!("{v:.0}");
    }
    let mut v = v;
    for unit in ["K", "M", "G", "T", "P"] {
        v /= 1000.0;
        // Three digits, rounded before it is decided how many of them are behind the point.
        if v < 9.995 {
            return format!("{v:.2}{unit}");
        }
        if v < 99.95 {
            return format!("{v:.1}{unit}");
        }
        if v < 999.5 {
            return format!("{v:.0}{unit}");
        }
    }
    ">999P".into()
}

/// Text in so many columns, its middle left out where it is longer: both address and port of `[2001:db8::1]:80` can be told.
pub(super) fn fit(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return text.to_owned();
    }
    if width < 4 {
        return text.chars().take(width).collect();
    }
    let head = (width - 2).div_ceil(2);
    let tail = width - 2 - head;
    text.chars().take(head).chain("..".chars()).chain(text.chars().skip(n - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short() {
        for (v, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.5, "0.5"),
            (1.0, "1"),
            (9.94, "9.9"),
            (9.96, "10"),
            (99_999.4, "99999"),
            (99_999.6, "100K"),
            (999_499.0, "999K"),
            (999_600.0, "1.00M"),
            (12_340_000.0, "12.3M"),
            (f64::NAN, "0"),
            (1e30, ">999P"),
        ] {
            assert_eq!(short(v), text, "{v}");
        }
    }

    #[test]
    fn names_lose_their_middle() {
        assert_eq!(fit("-> 10.0.0.1:80", 20), "-> 10.0.0.1:80");
        assert_eq!(fit("-> [2001:db8:1:2:3:4:5:6]:8080", 20), "-> [2001:..5:6]:8080");
        assert_eq!(fit("abcdef", 3), "abc");
        assert_eq!(fit("abcdef", 0), "");
    }

    proptest! {
        #[test]
        fn never_wider(v in 0.0..1e20f64, text in ".{0,60}", width in 0usize..50) {
            prop_assert!(short(v).len() <= 5);
            prop_assert!(fit(&text, width).chars().count() <= width);
        }
    }
}
