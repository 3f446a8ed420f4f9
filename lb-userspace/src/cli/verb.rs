//! LVX's own verbs: one file and one checked type each, all of them in one tree.
//!
//! The tree is the single source of `lvxadm help`, `lvxadm VERB --help`, manual pages and completions: a verb that is a variant of
//! [`Verb`] is in all of them.

use super::request::Failure;
use super::{Name, completions, decap, help, manual, options, plan, simulate, status, top};
use crate::api::{DEFAULT_SOCKET, SOCKET_VARIABLE};
use crate::client::Client;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::PathBuf;

/// The command line tool of LVX, a load balancer on XDP.
///
/// Does everything that ipvsadm does, by the same options, and has verbs of its own.
#[derive(Debug, Parser)]
#[command(name = "lvxadm", version, subcommand_required = true)]
struct Lvxadm {
    #[command(subcommand)]
    verb: Verb,
}

/// A verb with its checked arguments.
#[derive(Debug, Subcommand)]
enum Verb {
    Status(status::Status),
    Plan(plan::PlanFile),
    Apply(plan::Apply),
    Export(plan::Export),
    Decap(decap::Decap),
    Simulate(simulate::Simulate),
    Top(top::Top),
    Completions(completions::Completions),
    Manual(manual::Manual),
}

impl Verb {
    fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        match self {
            Self::Status(v) => v.run(io),
            Self::Plan(v) => v.run(io),
            Self::Apply(v) => v.run(io),
            Self::Export(v) => v.run(io),
            Self::Decap(v) => v.run(io),
            Self::Simulate(v) => v.run(io),
            Self::Top(v) => v.run(),
            Self::Completions(v) => v.run(io),
            Self::Manual(v) => v.run(io),
        }
    }
}

/// What a verb reads and writes.
pub(super) struct Io<'a> {
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub output: &'a mut dyn Write,
}

impl Io<'_> {
    /// Prints text, at once.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(|e| Failure::output(&e))
    }

    /// Prints a value, whose JSON is an object, as `docs/json.md` describes.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = super::json::document(value).map_err(|e| Failure::new(1, e.to_string()))?;
        self.say(&text)
    }
}

/// The option of every verb that talks to the daemon.
#[derive(Debug, clap::Args)]
pub(super) struct Daemon {
    /// Control socket of lvxd [default: $LVX_SOCKET, or /run/lvx/lvxd.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Daemon {
    /// The daemon.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        client(self.socket.clone())
    }
}

/// The daemon behind this socket, or the usual one.
pub(super) fn client(socket: Option<PathBuf>) -> Result<Client, Failure> {
    let usual = || std::env::var_os(SOCKET_VARIABLE).map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from);
    Client::new(&socket.unwrap_or_else(usual)).map_err(|e| Failure::new(1, format!("cannot start: {e}")))
}

/// The whole command line for manual pages and completions: verbs, and ipvsadm's options.
#[must_use]
pub fn command() -> clap::Command {
    options::documented(Lvxadm::command()).subcommand_required(false).after_help(help::DIFFERENCES)
}

/// The verbs alone, as they are parsed.
pub(super) fn tree() -> clap::Command {
    Lvxadm::command()
}

/// Names and first lines of the verbs' help.
pub(super) fn list() -> Vec<(String, String)> {
    let about = |c: &clap::Command| c.get_about().map(ToString::to_string).unwrap_or_default();
    Lvxadm::command().get_subcommands().filter(|c| !c.is_hide_set()).map(|c| (c.get_name().to_owned(), about(c))).collect()
}

/// `--socket PATH status` as `status --socket PATH`.
fn verb_first(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    let before = match words.first().map(String::as_str) {
        Some("--socket") => 2,
        Some(w) if w.starts_with("--socket=") => 1,
        _ => 0,
    };
    if words.len() > before {
        let verb = words.remove(before);
        words.insert(0, verb);
    }
    words
}

/// Runs a verb, if the words (without the program's name) begin with one; `None` if they do not.
pub(super) fn run(words: &[String], io: &mut Io<'_>) -> Option<Result<(), Failure>> {
    let words = verb_first(words);
    let first = words.first()?;
    if first.starts_with('-') {
        return None;
    }
    if words.len() == 1 && first == "help" {
        return Some(io.say(&help::text(Name::Lvxadm)));
    }
    if first != "help" && tree().find_subcommand(first).is_none() {
        return Some(Err(unknown(first)));
    }
    let line = std::iter::once("lvxadm").chain(words.iter().map(String::as_str));
    let parsed = Lvxadm::command().try_get_matches_from(line).and_then(|m| Lvxadm::from_arg_matches(&m));
    Some(match parsed {
        Ok(lvxadm) => lvxadm.verb.run(io),
        Err(e) if e.use_stderr() => Err(Failure::new(2, e.render().to_string().trim_end())),
        // Help was asked for.
        Err(e) => io.say(&e.render().to_string()),
    })
}

/// ipvsadm has no words without a dash in front, so this is a verb that was mistyped.
fn unknown(word: &str) -> Failure {
    let names: Vec<String> = list().into_iter().map(|(name, _)| name).collect();
    Failure::new(255, format!("`{word}' is no verb of lvxadm; there are {}; `lvxadm help' says more", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_socket_may_stand_before_the_verb() {
        assert_eq!(verb_first(&words("--socket /s status --json")), words("status --socket /s --json"));
        assert_eq!(verb_first(&words("--socket=/s status")), words("status --socket=/s"));
        for same in ["status --json", "-L -n", "", "--socket /s"] {
            assert_eq!(verb_first(&words(same)), words(same));
        }
    }

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
        Lvxadm::command().debug_assert();
        for (name, about) in list() {
            assert!(!about.is_empty(), "{name} has no help");
        }
    }

    fn said(line: &str) -> Option<Result<String, Failure>> {
        let mut output = Vec::new();
        let result = run(&words(line), &mut Io { input: &mut &b""[..], output: &mut output })?;
        Some(result.map(|()| String::from_utf8(output).unwrap()))
    }

    #[test]
    fn help_comes_from_the_tree() {
        let all = said("help").unwrap().unwrap();
        for (name, _) in list() {
            assert!(all.contains(&format!("lvxadm {name}")), "{name}: {all}");
            let one = said(&format!("{name} --help")).unwrap().unwrap();
            assert!(one.contains(&format!("Usage: lvxadm {name}")), "{one}");
            assert_eq!(said(&format!("help {name}")).unwrap().unwrap(), one);
        }
    }

    #[test]
    fn what_is_no_verb() {
        for line in ["-L -n", "", "--socket /s -L"] {
            assert!(said(line).is_none(), "{line}");
        }
        let f = said("sttus").unwrap().unwrap_err();
        assert!(f.status == 255 && f.text.contains("`sttus' is no verb") && f.text.contains("simulate"), "{f:?}");
        assert_eq!(said("status --nosuch").unwrap().unwrap_err().status, 2);
    }
}
