//! The repository's own rules: length of files, nothing unfinished, no paths of somebody's machine, the documents that must be
//! there, and documents that name only commands that exist.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::CommandFactory;

use crate::shell;

/// Lines of a source file, at most. About 300 is the aim.
const MAX_LINES: usize = 450;
/// What must be there and not be empty.
const DOCUMENTS: [&str; 6] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL"];
/// Files that no one writes by hand.
const GENERATED: [&str; 1] = ["Cargo.lock"];

/// Every rule, on every file; the error lists all violations.
pub(super) fn check() -> Result<()> {
    let root = shell::root();
    let mut violations = Vec::new();
    for name in DOCUMENTS {
        if fs::metadata(root.join(name)).map_or(true, |meta| meta.len() == 0) {
            violations.push(format!("{name}: absent or empty"));
        }
    }
    let mut files = Vec::new();
    walk(&root, &mut files)?;
    for file in files {
        // Captures and other binary files have no lines to check.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(&root).unwrap_or(&file);
        if GENERATED.iter().any(|generated| name == Path::new(generated)) {
            continue;
        }
        text_rules(name, &text, &mut violations);
    }
    if !violations.is_empty() {
        bail!("{} violations:\n  {}", violations.len(), violations.join("\n  "));
    }
    Ok(())
}

/// Files of the repository, without build output and version control.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read directory {}", directory.display()))? {
        let entry = entry.with_context(|| format!("read directory {}", directory.display()))?;
        let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
        if kind.is_dir() {
            if !["target", ".git"].iter().any(|skip| entry.file_name() == *skip) {
                walk(&entry.path(), files)?;
            }
        } else if kind.is_file() && entry.file_name() != ".git" {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn text_rules(name: &Path, text: &str, violations: &mut Vec<String>) {
    let is_rust = name.extension().is_some_and(|extension| extension == "rs");
    let is_markdown = name.extension().is_some_and(|extension| extension == "md");
    let lines = text.lines().count();
    if is_rust && lines > MAX_LINES {
        violations.push(format!("{}: {lines} lines, more than {MAX_LINES}", name.display()));
    }
    for (number, line) in text.lines().enumerate() {
        let mut found = |what: String| violations.push(format!("{}:{}: {what}", name.display(), number + 1));
        if is_rust {
            // In two pieces each, so that this file is within its own rules.
            for macro_name in [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")] {
                if line.contains(macro_name) {
                    found(format!("{macro_name}): finish it"));
                }
            }
        }
        if let Some(path) = machine_path(line) {
            found(format!("{path}: a path of one machine"));
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            found("a merge conflict".to_owned());
        }
        if is_markdown {
            for command in xtask_commands(line) {
                if crate::Cli::command().find_subcommand(&command).is_none() {
                    found(format!("`cargo xtask {command}` does not exist"));
                }
            }
        }
    }
}

/// A path into somebody's home or scratch directory.
fn machine_path(line: &str) -> Option<&'static str> {
    const PLACES: [&str; 4] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tmp/", "wt/")];
    PLACES.into_iter().find(|place| {
        line.match_indices(place).any(|(at, _)| {
            // The start of a path, not the middle of a relative one or of an address.
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-/}$".contains(c))
        })
    })
}

/// The commands after each `cargo xtask` in a line of a document. Placeholders and options are none.
fn xtask_commands(line: &str) -> Vec<String> {
    line.split("cargo xtask ")
        .skip(1)
        .flat_map(|rest| {
            let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_|".contains(*c)).collect();
            word.split('|').map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(name: &str, text: &str) -> Vec<String> {
        let mut violations = Vec::new();
        text_rules(Path::new(name), text, &mut violations);
        violations
    }

    #[test]
    fn finds_what_the_rules_forbid() {
        assert!(violations("a.rs", "fn main() {}\n").is_empty());
        assert_eq!(violations("a.rs", &"\n".repeat(MAX_LINES)).len(), 0);
        assert_eq!(violations("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
        assert_eq!(violations("a.rs", concat!("    todo", "!()\n")).len(), 1);
        assert_eq!(
            violations("a.toml", concat!("path = \"/ho", "me/ann/x\"\n")),
            [concat!("a.toml:1: /ho", "me/: a path of one machine")]
        );
        assert!(violations("a.md", concat!("see https://example.org/ho", "me/x\n")).is_empty());
        assert_eq!(violations("a.rs", concat!("<<<<", "<<< HEAD\n")).len(), 1);
    }

    #[test]
    fn documents_name_only_commands_that_exist() {
        assert!(violations("README.md", "Run `cargo xtask demo nat`, then cargo xtask build|test.").is_empty());
        assert_eq!(violations("README.md", "cargo xtask dance"), ["README.md:1: `cargo xtask dance` does not exist"]);
    }
}
