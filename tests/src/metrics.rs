//! What a service's `/metrics` say: the text that Prometheus reads.

/// One line of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// The metric's name; a histogram's has `_bucket`, `_sum` and `_count`.
    pub name: &'a str,
    labels: &'a str,
    /// Its value.
    pub value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self { name, labels: labels.trim_end_matches('}'), value: value.parse().ok()? })
    }

    /// What this label says.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let mut labels = self.labels.split(',').filter_map(|label| label.split_once('='));
        labels.find(|(other, _)| *other == name).map(|(_, value)| value.trim_matches('"'))
    }
}

/// All samples. The labels of our metrics have no commas.
pub fn samples(metrics: &str) -> impl Iterator<Item = Sample<'_>> {
    metrics.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_name_labels_and_a_value() {
        let text = "# HELP a 1\na_total 2\nb_bucket{service=\"router\",le=\"+Inf\"} 1.5\n";
        let all: Vec<Sample<'_>> = samples(text).collect();
        assert_eq!(
            all.iter().map(|one| (one.name, one.value)).collect::<Vec<_>>(),
            [("a_total", 2.0), ("b_bucket", 1.5)]
        );
        assert_eq!((all[1].label("le"), all[1].label("service")), (Some("+Inf"), Some("router")));
        assert_eq!((all[1].label("e"), all[0].label("le")), (None, None));
    }
}
