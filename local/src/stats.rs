//! Quantiles of measured values.

/// The smallest of `values` that at least the fraction `quantile` of them do not exceed; `None` if there are no values.
pub fn quantile<T: PartialOrd + Copy>(mut values: Vec<T>, quantile: f64) -> Option<T> {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "the number of values is far from 2^52, and the quantile is positive"
    )]
    let rank = (values.len() as f64 * quantile).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// The median of `values`; `None` if there are no values.
pub fn median<T: PartialOrd + Copy>(values: Vec<T>) -> Option<T> {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        for (fraction, expected) in [(0.5, 5), (0.99, 10), (1.0, 10), (0.01, 1), (0.0, 1)] {
            assert_eq!(
                quantile((1..=10).rev().collect(), fraction),
                Some(expected),
                "{fraction}"
            );
        }
        assert_eq!(median(vec![0.5, 2.5, 1.5]), Some(1.5));
        assert_eq!(median::<u8>(Vec::new()), None);
    }
}
