//! What several runs showed of one figure: the one in the middle, and how far they differ.

use serde_json::{Value, json};

/// Figures of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of `figures`; `None` without any, or when one of them is unknown.
    pub(crate) fn of(figures: impl IntoIterator<Item = Option<f64>>) -> Option<Spread> {
        let mut all: Vec<f64> = figures.into_iter().collect::<Option<_>>()?;
        all.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*all.first()?, *all.last()?);
        let half = all.len() / 2;
        let median = if all.len() % 2 == 1 { all[half] } else { (all[half - 1] + all[half]) / 2.0 };
        Some(Spread { median, least, most })
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_the_middle_is_told_and_the_ends() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied().map(Some));
        assert_eq!(of(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
        assert_eq!(of(&[4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(of(&[]), None);
        assert_eq!(Spread::of([Some(1.0), None]), None);
    }
}
