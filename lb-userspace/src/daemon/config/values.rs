//! Single values of the configuration, checked while they are read.

use crate::model::MAX_TIMEOUT_S;
use clap::ValueEnum;
use serde::Deserialize;

/// Where in the network stack the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver; an error where the driver cannot.
    Native,
    /// In the kernel's generic hook: works on every interface, slower.
    Generic,
    /// In the driver, or else in the generic hook, with a warning.
    #[default]
    Auto,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And every request.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(l: LogLevel) -> Self {
        match l {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Count<const MIN: i64, const MAX: i64, const DEFAULT: i64>(u32);

impl<const MIN: i64, const MAX: i64, const DEFAULT: i64> Count<MIN, MAX, DEFAULT> {
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: i64, const MAX: i64, const DEFAULT: i64> Default for Count<MIN, MAX, DEFAULT> {
    fn default() -> Self {
        Self(DEFAULT as u32)
    }
}

impl<const MIN: i64, const MAX: i64, const DEFAULT: i64> TryFrom<i64> for Count<MIN, MAX, DEFAULT> {
    type Error = String;

    fn try_from(n: i64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&n) { Ok(Self(n as u32)) } else { Err(format!("{n} is not within {MIN} to {MAX}")) }
    }
}

/// A timeout.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Seconds(pub(super) u32);

impl TryFrom<i64> for Seconds {
    type Error = String;

    fn try_from(n: i64) -> Result<Self, String> {
        match u32::try_from(n) {
            Ok(s) if (1..=MAX_TIMEOUT_S).contains(&s) => Ok(Self(s)),
            _ => Err(format!("{n} s is not within 1 to {MAX_TIMEOUT_S} s")),
        }
    }
}

/// Permission bits, as a number (`0o660`) or in quotes (`"0660"`).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub(super) struct FileMode(pub(super) u32);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected permission bits like 0o660 or \"0660\"")]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl TryFrom<NumberOrText> for FileMode {
    type Error = String;

    fn try_from(v: NumberOrText) -> Result<Self, String> {
        let (mode, shown) = match v {
            NumberOrText::Number(n) => (u32::try_from(n).ok(), format!("0o{n:o}")),
            NumberOrText::Text(t) => (u32::from_str_radix(&t, 8).ok(), format!("\"{t}\"")),
        };
        match mode {
            Some(m) if m <= 0o777 => Ok(Self(m)),
            _ => Err(format!("{shown} is not within 0o000 to 0o777")),
        }
    }
}

/// An interface's name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct InterfaceName(pub(super) String);

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if super::is_interface_name(&name) { Ok(Self(name)) } else { Err(format!("`{name}` cannot be an interface's name")) }
    }
}
