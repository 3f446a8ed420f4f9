//! Logs: to stderr, with a clock and colours for people, or with priorities where stderr is the journal.
//!
//! systemd says in `JOURNAL_STREAM` which file it gave as stderr. Only if that is still stderr, lines begin with `<N>`
//! (sd-daemon(3)), which the journal takes off: so `journalctl -p warning` works, and a shell script that inherited the variable
//! and redirected the daemon gets plain lines. A text of several lines has its priority on each, as the journal takes each for a
//! message.

use super::config::LogLevel;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::os::fd::AsFd;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether `JOURNAL_STREAM` (`device:inode`) names this file.
fn names(variable: &str, file: impl AsFd) -> bool {
    let Some((device, inode)) = variable.split_once(':') else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    rustix::fs::fstat(file).is_ok_and(|s| s.st_dev == device && s.st_ino == inode)
}

fn to_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|v| names(&v, std::io::stderr()))
}

/// As syslog counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Text with a priority before each of its lines, ended by a line's end.
fn prefixed(priority: u8, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for line in text.lines() {
        let _ = writeln!(out, "<{priority}>{line}");
    }
    out
}

/// Events as the journal wants them: no clock, no level in words.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        ctx.format_fields(Writer::new(&mut text), event)?;
        writer.write_str(&prefixed(priority(*event.metadata().level()), &text))
    }
}

/// Starts logging on stderr.
pub(super) fn start(level: LogLevel) {
    let format = tracing_subscriber::fmt()
        // A log that cannot be written must not end the daemon, and a complaint about it on stderr would.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_max_level(Level::from(level))
        .with_target(false);
    // One subscriber a process: a second daemon in one process (tests) keeps the first's.
    let _ = if to_journal() {
        format.with_ansi(false).event_format(Journal).try_init()
    } else {
        format.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}

/// The last words: why the daemon does not start, or ended.
pub(super) fn fail(error: &dyn std::error::Error) {
    let text = format!("lvxd: {error}\n");
    let text = if to_journal() { prefixed(priority(Level::ERROR), &text) } else { text };
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn priorities_are_before_every_line() {
        assert_eq!(prefixed(4, "one\ntwo\n"), "<4>one\n<4>two\n");
        assert_eq!(prefixed(6, ""), "");
    }

    #[test]
    fn the_variable_must_name_the_very_file() {
        let file = tempfile::tempfile().unwrap();
        let m = file.metadata().unwrap();
        assert!(names(&format!("{}:{}", m.dev(), m.ino()), &file));
        for other in [format!("{}:{}", m.dev(), m.ino() + 1), "8".into(), "a:b".into(), String::new()] {
            assert!(!names(&other, &file), "{other}");
        }
    }

    #[test]
    fn events_have_their_priority_and_fields() {
        let mut file = tempfile::tempfile().unwrap();
        let writer = file.try_clone().unwrap();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::sync::Mutex::new(writer)).event_format(Journal);
        tracing::subscriber::with_default(log.finish(), || {
            tracing::error!("broken\nin two");
            tracing::warn!(uid = 7, "odd");
            tracing::info!("ready");
            tracing::debug!("not shown");
        });
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "<3>broken\n<3>in two\n<4>odd uid=7\n<6>ready\n");
    }
}
