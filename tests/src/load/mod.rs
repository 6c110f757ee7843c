//! A simulated fleet: spokes without clusters that speak the link over real mTLS, each with its own connection and
//! certificate, and viewers that take the time of each answer.

pub mod hub;
pub mod shape;
pub mod socket;
pub mod spoke;
pub mod viewer;

pub use hub::Hub;
pub use shape::Shape;
pub use spoke::{Fleet, Probe};
pub use viewer::Viewer;

/// The smallest time that at least `percent` of all do not exceed; NaN for none.
#[must_use]
pub fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }
}
