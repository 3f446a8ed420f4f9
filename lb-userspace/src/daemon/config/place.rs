//! Where in the text something is, for errors.

/// Line and column, from 1, of a byte offset.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The key whose value the offset is in, with its table: `sizes.connections`. By the layout of the text, so it is a help to the
/// reader and no more.
pub(super) fn key(text: &str, at: usize) -> Option<String> {
    let line_end = text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |i| at + i);
    let before = text.get(..line_end)?;
    let name =
        before.lines().rev().map_while(|l| (!l.trim_start().starts_with('[') || !is_header(l)).then_some(l)).find_map(key_of)?;
    let table = before.lines().rev().find(|l| is_header(l)).map(|l| l.trim().trim_matches(['[', ']', ' ']));
    Some(match table {
        Some(table) => format!("{table}.{name}"),
        None => name.into(),
    })
}

fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains([',', '"', '\'', '='])
}

fn key_of(line: &str) -> Option<&str> {
    let name = line.split_once('=')?.0.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(bare)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let text = "mode = 1\n[sizes]\n  connections = \"ä\", x\ninterfaces = [\n  1,\n]";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find("[s").unwrap()), (2, 1));
        assert_eq!(line_and_column(text, text.find(", x").unwrap()), (3, 20));
        assert_eq!(line_and_column(text, 10_000), line_and_column(text, text.len()));
        assert_eq!(key(text, 7).as_deref(), Some("mode"));
        assert_eq!(key(text, text.find("\"ä").unwrap()).as_deref(), Some("sizes.connections"));
        assert_eq!(key(text, text.find("1,").unwrap()).as_deref(), Some("sizes.interfaces"));
        assert_eq!(key("", 0), None);
        assert_eq!(key("[sizes]", 3), None);
    }
}
