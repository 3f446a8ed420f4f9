//! lvx.toml(5), from the comments of `configs/lvx.toml`: a comment is what its key means, one before a table is the table's, and
//! what is commented out in several tables at the end is an example.

use super::{preformatted, text, title};
use std::fmt::Write as _;

const SOURCE: &str = include_str!("../../../../configs/lvx.toml");

/// The page.
pub(super) fn page() -> String {
    let mut out = title("lvx.toml", "5");
    out.push_str(".SH NAME\nlvx.toml \\- configuration of lvxd\n.SH SYNOPSIS\n.I /etc/lvx/lvx.toml\n.SH DESCRIPTION\n");
    out.push_str(&body(SOURCE));
    out.push_str(include_str!("toml.roff"));
    out
}

/// `#key = value`, `#[table]`: without a space, this is what could be written.
fn commented_out(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
}

fn body(source: &str) -> String {
    let mut out = String::new();
    let mut words = String::new();
    let mut lines = source.lines().peekable();
    // Paragraphs right after a heading have no macro of their own.
    let mut fresh = true;
    while let Some(line) = lines.next() {
        let active = commented_out(line).unwrap_or(if line.starts_with('#') { "" } else { line }).trim_end();
        if active.starts_with("[[") {
            let mut example = format!("{active}\n");
            while let Some(next) = lines.peek() {
                if !next.starts_with('#') && !next.contains('=') && !next.is_empty() {
                    break;
                }
                let _ = writeln!(example, "{}", next.strip_prefix('#').unwrap_or(next));
                lines.next();
            }
            let _ = write!(out, ".SS {}\n{}{}", text(active), paragraph(&words, true), preformatted(&example));
            (words, fresh) = (String::new(), false);
        } else if active.starts_with('[') {
            let _ = write!(out, ".SS {}\n{}", text(active), paragraph(&words, true));
            fresh = words.is_empty();
            words.clear();
        } else if active.contains('=') {
            // Those without words of their own stand with the one before.
            let tag = if words.is_empty() && !fresh { ".TQ" } else { ".TP" };
            let _ = write!(out, "{tag}\n.B {}\n", text(active));
            if !words.is_empty() {
                let _ = writeln!(out, "{}", text(words.trim_end()));
            }
            (words, fresh) = (String::new(), false);
        } else if let Some(comment) = line.strip_prefix("# ") {
            let _ = writeln!(words, "{}", comment.trim());
        } else if line.is_empty() && !words.is_empty() {
            out.push_str(&paragraph(&words, fresh));
            (words, fresh) = (String::new(), false);
        }
    }
    out.push_str(&paragraph(&words, fresh));
    out
}

fn paragraph(words: &str, fresh: bool) -> String {
    if words.is_empty() {
        return String::new();
    }
    format!("{}{}\n", if fresh { "" } else { ".PP\n" }, text(words.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_entries() {
        let source = "# All of it.\n\n# What it is.\n#key = \"v\"\n\n# A table.\n[table]\n# One.\n#a = 1\n#b = 2\n\n# Many.\n\
                      #[[service]]\n#x = 1 # why\n#\n#[[service.server]]\n#y = 2\n";
        let expected = "All of it.\n.TP\n.B key = \"v\"\nWhat it is.\n.SS [table]\nA table.\n.TP\n.B a = 1\nOne.\n.TQ\n.B b = 2\n\
                        .SS [[service]]\nMany.\n.nf\n[[service]]\nx = 1 # why\n\\&\n[[service.server]]\ny = 2\n.fi\n";
        assert_eq!(body(source), expected);
    }

    #[test]
    fn every_key_of_the_file_is_on_the_page() {
        let page = page();
        for line in SOURCE.lines().filter_map(commented_out) {
            assert!(page.contains(&text(line.trim_end())), "{line}");
        }
    }
}
