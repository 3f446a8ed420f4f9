//! The command line tool: ipvsadm's commands, and LVX's own verbs.
//!
//! Started under the name `ipvsadm` it says exactly what ipvsadm says; as `lvxadm` it adds the daemon's reason. Exit statuses are
//! ipvsadm's.

mod build;
mod completions;
mod decap;
mod help;
mod json;
mod manual;
pub mod names;
mod nss;
pub mod options;
mod plan;
pub mod popt;
pub mod print;
#[cfg(test)]
mod recorded;
pub mod request;
pub mod run;
mod save;
mod scripts;
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
    /// A complaint in ipvsadm's words, with LVX's detail where that is wanted.
    #[must_use]
    pub fn complain(self, text: &str, detail: &str) -> String {
        match self {
            Self::Ipvsadm => text.to_owned(),
            Self::Lvxadm => format!("{text}: {detail}"),
        }
    }
}

/// What the program stands in for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tool {
    /// The command line tool.
    Adm(Name),
    /// `ipvsadm-save`
    Save(Name),
    /// `ipvsadm-restore`
    Restore(Name),
}

impl Tool {
    fn of(program: Option<&OsString>) -> Self {
        let file = program.map(Path::new).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = if file.starts_with("ipvsadm") { Name::Ipvsadm } else { Name::Lvxadm };
        match file.split_once('-') {
            Some((_, "save")) => Self::Save(name),
            Some((_, "restore")) => Self::Restore(name),
            _ => Self::Adm(name),
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
    let tool = Tool::of(words.next().as_ref());
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    match start(tool, &words) {
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

fn start(tool: Tool, words: &[String]) -> Result<(), Failure> {
    let input = &mut stdin().lock();
    let output = &mut BufWriter::new(stdout().lock());
    if tool == Tool::Adm(Name::Lvxadm)
        && let Some(result) = verb::run(words, &mut verb::Io { input, output })
    {
        return result;
    }
    let names = Names::system();
    let (name, line) = match tool {
        Tool::Adm(name) => (name, parse(words, &names, name)),
        Tool::Save(name) => (name, scripts::save(words)),
        Tool::Restore(name) => (name, Ok(scripts::restore())),
    };
    let line = line.map_err(|f| match name {
        // ipvsadm looks for IPVS before it looks at its words.
        Name::Ipvsadm => verb::client(None).and_then(|c| run::permitted(&c)).err().unwrap_or(f),
        Name::Lvxadm => f,
    })?;
    let client = verb::client(line.socket)?;
    run::run(line.request, &mut run::Context { name, names: &names, client: &client, input, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_program() {
        for (path, tool) in [
            ("/usr/sbin/lvxadm", Tool::Adm(Name::Lvxadm)),
            ("ipvsadm", Tool::Adm(Name::Ipvsadm)),
            ("./ipvsadm-save", Tool::Save(Name::Ipvsadm)),
            ("/sbin/ipvsadm-restore", Tool::Restore(Name::Ipvsadm)),
            ("lvxadm-restore", Tool::Restore(Name::Lvxadm)),
            ("anything", Tool::Adm(Name::Lvxadm)),
            ("lvxadm-2", Tool::Adm(Name::Lvxadm)),
        ] {
            assert_eq!(Tool::of(Some(&path.into())), tool, "{path}");
        }
        assert_eq!(Tool::of(None), Tool::Adm(Name::Lvxadm));
    }
}
