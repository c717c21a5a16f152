//! Few and skewed samples: medians, ranges, and what resampling says about them.

use super::random::Random;

/// The middle sample, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest and the largest.
pub(crate) fn range(samples: &[f64]) -> Option<(f64, f64)> {
    let least = samples.iter().copied().min_by(f64::total_cmp)?;
    let most = samples.iter().copied().max_by(f64::total_cmp)?;
    Some((least, most))
}

/// The mean of ratios; none of ratios that are not above zero.
pub(crate) fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() || ratios.iter().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
        return None;
    }
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    Some((sum / ratios.len() as f64).exp())
}

/// How often is resampled.
const DRAWS: usize = 4000;

/// The interval that holds `confidence` of the ratios of medians, `new` to `old`, of samples drawn again from both.
pub(crate) fn ratio_interval(new: &[f64], old: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let mut random = Random::new(2);
    let mut ratios = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let ratio = median(&draw(new, &mut random))? / median(&draw(old, &mut random))?;
        if ratio.is_finite() {
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let at = |share: f64| ratios.get(((ratios.len().saturating_sub(1)) as f64 * share).round() as usize).copied();
    Some((at(tail)?, at(1.0 - tail)?))
}

/// As many samples as there are, each chosen anew.
fn draw(samples: &[f64], random: &mut Random) -> Vec<f64> {
    (0..samples.len()).filter_map(|_| samples.get(random.below(samples.len())).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn means_of_ratios() {
        let mean = geometric_mean(&[2.0, 0.5, 4.0]).unwrap();
        assert!((mean - 4.0_f64.powf(1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    }

    #[test]
    fn an_interval_tells_noise_from_change() {
        let old = [1.0, 1.3, 0.9, 1.1, 1.0];
        let (least, most) = ratio_interval(&[1.1, 0.9, 1.2, 1.0, 1.05], &old, 0.99).unwrap();
        assert!(least < 1.0 && most > 1.0, "noise: {least} to {most}");
        let (least, _) = ratio_interval(&[2.1, 1.9, 2.2, 2.0, 2.05], &old, 0.99).unwrap();
        assert!(least > 1.2, "a change: {least}");
        assert_eq!(ratio_interval(&[], &old, 0.99), None);
    }
}
