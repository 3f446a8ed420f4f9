//! The command line tool: ipvsadm's commands, and LVX's own verbs.
//!
//! Started under the name `ipvsadm` it says exactly what ipvsadm says; as `lvxadm` it adds the daemon's reason. Exit statuses are
//! ipvsadm's.

mod completions;
mod decap;
mod help;
mod manual;
pub mod names;
mod nss;
pub mod options;
mod plan;
pub mod popt;
pub mod print;
pub mod request;
pub mod run;
mod save;
mod simulate;
mod sort;
mod status;
mod top;
mod values;
mod verb;

pub use verb::command;

use names::Names;
use request::{Failure, parse};
use std::ffi::OsString;
use std::io::{BufWriter, Write, stderr, stdin, stdout};
use std::path::Path;
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

/// The program; whether glibc is linked into it is for the binary to say.
#[must_use]
pub fn main(is_static: bool) -> ExitCode {
    if is_static {
        nss::built_in_only();
    }
    let mut words = std::env::args_os();
    let name = Name::of(words.next().as_ref());
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    match start(name, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            if !f.text.is_empty() {
                // Where nobody listens, nobody complains.
                let _ = writeln!(stderr(), "{}", f.text);
            }
            ExitCode::from(f.status)
        }
    }
}

fn start(name: Name, words: &[String]) -> Result<(), Failure> {
    let input = &mut stdin().lock();
    let output = &mut BufWriter::new(stdout().lock());
    if name == Name::Lvxadm
        && let Some(result) = verb::run(words, &mut verb::Io { input, output })
    {
        return result;
    }
    let names = Names::system();
    let line = parse(words, &names).map_err(|f| match name {
        // ipvsadm looks for IPVS before it looks at its words.
        Name::Ipvsadm => verb::client(None).and_then(|c| run::permitted(&c)).err().unwrap_or(f),
        Name::Lvxadm => f,
    })?;
    let client = verb::client(line.socket)?;
    run::run(line.request, &mut run::Context { name, names: &names, client: &client, input, output })
}
