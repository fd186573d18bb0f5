//! The seed's choices.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// Everything random in a run comes from here.
pub struct Dice(ChaCha20Rng);

impl Dice {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// 0..`limit`; 0 when there is nothing to choose from.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.0.random_range(0..limit) }
    }

    /// True in so many cases of a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of these, by weight.
    pub fn weigh<T: Copy>(&mut self, from: &[(u32, T)]) -> T {
        let total: u32 = from.iter().map(|(weight, _)| weight).sum();
        let mut at = self.0.random_range(0..total);
        for (weight, what) in from {
            match at.checked_sub(*weight) {
                None => return *what,
                Some(rest) => at = rest,
            }
        }
        from[0].1
    }

    /// Hexadecimal digits.
    pub fn text(&mut self) -> String {
        format!("{:032x}", self.0.random::<u128>())
    }
}
