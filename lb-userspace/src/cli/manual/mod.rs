//! Manual pages, from the sources of `--help`: the trees of both command lines, ipvsadm's usage, and the comments of
//! `configs/lvx.toml`. What no `--help` says (files, signals, statuses, examples) is written beside this file, as roff.

mod toml;

use super::request::Failure;
use super::verb::{Io, list, tree};
use super::{Name, help};
use crate::daemon::args::Args;
use clap::CommandFactory;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

/// Writes the manual pages of lvxd, lvxadm and lvx.toml into a directory.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Manual {
    /// Directory, which is made.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Manual {
    /// Writes them.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let failed = |path: &PathBuf, e: io::Error| Failure::new(1, format!("{}: {e}", path.display()));
        std::fs::create_dir_all(&self.directory).map_err(|e| failed(&self.directory, e))?;
        for (name, text) in pages() {
            let path = self.directory.join(name);
            std::fs::write(&path, text).map_err(|e| failed(&path, e))?;
            io.say(&format!("{}\n", path.display()))?;
        }
        Ok(())
    }
}

/// All pages, by the names of their files.
fn pages() -> Vec<(String, String)> {
    let mut pages = vec![
        ("lvxadm.8".into(), lvxadm()),
        ("lvxd.8".into(), page(&Args::command(), "lvxd", include_str!("lvxd.roff"))),
        ("lvx.toml.5".into(), toml::page()),
    ];
    for verb in tree().get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("lvxadm-{}", verb.get_name());
        // The page's own name has a dash, so that man finds it; the command line has none.
        let verb = verb.clone().bin_name(format!("lvxadm {}", verb.get_name()));
        pages.push((format!("{name}.8"), page(&verb, &name, VERB_END)));
    }
    pages
}

const VERB_END: &str = "\
.SH EXIT STATUS
0 when it was done, 2 for a wrong command line, another number when it failed; stderr says why.
.SH SEE ALSO
.BR lvxadm (8),
.BR lvxd (8)
";

/// First line of a page.
fn title(name: &str, section: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    // No date: the same source makes the same page.
    format!(".TH {} {section} \"\" \"LVX {version}\" \"LVX\"\n", name.to_uppercase())
}

/// A page of a command that clap parses.
fn page(command: &clap::Command, name: &str, end: &str) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut out = title(name, "8");
    let _ = write!(out, ".SH NAME\n{} \\- {}\n", text(name), text(about.trim_end_matches('.')));
    let man = Man::new(command.clone().disable_help_subcommand(true));
    let mut rest = Vec::new();
    // Writing to memory does not fail.
    let _ = man.render_synopsis_section(&mut rest);
    let _ = man.render_description_section(&mut rest);
    let _ = man.render_options_section(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    // roff's preamble is of use for the first part of a page alone.
    for line in rest.lines().filter(|l| !l.starts_with(".ie ") && !l.starts_with(".el ")) {
        let _ = writeln!(out, "{}", line.trim_end().replace("\\*(Aq", "\\(aq"));
    }
    tidy(&out) + end
}

/// Without paragraphs that have nothing in them, and breaks after breaks.
fn tidy(page: &str) -> String {
    let lines: Vec<&str> = page.lines().filter(|l| !l.is_empty()).collect();
    let mut out = String::with_capacity(page.len());
    for (i, line) in lines.iter().enumerate() {
        let next = lines.get(i + 1).copied().unwrap_or(".SH");
        let before = if i == 0 { "" } else { lines[i - 1] };
        if *line == ".br" && before == ".br" {
            continue;
        }
        let is_paragraph = *line == ".PP";
        if is_paragraph && (next.starts_with(".SH") || next.starts_with(".TP") || next == ".PP" || before.starts_with(".SH")) {
            continue;
        }
        let _ = writeln!(out, "{line}");
    }
    out
}

/// ipvsadm's page, as LVX does it.
fn lvxadm() -> String {
    let usage = help::usage(Name::Lvxadm);
    let (synopsis, rest) = usage.split_once("\nCommands:\n").unwrap_or((&usage, ""));
    let synopsis: String = synopsis.lines().skip(1).map(|l| format!("{}\n", l.trim_start())).collect();
    let mut out = title("lvxadm", "8");
    let _ = write!(out, ".SH NAME\nlvxadm \\- administers virtual services of LVX, as ipvsadm does those of the kernel\n");
    let _ = write!(out, ".SH SYNOPSIS\n{}", preformatted(&format!("{synopsis}lvxadm VERB ...\n")));
    out.push_str(include_str!("lvxadm-1.roff"));
    let _ = write!(out, ".SH COMMANDS AND OPTIONS OF IPVSADM\n{}", preformatted(&format!("Commands:\n{rest}{}", help::OPTIONS)));
    out.push_str(".SH VERBS\nEach has a page of its own, such as\n.BR lvxadm\\-status (8).\n");
    for (name, about) in list() {
        let _ = write!(out, ".TP\n.B lvxadm {}\n{}\n", text(&name), text(&about));
    }
    out.push_str(include_str!("lvxadm-2.roff"));
    out
}

/// Words as roff takes them literally.
fn text(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for line in words.lines() {
        if !out.is_empty() {
            out.push('\n');
        }
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        out.push_str(&line.replace('\\', "\\e").replace('-', "\\-"));
    }
    out
}

/// Lines that stay as they are.
fn preformatted(lines: &str) -> String {
    format!(".nf\n{}\n.fi\n", text(lines.trim_matches('\n')).replace("\n\n", "\n\\&\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_verb_and_option_has_its_place() {
        let pages = pages();
        let page = |name: &str| &pages.iter().find(|p| p.0 == name).unwrap_or_else(|| panic!("no {name}")).1;
        for (verb, _) in list() {
            assert!(page("lvxadm.8").contains(&format!("lvxadm {}", text(&verb))), "{verb}");
            assert!(page(&format!("lvxadm-{verb}.8")).contains(".SH SYNOPSIS"), "{verb}");
        }
        for option in super::super::options::OPTIONS {
            assert!(
                page("lvxadm.8").contains(&text(&format!("--{}", option.long))) || option.long == "version",
                "{}",
                option.long
            );
        }
        for option in Args::command().get_arguments().filter(|a| !a.is_hide_set()) {
            let long = option.get_long().unwrap_or_default();
            assert!(page("lvxd.8").contains(&text(&format!("--{long}"))), "{long}");
        }
        assert!(page("lvxadm.8").contains("transaction") && page("lvxd.8").contains("SIGHUP"));
    }

    /// By mandoc and groff, where they are.
    #[test]
    fn pages_are_sound() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in pages() {
            assert!(text.is_ascii() || name == "lvx.toml.5", "{name}");
            let path = dir.path().join(&name);
            std::fs::write(&path, text).unwrap();
            let run = |program: &str, args: &[&str]| {
                let output = Command::new(program).args(args).arg(&path).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100").output();
                output.ok().map(|o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned())
            };
            // Everything from warnings on; pages without a date are meant.
            let said = run("mandoc", &["-T", "lint", "-W", "warning"]).unwrap_or_default();
            let said: Vec<&str> = said.lines().filter(|l| !l.contains("missing date")).collect();
            assert!(said.is_empty(), "{name}: {said:#?}");
        }
    }
}
