//! The command line tool: ipvsadm's commands, and LVX's own verbs.
//!
//! Started under the name `ipvsadm` it says exactly what ipvsadm says; as `lvxadm` it adds the daemon's reason. Exit statuses are
//! ipvsadm's.

mod decap;
mod help;
pub mod names;
pub mod options;
pub mod popt;
pub mod print;
pub mod request;
pub mod run;
mod save;
mod sort;
mod status;
mod values;

use crate::api::{DEFAULT_SOCKET, SOCKET_VARIABLE};
use crate::client::Client;
use names::Names;
use request::{Failure, parse};
use std::ffi::OsString;
use std::io::{BufWriter, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The name that the program was started under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// Its own.
    Lvxadm,
    /// That of the program that it stands in for.
    Ipvsadm,
}

impl Name {
    fn of(program: Option<&OsString>) -> Self {
        match program.map(Path::new).and_then(Path::file_name) {
            Some(name) if name == "ipvsadm" => Self::Ipvsadm,
            _ => Self::Lvxadm,
        }
    }

    /// A complaint in ipvsadm's words, with LVX's detail where that is wanted.
    #[must_use]
    pub fn complain(self, text: &str, detail: &str) -> String {
        match self {
            Self::Ipvsadm => text.to_owned(),
            Self::Lvxadm => format!("{text}: {detail}"),
        }
    }
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = Name::of(words.next().as_ref());
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    match start(name, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            if !f.text.is_empty() {
                eprintln!("{}", f.text);
            }
            ExitCode::from(f.status)
        }
    }
}

/// The control socket, unless a command line names another.
fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

fn client(socket: Option<PathBuf>) -> Result<Client, Failure> {
    Client::new(&socket.unwrap_or_else(default_socket)).map_err(|e| Failure::new(1, format!("cannot start: {e}")))
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

/// The scheduler simulation has a command line of its own.
fn simulate(words: &[String]) -> Result<(), Failure> {
    let status = crate::cli_simulate::run(words.iter().map(OsString::from).collect());
    if status == ExitCode::SUCCESS { Ok(()) } else { Err(Failure::new(2, "")) }
}

fn start(name: Name, words: &[String]) -> Result<(), Failure> {
    let output = &mut BufWriter::new(stdout().lock());
    if name == Name::Lvxadm {
        let words = verb_first(words);
        match words.first().map(String::as_str) {
            Some("status") => return status::main(&words, output),
            Some("decap") => return decap::main(&words, output),
            Some("simulate") => return simulate(&words),
            _ => {}
        }
    }
    let names = Names::system();
    let line = parse(words, &names)?;
    let client = client(line.socket)?;
    run::run(line.request, &mut run::Context { name, names: &names, client: &client, input: &mut stdin().lock(), output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_may_stand_before_the_verb() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(verb_first(&words("--socket /s status --json")), words("status --socket /s --json"));
        assert_eq!(verb_first(&words("--socket=/s status")), words("status --socket=/s"));
        for same in ["status --json", "-L -n", "", "--socket /s"] {
            assert_eq!(verb_first(&words(same)), words(same));
        }
    }
}
