//! `lvxadm completions`: what shells need to complete options and verbs, from the tree of verbs.

use super::request::Failure;
use super::verb::{Io, command};
use clap_complete::{Generator, Shell as Of, generate};

/// Prints what a shell needs to complete lvxadm's options and verbs.
///
/// For bash: `lvxadm completions bash > /usr/share/bash-completion/completions/lvxadm`, or `source <(lvxadm completions bash)`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints them.
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<(), Failure> {
        let text = match self.shell {
            Shell::Bash => script(Of::Bash),
            Shell::Zsh => script(Of::Zsh),
            Shell::Fish => script(Of::Fish),
        };
        io.say(&text)
    }
}

fn script(shell: impl Generator) -> String {
    let mut out = Vec::new();
    generate(shell, &mut command(), "lvxadm", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What bash would offer for the last of these words.
    fn offered(words: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lvxadm");
        std::fs::write(&file, script(Of::Bash)).unwrap();
        let program = "set -e; source \"$1\"; shift; complete -p lvxadm >/dev/null; COMP_WORDS=(lvxadm \"$@\"); COMP_CWORD=$#; \
                       _lvxadm lvxadm \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", program, "bash"]).arg(&file).args(words);
        let output = bash.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_sources_it_and_completes_verbs_and_options() {
        assert_eq!(offered(&["sta"]), ["status"]);
        assert_eq!(offered(&["--add-s"]), ["--add-service", "--add-server"]);
        assert_eq!(offered(&["-A", "--sche"]), ["--scheduler", "--sched-flags"].map(str::to_owned));
        assert_eq!(offered(&["status", "--js"]), ["--json"]);
        assert_eq!(offered(&["completions", "z"]), ["zsh"]);
        let all = offered(&[""]);
        for (verb, _) in super::super::verb::list() {
            assert!(all.contains(&verb), "{verb}: {all:?}");
        }
    }

    #[test]
    fn every_shell_has_every_verb_and_long_option() {
        for text in [script(Of::Bash), script(Of::Zsh), script(Of::Fish)] {
            for (verb, _) in super::super::verb::list() {
                assert!(text.contains(&verb), "{verb}");
            }
            for option in super::super::options::OPTIONS {
                assert!(text.contains(option.long), "{}", option.long);
            }
        }
    }
}
