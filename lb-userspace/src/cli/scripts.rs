//! The two scripts that come with ipvsadm, which are other names of this program: `ipvsadm-save` and `ipvsadm-restore`.

use super::options::About;
use super::request::{Failure, Format, Line, Request};

const HELP: &str = "\
ipvsadm-save: Script to save the IPVS table to stdout.
   With the -n option, prints out the table in numeric format.";

/// `ipvsadm-save [-n]`: words that are no options are passed over.
pub(super) fn save(words: &[String]) -> Result<Line, Failure> {
    if words.iter().any(|w| w.starts_with('-') && w != "-n") {
        return Err(Failure::new(1, HELP));
    }
    let format = if words.iter().any(|w| w == "-n") { Format::of([About::Numeric]) } else { Format::default() };
    Ok(Line { request: Request::Save(format), socket: None })
}

/// `ipvsadm-restore`: clears what there is, passes over comments, and restores; the script takes no notice of its words. Here it
/// is one change, all or nothing.
pub(super) fn restore() -> Line {
    Line { request: Request::Restore { replace: true }, socket: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_as_the_script_takes_its_words() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let numeric = |line: &str| match save(&words(line)).map(|l| l.request) {
            Ok(Request::Save(f)) => Some(f.has(About::Numeric)),
            _ => None,
        };
        assert_eq!(numeric(""), Some(false));
        assert_eq!(numeric("-n"), Some(true));
        assert_eq!(numeric("file -n"), Some(true));
        assert_eq!(numeric("-h"), None);
        assert_eq!(save(&words("-n -x")).unwrap_err().status, 1);
    }
}
