//! Streams of connections for simulations: read from a trace, or random.

use super::twos::{below, random};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Microseconds of a second.
pub(super) const SECOND_US: u64 = 1_000_000;
/// Most connections of one run: beyond it a typing error is likelier than a wish.
pub const MAX_ARRIVALS: u64 = 50_000_000;

/// A connection that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// When.
    pub at_us: u64,
    /// How long it is active.
    pub hold_us: u64,
    /// From where.
    pub client: IpAddr,
    /// From which port.
    pub port: u16,
}

/// How long connections last.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Holding {
    /// All the same, seconds.
    Fixed(f64),
    /// Exponential, mean in seconds.
    Exponential(f64),
    /// Pareto: shape and smallest value in seconds. Few connections last very long; the mean is infinite up to shape 1.
    Pareto {
        /// Shape.
        shape: f64,
        /// Smallest, seconds.
        least: f64,
    },
}

/// Text that is no [`Holding`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is none of fixed:SECONDS, exp:MEAN and pareto:SHAPE:SMALLEST, with numbers above 0")]
pub struct ParseHoldingError(String);

impl FromStr for Holding {
    type Err = ParseHoldingError;

    fn from_str(text: &str) -> Result<Self, ParseHoldingError> {
        let wrong = || ParseHoldingError(text.to_owned());
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or("");
        let numbers: Vec<f64> = parts.map(|p| p.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        if !numbers.iter().all(|n| n.is_finite() && *n > 0.0) {
            return Err(wrong());
        }
        match (name, numbers.as_slice()) {
            ("fixed", [s]) => Ok(Self::Fixed(*s)),
            ("exp" | "exponential", [mean]) => Ok(Self::Exponential(*mean)),
            ("pareto", [shape, least]) => Ok(Self::Pareto { shape: *shape, least: *least }),
            _ => Err(wrong()),
        }
    }
}

impl Holding {
    /// A value for a number drawn from (0, 1].
    fn draw(self, u: f64) -> f64 {
        match self {
            Self::Fixed(s) => s,
            Self::Exponential(mean) => -u.ln() * mean,
            Self::Pareto { shape, least } => least / u.powf(1.0 / shape),
        }
    }
}

/// A random stream of arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// New connections a second, on average; their distances are exponential.
    pub rate: f64,
    /// How long they last.
    pub holding: Holding,
    /// No more arrive after this, seconds.
    pub duration_s: f64,
    /// Distinct client addresses.
    pub clients: u32,
    /// The same seed gives the same stream.
    pub seed: u64,
}

impl Generated {
    /// The stream.
    pub fn arrivals(self) -> impl Iterator<Item = Arrival> {
        let mut drawn = 0;
        let mut draw = move || {
            drawn += 1;
            random(self.seed, drawn)
        };
        let unit = |r: u64| ((r >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let mut now_s = 0.0;
        let mut left = MAX_ARRIVALS;
        std::iter::from_fn(move || {
            now_s += -unit(draw()).ln() / self.rate;
            let hold_s = self.holding.draw(unit(draw()));
            let client = below(draw(), u64::from(self.clients.max(1))) as u32;
            let port = 1024 + below(draw(), 64_512) as u16;
            left = left.checked_sub(1)?;
            (now_s < self.duration_s).then_some(Arrival {
                at_us: micros(now_s),
                hold_us: micros(hold_s),
                // 10.0.0.0/8, not in order: neighbours in number are not neighbours in address.
                client: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | (client.wrapping_mul(0x9e_3779) & 0x00ff_ffff))),
                port,
            })
        })
    }
}

pub(super) fn micros(seconds: f64) -> u64 {
    (seconds * SECOND_US as f64) as u64
}

/// Why a trace cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TraceError {
    /// A line that is not an arrival.
    #[error("line {line}: `{text}` is not `TIME HOLDING [CLIENT[:PORT]]`, with times in seconds")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Times run backwards.
    #[error("line {line}: earlier than the line before it")]
    Order {
        /// Counted from 1.
        line: usize,
    },
}

/// Arrivals of a trace: lines of time, holding time and, where it matters, client, separated by blanks or commas; `#` starts a comment.
///
/// # Errors
/// A line that is none.
pub fn parse_trace(text: &str) -> Result<Vec<Arrival>, TraceError> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (n, whole) in text.lines().enumerate() {
        let line = n + 1;
        let content = whole.split('#').next().unwrap_or("");
        let words: Vec<&str> = content.split([' ', '\t', ',']).filter(|w| !w.is_empty()).collect();
        if words.is_empty() {
            continue;
        }
        let wrong = || TraceError::Line { line, text: whole.trim().to_owned() };
        let time = |w: &str| w.parse::<f64>().ok().filter(|t| t.is_finite() && *t >= 0.0 && *t < 1e12).map(micros);
        let (at, hold, from) = match words.as_slice() {
            [at, hold] => (at, hold, None),
            [at, hold, from] => (at, hold, Some(from)),
            _ => return Err(wrong()),
        };
        let (client, port) = match from {
            None => (IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | line as u32)), 1024),
            Some(from) => match (from.parse::<std::net::SocketAddr>(), from.parse::<IpAddr>()) {
                (Ok(a), _) => (a.ip(), a.port()),
                (_, Ok(a)) => (a, 1024),
                _ => return Err(wrong()),
            },
        };
        let at_us = time(at).ok_or_else(wrong)?;
        if arrivals.last().is_some_and(|l| l.at_us > at_us) {
            return Err(TraceError::Order { line });
        }
        arrivals.push(Arrival { at_us, hold_us: time(hold).ok_or_else(wrong)?, client, port });
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(holding: Holding) -> impl Iterator<Item = Arrival> {
        Generated { rate: 200.0, holding, duration_s: 60.0, clients: 5000, seed: 1 }.arrivals()
    }

    #[test]
    fn traces_are_checked() {
        assert_eq!(parse_trace("1 1\n0 1"), Err(TraceError::Order { line: 2 }));
        for text in ["x 1", "1", "1 2 3 4", "-1 1", "1 nan", "1 1 host", "1e300 1"] {
            assert!(matches!(parse_trace(text), Err(TraceError::Line { line: 1, .. })), "{text}");
        }
        for text in ["", "fixed", "fixed:0", "exp:-1", "exp:inf", "pareto:1", "fixed:1:2", "uniform:1"] {
            assert!(text.parse::<Holding>().is_err(), "{text}");
        }
    }

    #[test]
    fn generated_streams_have_their_means_and_repeat() {
        let all: Vec<Arrival> = stream(Holding::Exponential(2.0)).collect();
        let mean = all.iter().map(|a| a.hold_us as f64 / 1e6).sum::<f64>() / all.len() as f64;
        assert!((11_500..12_500).contains(&all.len()) && (1.9..2.1).contains(&mean), "{} {mean}", all.len());
        assert!(stream(Holding::Exponential(2.0)).eq(all.iter().copied()));
        assert!(stream(Holding::Pareto { shape: 2.0, least: 0.5 }).all(|a| a.hold_us >= 500_000));
    }
}
