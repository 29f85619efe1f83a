//! What is wrong with a configuration, and where.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1, the column in characters; `None`: no single place.
    pub at: Option<(usize, usize)>,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Everything that is wrong with a configuration. `Display` gives one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named; empty when there was none.
    pub file: String,
    /// In the order of their places.
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub more: usize,
}

impl ConfigError {
    /// An error of a whole file, or of flags when `file` is empty.
    pub fn whole(file: &str, message: impl Into<String>) -> ConfigError {
        let problems = vec![Problem { at: None, message: message.into() }];
        ConfigError { file: file.to_owned(), problems, more: 0 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match (self.file.as_str(), problem.at) {
                ("", _) => f.write_str("strait: ")?,
                (file, Some((line, column))) => write!(f, "{file}:{line}:{column}: ")?,
                (file, None) => write!(f, "{file}: ")?,
            }
            f.write_str(&problem.message)?;
        }
        if self.more > 0 {
            write!(f, "\n... and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Line and column of the byte at `offset`, both from 1; the column counts characters.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (line, column)
}
