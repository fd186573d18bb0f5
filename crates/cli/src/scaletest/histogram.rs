//! How long things took: counts in buckets that grow with the time, so that a percentile is right to within
//! 1/32 of itself at any scale. By hand: it is shorter than what one would write around a library.

use std::time::Duration;

/// Steps within a doubling.
const STEPS: u64 = 32;
/// Bits of a step.
const BITS: u32 = STEPS.trailing_zeros();

/// Counted times.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Counts everything that another has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.total
    }

    /// The time in ms that this share (0..=1) of them did not exceed; `None` where there are none.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Some(upper(bucket).min(self.max) as f64 / 1000.0);
            }
        }
        Some(self.max as f64 / 1000.0)
    }
}

/// Below one doubling of steps each microsecond has its own bucket; above, each doubling has its steps.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let shift = micros.ilog2() - BITS;
    (u64::from(shift) * STEPS + (micros >> shift)) as usize
}

/// The largest time of a bucket, in microseconds.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    (((bucket % STEPS) + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for micros in (0..5_000).chain([1 << 20, (1 << 20) + 7, 59_999_999]) {
            let bucket = bucket(micros);
            assert!(upper(bucket) >= micros, "{micros}");
            assert!(bucket == 0 || upper(bucket - 1) < micros, "{micros}");
            assert!(upper(bucket) <= micros + micros / STEPS, "{micros}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut all = Histogram::default();
        assert_eq!(all.percentile(0.5), None);
        let mut late = Histogram::default();
        for ms in 1..=100 {
            let half = if ms % 2 == 0 { &mut all } else { &mut late };
            half.add(Duration::from_millis(ms));
        }
        all.merge(&late);
        assert_eq!(all.count(), 100);
        for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = all.percentile(share).unwrap();
            assert!((expected..expected * 1.04).contains(&found), "{share}: {found}");
        }
    }
}
