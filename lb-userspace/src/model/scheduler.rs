//! Names of schedulers and their flags.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! schedulers {
    ($($variant:ident $name:literal,)*) => {
        /// A scheduler's name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum SchedulerKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl SchedulerKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As in `-s`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

schedulers! {
    Rr "rr",
    Wrr "wrr",
    Lc "lc",
    Wlc "wlc",
    Sed "sed",
    Nq "nq",
    Fo "fo",
    Ovf "ovf",
    Twos "twos",
    Sh "sh",
    Dh "dh",
    Mh "mh",
    Lblc "lblc",
    Lblcr "lblcr",
}

impl SchedulerKind {
    /// Where `-s` is not given.
    pub const DEFAULT: Self = Self::Wlc;
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|k| k.name() == s).ok_or(())
    }
}

/// Scheduler flags, `-b`: three bits, whose names depend on the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchedFlags(pub u8);

impl SchedFlags {
    /// `sh-fallback`, `mh-fallback`, `flag-1`: an unusable choice is replaced instead of refused.
    pub const FALLBACK: Self = Self(1 << 0);
    /// `sh-port`, `mh-port`, `flag-2`: the client's port is hashed too.
    pub const PORT: Self = Self(1 << 1);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As they are written for a scheduler.
    #[must_use]
    pub fn names(self, scheduler: SchedulerKind) -> Vec<&'static str> {
        let own = match scheduler {
            SchedulerKind::Sh => ["sh-fallback", "sh-port", "flag-3"],
            SchedulerKind::Mh => ["mh-fallback", "mh-port", "flag-3"],
            _ => ["flag-1", "flag-2", "flag-3"],
        };
        own.into_iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name).collect()
    }

    /// No flag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}
