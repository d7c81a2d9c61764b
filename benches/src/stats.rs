//! Medians, percentiles and ratios.

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of at least one figure.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(low, high), min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    /// The spread of the ratios round by round: both were measured under the same conditions only within a round.
    pub(crate) fn of_ratios(figures: &[f64], base: &[f64]) -> Self {
        Self::of(&figures.iter().zip(base).map(|(figure, base)| figure / base).collect::<Vec<_>>())
    }
}

/// The smallest figure that at least `percent` of all are not above. `sorted` is not empty.
pub(crate) fn percentile(sorted: &[u64], percent: f64) -> u64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(
            Spread::of_ratios(&[2.0, 9.0, 8.0], &[1.0, 3.0, 2.0]),
            Spread { median: 3.0, min: 2.0, max: 4.0 }
        );
    }

    #[test]
    fn percentiles() {
        let sorted = (1..=200).collect::<Vec<_>>();
        assert_eq!(
            (percentile(&sorted, 50.0), percentile(&sorted, 99.0), percentile(&sorted, 100.0)),
            (100, 198, 200)
        );
        assert_eq!(percentile(&[7], 50.0), 7);
    }
}
