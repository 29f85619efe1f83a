//! Reads a TOML document key by key. Whatever is read is thereby allowed; what nobody read
//! is an unknown key. Problems are collected, so that all of them can be told at once.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::place;
use super::{ConfigError, Problem, nearest, parse_duration, parse_size};

/// More problems than this help nobody.
const SHOWN: usize = 20;

/// What is collected while a file is read.
#[derive(Default)]
struct Findings {
    problems: Vec<(Option<usize>, String)>,
    warnings: Vec<(Option<usize>, String)>,
}

/// One file, and what was found in it.
pub(super) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    found: RefCell<Findings>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Document<'a> {
        Document { file, text, found: RefCell::default() }
    }

    /// Notes a problem at a byte offset.
    pub(super) fn problem(&self, at: usize, message: impl Into<String>) {
        self.found.borrow_mut().problems.push((Some(at), message.into()));
    }

    /// Notes a problem that has no single place.
    pub(super) fn problem_of_all(&self, message: impl Into<String>) {
        self.found.borrow_mut().problems.push((None, message.into()));
    }

    /// Notes something that works but is likely not meant.
    pub(super) fn warn(&self, at: Option<usize>, message: impl Into<String>) {
        self.found.borrow_mut().warnings.push((at, message.into()));
    }

    /// The value's problem is noted, the value is dropped.
    pub(super) fn check<T>(&self, at: usize, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(at, message)).ok()
    }

    /// The warnings, or all problems in the order of their places.
    pub(super) fn verdict(self) -> Result<Vec<String>, ConfigError> {
        let Findings { mut problems, warnings } = self.found.into_inner();
        if problems.is_empty() {
            let line = |(at, message): (Option<usize>, String)| match at {
                Some(at) if !self.file.is_empty() => {
                    let (line, column) = place(self.text, at);
                    format!("{}:{line}:{column}: {message}", self.file)
                }
                _ => message,
            };
            return Ok(warnings.into_iter().map(line).collect());
        }
        problems.sort_by_key(|(at, _)| at.unwrap_or(usize::MAX));
        problems.dedup();
        let more = problems.len().saturating_sub(SHOWN);
        let problems = problems
            .into_iter()
            .take(SHOWN)
            .map(|(at, message)| Problem { at: at.map(|at| place(self.text, at)), message });
        Err(ConfigError { file: self.file.to_owned(), problems: problems.collect(), more })
    }
}

/// A value and the place it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table of the document. When it is dropped, keys that nobody asked for are problems:
/// so the check cannot be forgotten.
pub(super) struct Table<'d, 'a> {
    pub(super) doc: &'d Document<'a>,
    /// For messages: `[server]`.
    title: String,
    /// Where its header or brace stands.
    pub(super) at: usize,
    table: &'d DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    ignored: Cell<bool>,
}

impl<'d, 'a> Table<'d, 'a> {
    pub(super) fn root(doc: &'d Document<'a>, table: &'d DeTable<'a>) -> Table<'d, 'a> {
        Table {
            doc,
            title: String::new(),
            at: 0,
            table,
            asked: RefCell::default(),
            ignored: Cell::default(),
        }
    }

    fn get(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Nobody will read this table: its keys are no problem of their own.
    pub(super) fn ignore(&self) {
        self.ignored.set(true);
    }

    /// Whether the key is there, without reading it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn mistaken(&self, value: &Spanned<DeValue<'a>>, key: &str, allowed: &str) {
        let is = value.get_ref().type_str();
        let message = format!("`{key}` is {} {is}, but must be {allowed}", article(is));
        self.doc.problem(value.span().start, message);
    }

