//! How results are shown.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::latency::Latencies;
use super::meter::Costs;
use super::pace::Outcome;

/// The shares that are shown, with their names; 1 is the longest of all.
pub(crate) const SHARES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// Shows how far a bench is, on standard error.
pub(crate) struct Progress {
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal() }
    }

    /// Shows no state: what runs is not worth a line.
    pub(crate) fn silent() -> Progress {
        Progress { terminal: false }
    }

    /// Says what begins now.
    pub(crate) fn begin(&self, what: &str) {
        self.clear();
        crate::tell(what);
    }

    /// Shows `state` until there is another one. Only a terminal can forget a line.
    pub(crate) fn show(&self, state: &str) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r  {state}\x1b[K");
            let _ = std::io::stderr().flush();
        }
    }

    /// Forgets what was shown last.
    pub(crate) fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// One share of `latencies`, as it is shown in the columns of [`SHARES`].
pub(crate) fn at(latencies: &Latencies, share: f64) -> Option<Duration> {
    if share < 1.0 { latencies.percentile(share) } else { latencies.max() }
}

/// A time with as many digits as mean something.
pub(crate) fn millis(time: Option<Duration>) -> String {
    millis_of(time.map(|time| time.as_secs_f64() * 1e3))
}

/// Milliseconds with as many digits as mean something.
pub(crate) fn millis_of(millis: Option<f64>) -> String {
    let Some(millis) = millis else { return "-".to_owned() };
    match millis {
        0.0..10.0 => format!("{millis:.2} ms"),
        10.0..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

/// `value` with `digits` behind the point, or "-".
pub(crate) fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

/// Mebibytes, or "-".
pub(crate) fn mebibytes(bytes: Option<u64>) -> String {
    number(bytes.map(|bytes| bytes as f64 / (1 << 20) as f64), 1, " MiB")
}

/// The row of a table for `outcome`.
pub(crate) fn row(name: &str, outcome: &Outcome) -> Vec<String> {
    let cells = SHARES.iter().map(|(_, share)| millis(at(&outcome.latencies, *share)));
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// Requests that got no right answer, in words; empty without any.
pub(crate) fn failures<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut sum = 0;
    let mut first = None;
    for outcome in outcomes {
        sum += outcome.failed;
        first = first.or(outcome.error.as_deref());
    }
    if sum == 0 {
        return String::new();
    }
    format!("{sum} requests FAILED, first with: {}\n", first.unwrap_or_default())
}

/// A word of caution when other programs took more than a tenth of a core; else empty.
pub(crate) fn disturbed<'a>(costs: impl IntoIterator<Item = &'a Costs>) -> String {
    let most = costs.into_iter().filter_map(|costs| costs.cores(costs.others)).fold(0.0, f64::max);
    if most <= 0.1 {
        return String::new();
    }
    format!(
        "Other programs took up to {most:.1} cores meanwhile: only quiet runs can be compared.\n"
    )
}

/// An outcome, for programs. Times are in milliseconds.
pub(crate) fn outcome_json(outcome: &Outcome) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("requests".to_owned(), json!(outcome.latencies.count()));
    object.insert("failed".to_owned(), json!(outcome.failed));
    object.insert("first_error".to_owned(), json!(outcome.error));
    for (name, share) in SHARES {
        let time = at(&outcome.latencies, share).map(|time| time.as_secs_f64() * 1e3);
        object.insert(format!("{name}_ms"), json!(time));
    }
    Value::Object(object)
}

/// Rows under each other: the first column to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Words as the cells of a row.
pub(crate) fn cells(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_unknown_is_a_dash() {
        let rows = [cells(&["", "p50"]), cells(&["alone", "1.00 ms"]), cells(&["x", "-"])];
        assert_eq!(table(&rows), "           p50\nalone  1.00 ms\nx            -\n");
        assert_eq!(millis(None), "-");
        assert_eq!(millis(Some(Duration::from_micros(1234))), "1.23 ms");
        assert_eq!(millis(Some(Duration::from_micros(123_400))), "123 ms");
        assert_eq!(mebibytes(Some(3 << 19)), "1.5 MiB");
        assert_eq!(mebibytes(None), "-");
    }

    #[test]
    fn a_busy_machine_is_said_and_a_quiet_one_is_not() {
        let costs = |millis| Costs {
            wall: Duration::from_secs(1),
            others: Some(Duration::from_millis(millis)),
            ..Costs::default()
        };
        assert_eq!(disturbed([&costs(50), &Costs::default()]), "");
        assert!(disturbed([&costs(50), &costs(700)]).contains("0.7 cores"));
    }

    #[test]
    fn failures_are_said_and_none_are_not() {
        let mut outcome = Outcome::default();
        assert_eq!(failures([&outcome]), "");
        outcome.note(Duration::ZERO, Err(std::io::Error::other("cut")));
        assert_eq!(failures([&outcome, &outcome]), "2 requests FAILED, first with: cut\n");
        assert_eq!(outcome_json(&outcome)["p50_ms"], Value::Null);
    }
}
