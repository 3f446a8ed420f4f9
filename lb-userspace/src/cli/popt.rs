//! Option parsing as popt does it, which ipvsadm uses: the same command lines are accepted, with the same complaints.
//!
//! Short options may be joined (`-Ln`), with an argument at the end (`-p60`, `-w=3`); long ones take `--name=value` or
//! `--name value`, and are never abbreviated. What is no option is left over, wherever it stands; `--` ends the options.

use std::collections::VecDeque;

/// Whether an option takes an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// None.
    Nothing,
    /// One, the next word whatever it looks like.
    Argument,
    /// One, unless the next word looks like an option.
    Maybe,
}

/// An option.
#[derive(Debug)]
pub struct Opt<T: 'static> {
    /// `--long`; empty if there is none.
    pub long: &'static str,
    /// `-s`.
    pub short: Option<char>,
    /// Argument.
    pub takes: Takes,
    /// What it means.
    pub tag: T,
}

/// A command line that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {reason}")]
pub struct PoptError {
    /// The word that it was in.
    pub option: String,
    /// As popt says it.
    pub reason: &'static str,
}

/// Goes through the words of a command line.
#[derive(Debug)]
pub struct Popt<T: 'static> {
    options: &'static [Opt<T>],
    words: VecDeque<String>,
    /// The word that is looked at: complaints show the whole of it.
    word: String,
    joined: Option<String>,
    only_words: bool,
    /// Words that are no options, in order.
    pub rest: VecDeque<String>,
}

/// An option that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// Which.
    pub tag: T,
    /// Its argument.
    pub argument: Option<String>,
    /// The word that it was in.
    pub written: String,
}

impl<T: Copy> Popt<T> {
    /// Over `words`, without the program's name.
    pub fn new(options: &'static [Opt<T>], words: impl IntoIterator<Item = String>) -> Self {
        Self {
            options,
            words: words.into_iter().collect(),
            word: String::new(),
            joined: None,
            only_words: false,
            rest: VecDeque::new(),
        }
    }

    /// The next option.
    ///
    /// # Errors
    /// An option that is unknown, or lacks its argument.
    pub fn next_option(&mut self) -> Result<Option<Found<T>>, PoptError> {
        loop {
            if let Some(joined) = self.joined.take() {
                return self.short(&joined).map(Some);
            }
            let Some(word) = self.words.pop_front() else { return Ok(None) };
            if self.only_words || !word.starts_with('-') || word == "-" {
                self.rest.push_back(word);
            } else if word == "--" {
                self.only_words = true;
            } else {
                self.word.clone_from(&word);
                match word.strip_prefix("--") {
                    Some(long) => return self.long(long).map(Some),
                    None => self.joined = Some(word[1..].to_owned()),
                }
            }
        }
    }

    fn long(&mut self, text: &str) -> Result<Found<T>, PoptError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let written = self.word.clone();
        let error = |reason| PoptError { option: written.clone(), reason };
        let o = self.options.iter().find(|o| o.long == name).ok_or_else(|| error("unknown option"))?;
        let argument = match (o.takes, value) {
            (Takes::Nothing, Some(_)) => return Err(error("option does not take an argument")),
            (Takes::Nothing, None) => None,
            (_, Some(value)) => Some(value),
            (takes, None) => self.argument(takes).map_err(error)?,
        };
        Ok(Found { tag: o.tag, argument, written })
    }

    fn short(&mut self, joined: &str) -> Result<Found<T>, PoptError> {
        let mut chars = joined.chars();
        let c = chars.next().unwrap_or('-');
        let rest = chars.as_str();
        let written = self.word.clone();
        let error = |reason| PoptError { option: written.clone(), reason };
        let o = self.options.iter().find(|o| o.short == Some(c)).ok_or_else(|| error("unknown option"))?;
        let argument = if o.takes == Takes::Nothing {
            if !rest.is_empty() {
                self.joined = Some(rest.to_owned());
            }
            None
        } else if rest.is_empty() {
            self.argument(o.takes).map_err(error)?
        } else {
            Some(rest.strip_prefix('=').unwrap_or(rest).to_owned())
        };
        Ok(Found { tag: o.tag, argument, written })
    }

    fn argument(&mut self, takes: Takes) -> Result<Option<String>, &'static str> {
        match (takes, self.words.front()) {
            (Takes::Maybe, Some(next)) if next.starts_with('-') => Ok(None),
            (Takes::Maybe, None) => Ok(None),
            (_, Some(_)) => Ok(self.words.pop_front()),
            (_, None) => Err("missing argument"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Tag {
        List,
        Numeric,
        Persistent,
        Weight,
    }

    static OPTIONS: &[Opt<Tag>] = &[
        Opt { long: "list", short: Some('L'), takes: Takes::Nothing, tag: Tag::List },
        Opt { long: "numeric", short: Some('n'), takes: Takes::Nothing, tag: Tag::Numeric },
        Opt { long: "persistent", short: Some('p'), takes: Takes::Maybe, tag: Tag::Persistent },
        Opt { long: "weight", short: Some('w'), takes: Takes::Argument, tag: Tag::Weight },
    ];

    /// Options with their arguments, and the words left over.
    type All = (Vec<(Tag, Option<String>)>, Vec<String>);

    fn all(line: &str) -> Result<All, String> {
        let mut p = Popt::new(OPTIONS, line.split_whitespace().map(str::to_owned));
        let mut found = Vec::new();
        while let Some(f) = p.next_option().map_err(|e| e.to_string())? {
            found.push((f.tag, f.argument));
        }
        Ok((found, p.rest.into()))
    }

    #[test]
    fn joined_options_and_arguments() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(all("-Lnw3").unwrap().0, [(Tag::List, None), (Tag::Numeric, None), (Tag::Weight, some("3"))]);
        assert_eq!(all("-w -1").unwrap().0, [(Tag::Weight, some("-1"))]);
        assert_eq!(all("-p -n").unwrap().0, [(Tag::Persistent, None), (Tag::Numeric, None)]);
        assert_eq!(all("-p 60 --weight=4").unwrap().0, [(Tag::Persistent, some("60")), (Tag::Weight, some("4"))]);
        assert_eq!(all("a -n b -- -L").unwrap(), (vec![(Tag::Numeric, None)], vec!["a".into(), "b".into(), "-L".into()]));
    }

    #[test]
    fn complaints_are_popts() {
        assert_eq!(all("--nosuch").unwrap_err(), "--nosuch: unknown option");
        assert_eq!(all("-Lq").unwrap_err(), "-Lq: unknown option");
        assert_eq!(all("-w").unwrap_err(), "-w: missing argument");
        assert_eq!(all("-Lw").unwrap_err(), "-Lw: missing argument");
        assert_eq!(all("--list=1").unwrap_err(), "--list=1: option does not take an argument");
        assert_eq!(all("---").unwrap_err(), "---: unknown option");
    }
}