    /// Text, parsed; the parser's message becomes the problem.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Given<T>> {
        let value = self.get(key)?;
        let at = value.span().start;
        let Some(text) = value.get_ref().as_str() else {
            self.mistaken(value, key, "text in quotes");
            return None;
        };
        let parsed = parse(text).map_err(|message| format!("`{key}`: {message}"));
        self.doc.check(at, parsed).map(|value| Given { value, at })
    }

    /// Like `parsed`, but a bare number is taken as its text: `listen = 8080`.
    pub(super) fn parsed_or_number<T>(
        &self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Given<T>> {
        let value = self.get(key)?;
        let at = value.span().start;
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => number.as_str(),
            _ => {
                self.mistaken(value, key, allowed);
                return None;
            }
        };
        let parsed = parse(text).map_err(|message| format!("`{key}`: {message}"));
        self.doc.check(at, parsed).map(|value| Given { value, at })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<Given<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(Given { value: flag, at: value.span().start }),
            None => {
                self.mistaken(value, key, "true or false, without quotes");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn count(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.mistaken(value, key, "a whole number, without quotes");
            return None;
        };
        let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
        let found = u64::from_str_radix(digits.trim_start_matches('+'), number.radix()).ok();
        let (low, high) = (range.start(), range.end());
        let message = format!("`{key}` is {}; allowed: {low} to {high}", number.as_str());
        let checked = found.filter(|found| range.contains(found)).ok_or(message);
        self.doc.check(value.span().start, checked)
    }

    /// A duration with its unit, within `range`.
    pub(super) fn duration(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let parse = |text: &str| {
            let found = parse_duration(text)?;
            if range.contains(&found) {
                return Ok(found);
            }
            let (low, high) = (human_time(*range.start()), human_time(*range.end()));
            Err(format!("{text} is out of range; allowed: {low} to {high}"))
        };
        self.parsed_or_number(key, "a duration with its unit, like \"10s\"", parse).map(|g| g.value)
    }

    /// A size in bytes with its unit, within `range`.
    pub(super) fn size(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let parse = |text: &str| {
            let found = parse_size(text)?;
            if range.contains(&found) {
                return Ok(found);
            }
            let (low, high) = (human(*range.start()), human(*range.end()));
            Err(format!("{text} is out of range; allowed: {low} to {high}"))
        };
        self.parsed_or_number(key, "a size with its unit, like \"64KiB\"", parse).map(|g| g.value)
    }

    /// A list of texts, each parsed; one text alone is a list of one.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Given<T>>> {
        let value = self.get(key)?;
        let one = |item: &Spanned<DeValue<'a>>| {
            let at = item.span().start;
            let Some(text) = item.get_ref().as_str() else {
                self.mistaken(item, key, "a list of texts in quotes");
                return None;
            };
            let parsed = parse(text).map_err(|message| format!("`{key}`: {message}"));
            self.doc.check(at, parsed).map(|value| Given { value, at })
        };
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(one).collect()),
            DeValue::String(_) => Some(one(value).into_iter().collect()),
            _ => {
                self.mistaken(value, key, "a list of texts in quotes");
                None
            }
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str) -> Option<Table<'d, 'a>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.mistaken(value, key, &format!("a table: write [{}]", self.path(key)));
            return None;
        };
        Some(self.below(format!("[{}]", self.path(key)), value, table))
    }

    /// A list of tables below this one.
    pub(super) fn tables(&self, key: &'static str) -> Option<Vec<Table<'d, 'a>>> {
        let value = self.get(key)?;
        let title = format!("[[{}]]", self.path(key));
        let wrong = |value: &Spanned<DeValue<'a>>| {
            self.mistaken(value, key, &format!("a list of tables: write {title}"));
        };
        let Some(items) = value.get_ref().as_array() else {
            wrong(value);
            return None;
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => tables.push(self.below(title.clone(), item, table)),
                None => wrong(item),
            }
        }
        Some(tables)
    }

    fn below(
        &self,
        title: String,
        value: &Spanned<DeValue<'a>>,
        table: &'d DeTable<'a>,
    ) -> Table<'d, 'a> {
        let at = value.span().start;
        Table {
            doc: self.doc,
            title,
            at,
            table,
            asked: RefCell::default(),
            ignored: Cell::default(),
        }
    }

    fn path(&self, key: &str) -> String {
        let parent = self.title.trim_matches(['[', ']']);
        if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
    }

    /// Notes that a key which must be there is not.
    pub(super) fn missing(&self, key: &str, help: &str) {
        self.doc.problem(self.at, format!("{} has no `{key}`: {help}", self.title));
    }
}

impl Drop for Table<'_, '_> {
    fn drop(&mut self) {
        if self.ignored.get() {
            return;
        }
        let asked = self.asked.borrow();
        let known: HashSet<&str> = asked.iter().copied().collect();
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if known.contains(name) {
                continue;
            }
            let place = if self.title.is_empty() { "here" } else { &self.title };
            let mut message = format!("unknown key `{}`", name.escape_debug());
            if let Some(near) = nearest(name, &asked) {
                message += &format!(" (did you mean `{near}`?)");
            }
            message += &format!("; allowed in {place}: {}", asked.join(", "));
            let message = message.replace("allowed in here", "allowed here");
            self.doc.problem(key.span().start, message);
        }
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

/// A size in the largest unit that divides it.
pub(super) fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{}GiB", b >> 30),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}

/// A duration in its largest whole unit.
pub(super) fn human_time(time: Duration) -> String {
    match time.as_millis() {
        ms if ms > 0 && ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}
