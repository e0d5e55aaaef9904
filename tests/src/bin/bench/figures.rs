//! What was measured: rows of the table, of which some are points of a plot too.

/// One figure, as often as it was measured.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) note: String,
    /// Where it is drawn, if it is.
    pub(crate) place: Option<Place>,
}

/// A point of a plot, but for its height: that is the figure itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The plot's title: what has the same one is drawn together.
    pub(crate) plot: String,
    /// What grows to the right.
    pub(crate) axis: &'static str,
    /// How much of that.
    pub(crate) x: usize,
    /// The line that the point is of.
    pub(crate) line: &'static str,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        let row = Self { name: name.into(), unit, values, note: String::new(), place: None };
        eprintln!("{}: {:.3} {unit}", row.name, median(&row.values));
        row
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Its lowest value and its highest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let among = |pick: fn(f64, f64) -> f64| self.values.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        (among(f64::min), among(f64::max))
    }
}

/// How long something took, run by run: half of the times, and all but a hundredth.
pub(crate) fn latency_rows(what: &str, runs_ms: &[Vec<f64>]) -> [Row; 2] {
    let row = |name, share| Row::new(format!("{what}: {name}"), "ms", percentiles(runs_ms, share));
    [row("p50", 0.5), row("p99", 0.99)]
}

/// This percentile of each run's values, run by run.
pub(crate) fn percentiles(runs: &[Vec<f64>], share: f64) -> Vec<f64> {
    runs.iter().map(|values| percentile(values, share)).collect()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A number with its thousands set apart.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        for (share, expected) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (1.0, 200.0)] {
            assert_eq!(percentile(&values, share), expected, "{share}");
        }
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_spread_is_from_the_lowest_value_to_the_highest() {
        assert_eq!(Row::new("a", "s", vec![2.0, 1.0, 3.0]).spread(), (1.0, 3.0));
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
