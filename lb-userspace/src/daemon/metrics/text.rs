//! Prometheus' text format, version 0.0.4.
//!
//! Invariant: what is written can be parsed whatever the values of labels are.

use std::io::Write as _;

/// The format's media type.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of value a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only ever grows, until the daemon or its maps are new.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Text in the making.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: Vec<u8>,
}

/// Labels as they stand within the braces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Labels(Vec<u8>);

impl Labels {
    /// Of these names and values.
    pub(super) fn new(pairs: &[(&str, &str)]) -> Self {
        let mut out = Vec::new();
        for (i, (name, value)) in pairs.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=\"");
            escape(&mut out, value, true);
            out.push(b'"');
        }
        Self(out)
    }
}

/// Backslash and the end of a line, and in a label's value the quote, stand behind a backslash.
fn escape(out: &mut Vec<u8>, text: &str, quoted: bool) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quoted => out.extend_from_slice(b"\\\""),
            other => out.push(other),
        }
    }
}

impl Text {
    /// What is there so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Starts a metric. All its samples follow, before the next metric.
    pub(super) fn metric(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.out.extend_from_slice(b"# HELP ");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b' ');
        escape(&mut self.out, help, false);
        // Into memory: it does not fail.
        let _ = write!(self.out, "\n# TYPE {name} {kind}\n");
    }

    fn start(&mut self, name: &str, labels: &Labels) {
        self.out.extend_from_slice(name.as_bytes());
        if !labels.0.is_empty() {
            self.out.push(b'{');
            self.out.extend_from_slice(&labels.0);
            self.out.push(b'}');
        }
        self.out.push(b' ');
    }

    /// A whole number. Prometheus reads it as a floating point number: exact up to 2^53.
    pub(super) fn sample(&mut self, name: &str, labels: &Labels, value: u64) {
        self.start(name, labels);
        let _ = writeln!(self.out, "{value}");
    }

    /// Seconds.
    pub(super) fn seconds(&mut self, name: &str, labels: &Labels, value: f64) {
        self.start(name, labels);
        let _ = writeln!(self.out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_the_format() {
        let mut t = Text::default();
        t.metric("lvx_x_total", Kind::Counter, "What\\ever\n\"quoted\".");
        t.sample("lvx_x_total", &Labels::default(), u64::MAX);
        t.sample("lvx_x_total", &Labels::new(&[("a", "1"), ("b", "\"\\\n")]), 0);
        t.seconds("lvx_y", &Labels::default(), 0.000_25);
        let text = String::from_utf8(t.take()).unwrap();
        let expected = concat!(
            "# HELP lvx_x_total What\\\\ever\\n\"quoted\".\n# TYPE lvx_x_total counter\n",
            "lvx_x_total 18446744073709551615\nlvx_x_total{a=\"1\",b=\"\\\"\\\\\\n\"} 0\nlvx_y 0.00025\n"
        );
        assert_eq!(text, expected);
        assert_eq!(t.len(), 0);
    }

    /// A reader of its own for a sample line: name, labels, value.
    fn parse(line: &str) -> (String, Vec<(String, String)>, String) {
        let brace = line.find('{').unwrap();
        let (name, mut rest) = (line[..brace].to_owned(), &line[brace + 1..]);
        let mut labels = Vec::new();
        while !rest.starts_with('}') {
            rest = rest.strip_prefix(',').unwrap_or(rest);
            let (label, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("\\{c}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
        }
        (name, labels, rest[1..].trim().to_owned())
    }

    proptest! {
        #[test]
        fn every_value_of_a_label_comes_back(a in any::<String>(), b in "[\\\\\"\n,={} a]{0,20}", n in any::<u64>()) {
            let mut t = Text::default();
            t.sample("m", &Labels::new(&[("a", &a), ("b", &b)]), n);
            let text = String::from_utf8(t.take()).unwrap();
            prop_assert_eq!(text.matches('\n').count(), 1, "one line");
            let (name, labels, value) = parse(text.strip_suffix('\n').unwrap());
            prop_assert_eq!((name.as_str(), value), ("m", n.to_string()));
            prop_assert_eq!(labels, [("a".to_owned(), a), ("b".to_owned(), b)]);
        }

        #[test]
        fn every_help_is_one_line(help in "[\\\\\"\na]{0,20}") {
            let mut t = Text::default();
            t.metric("m", Kind::Gauge, &help);
            let text = String::from_utf8(t.take()).unwrap();
            let (first, second) = text.split_once('\n').unwrap();
            prop_assert_eq!(second, "# TYPE m gauge\n");
            let mut back = String::new();
            let mut chars = first.strip_prefix("# HELP m ").unwrap().chars();
            while let Some(c) = chars.next() {
                back.push(if c != '\\' { c } else if chars.next() == Some('n') { '\n' } else { '\\' });
            }
            prop_assert_eq!(back, help);
        }
    }
}
