//! A picture of latencies for a terminal of 80 columns: how many requests took how long,
//! alone and under load beside each other.

use std::time::Duration;

use super::latency::Latencies;
use super::results::{Of, Results};

/// Columns of one bar.
const WIDTH: usize = 27;
/// Rows for each doubling of the latency.
const FINE: i32 = 2;
/// Parts of a column, from one eighth on.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Pictures of all contestants, one below the other, on one scale.
pub(crate) fn text(results: &Results) -> String {
    let pairs = results.0.iter().map(|of| (of, of.latencies(false), of.latencies(true)));
    let pairs: Vec<(&Of, Latencies, Latencies)> = pairs.collect();
    let all = || pairs.iter().flat_map(|(_, alone, loaded)| [alone, loaded]);
    let Some(first) = all().filter_map(|some| some.percentile(0.0)).min() else {
        return String::new();
    };
    let mut text = String::new();
    for (of, alone, loaded) in &pairs {
        let longest = alone.max().max(loaded.max()).unwrap_or(first);
        let rows = row_of(first)..=row_of(longest);
        text.push_str(&format!("\n{:<12}{:<WIDTH$}       under load\n", of.name, "alone"));
        for row in rows {
            let (left, right) = (half(alone, row), half(loaded, row));
            let line = format!("{} │{left} │{right}", scale(row));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text + "\nEach bar: requests that took from this time on, up to the next one. Its length\n\
          is the square root of their share: a few slow ones are seen beside many fast.\n"
}

/// The row in which `time` lies.
fn row_of(time: Duration) -> i32 {
    (time.as_secs_f64().log2() * f64::from(FINE)).floor() as i32
}

/// Where `row` begins.
fn begin(row: i32) -> Duration {
    Duration::from_secs_f64((f64::from(row) / f64::from(FINE)).exp2())
}

fn scale(row: i32) -> String {
    let time = begin(row).as_secs_f64();
    match time {
        0.0..0.001 => format!("{:>7.0} us", time * 1e6),
        0.001..0.01 => format!("{:>7.1} ms", time * 1e3),
        0.01..1.0 => format!("{:>7.0} ms", time * 1e3),
        _ => format!("{time:>7.1} s "),
    }
}

/// The bar of one row, its share, and which percentiles lie in it.
fn half(latencies: &Latencies, row: i32) -> String {
    let count = latencies.between(begin(row), begin(row + 1));
    let share = count as f64 / latencies.count().max(1) as f64;
    let marks = [(0.5, "p50"), (0.99, "p99")]
        .into_iter()
        .filter(|(mark, _)| latencies.percentile(*mark).is_some_and(|time| row_of(time) == row));
    let marks: Vec<&str> = marks.map(|(_, name)| name).collect();
    let percent = match share * 100.0 {
        0.0 => String::new(),
        little @ 0.0..0.1 => format!(" {little:.2}%"),
        some => format!(" {some:.1}%"),
    };
    let bar = bar(share);
    let told = format!("{bar}{percent} {}", marks.join(" "));
    format!("{:<width$}", told.trim_end(), width = WIDTH + 6)
}

/// A bar for `share`; a square root, so that few slow requests are seen beside many fast ones.
fn bar(share: f64) -> String {
    let most = WIDTH - 8;
    let eighths = (share.sqrt() * most as f64 * 8.0).ceil() as usize;
    let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
    bar.extend((eighths % 8).checked_sub(1).map(|part| EIGHTHS[part]));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_lies_in_one_row_and_percentiles_are_marked() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|n| latencies.record(Duration::from_micros(n * 50)));
        let rows = row_of(Duration::from_micros(50))..=row_of(Duration::from_millis(50));
        let sum: u64 = rows.clone().map(|row| latencies.between(begin(row), begin(row + 1))).sum();
        assert_eq!(sum, 1000);
        let halves: Vec<String> = rows.map(|row| half(&latencies, row)).collect();
        let text = halves.join("\n");
        assert_eq!((text.matches("p50").count(), text.matches("p99").count()), (1, 1), "{text}");
        assert!(halves.iter().all(|half| half.chars().count() <= 33), "{text}");
    }

    #[test]
    fn one_of_many_is_still_seen() {
        assert_eq!(bar(0.0), "");
        assert!(!bar(0.0001).is_empty());
        assert!(bar(1.0).chars().count() <= WIDTH);
    }
}
