//! What instances may use of the machine, by tier.

use super::layers::Layers;

/// Memory (MiB) and shares of processor time, where they are limited.
type Limit = (Option<u64>, Option<u64>);

/// See the module. The first tier has no limits of its own: it is the one that may do least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers([Limit; 4]);

impl Tiers {
    pub(super) fn resolve(said: &mut Layers<'_>) -> Self {
        let mut number = |name, variable, default| Some(said.number(name, variable, default));
        Self([
            (None, None),
            (
                number("tier2_memory_mb", "TIER2_MEMORY_MB", 512),
                number("tier2_cpu_shares", "TIER2_CPU_SHARES", 1024),
            ),
            (
                number("tier3_memory_mb", "TIER3_MEMORY_MB", 2048),
                number("tier3_cpu_shares", "TIER3_CPU_SHARES", 2048),
            ),
            (
                number("tier4_memory_mb", "TIER4_MEMORY_MB", 4096),
                number("tier4_cpu_shares", "TIER4_CPU_SHARES", 4096),
            ),
        ])
    }

    /// Memory (MiB) and shares of processor time of a tier, where it has limits: 1024 shares are one core's.
    #[must_use]
    pub fn of(&self, tier: i64) -> (Option<u64>, Option<u64>) {
        let at = usize::try_from(tier - 1).ok();
        at.and_then(|at| self.0.get(at).copied()).unwrap_or_default()
    }
}
