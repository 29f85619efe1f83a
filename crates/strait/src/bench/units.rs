//! Rates and delays as people type them.

use std::time::Duration;

/// What a rate may end with, and how many bytes per second one of it is.
const UNITS: [(&str, f64); 6] = [
    ("kbit", 125.0),
    ("mbit", 125_000.0),
    ("gbit", 125_000_000.0),
    ("kb/s", 1e3),
    ("mb/s", 1e6),
    ("gb/s", 1e9),
];

/// Rates below this, in bytes per second, would not end in the time of a bench.
const LEAST: f64 = 1_000.0;
/// Rates above this, in bytes per second, are not limits on any machine.
const MOST: f64 = 1e11;

/// A rate in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

/// Reads `100mbit` or `15MB/s`.
///
/// # Errors
/// What is possible, in words.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let lower = text.to_ascii_lowercase();
    let found = UNITS.iter().find_map(|(unit, worth)| Some((lower.strip_suffix(unit)?, worth)));
    let help = "write it like 100mbit or 15MB/s (kbit, mbit, gbit, kB/s, MB/s, GB/s)";
    let (number, worth) = found.ok_or_else(|| format!("{text:?} has no unit of a rate: {help}"))?;
    let number: f64 = number.trim().parse().map_err(|_| format!("not a number: {help}"))?;
    let rate = number * worth;
    if !(LEAST..=MOST).contains(&rate) {
        return Err("allowed: 1kB/s to 100GB/s".to_owned());
    }
    Ok(Rate(rate))
}

/// Reads `10ms` or `1s`; at most 10 seconds.
///
/// # Errors
/// What is possible, in words.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    let help = "write it like 10ms or 0.5s, at most 10s";
    let (number, worth) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').ok_or_else(|| format!("no unit: {help}"))?, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("not a number: {help}"))?;
    let seconds = number * worth;
    if !(0.0..=10.0).contains(&seconds) {
        return Err(format!("out of range: {help}"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads seconds, like `10` or `0.5`.
///
/// # Errors
/// What is possible, in words.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("allowed: 0.1 to 600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_or_bytes() {
        assert_eq!(rate("100mbit"), Ok(Rate(12_500_000.0)));
        assert_eq!(rate("100Mbit"), Ok(Rate(12_500_000.0)));
        assert_eq!(rate("15MB/s"), Ok(Rate(15_000_000.0)));
        assert_eq!(rate("1.5 kB/s"), Ok(Rate(1_500.0)));
        for wrong in ["", "100", "mbit", "-1mbit", "0mbit", "NaNmbit", "infmbit", "1e30gbit"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn delays_have_a_unit_and_an_end() {
        assert_eq!(delay("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(delay("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(delay("0ms"), Ok(Duration::ZERO));
        for wrong in ["", "10", "ms", "-1ms", "11s", "NaNs", "infms"] {
            assert!(delay(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_may_be_parts_of_one() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "0.05", "601", "-1", "NaN", "inf", "1s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
