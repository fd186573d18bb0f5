//! Which workspaces may talk to each other: family, in both directions, at any depth.

use crate::id::WorkspaceId;

/// Steps that a walk towards the root may take; longer chains are refused.
pub const MAX_HOPS: usize = 32;

/// A workspace and its ancestors, nearest first. A store loads at most [`MAX_HOPS`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The workspace itself.
    pub id: WorkspaceId,
    /// Parent, grandparent, and so on to the root.
    pub ancestors: Vec<WorkspaceId>,
}

impl Lineage {
    fn parent(&self) -> Option<WorkspaceId> {
        self.ancestors.first().copied()
    }
}

/// Whether `caller` may reach `target`: itself, a sibling (two roots are siblings), an ancestor or a
/// descendant. `None` stands for a workspace that does not exist; it reaches nothing.
#[must_use]
pub fn may_talk(caller: Option<&Lineage>, target: Option<&Lineage>) -> bool {
    let (Some(caller), Some(target)) = (caller, target) else { return false };
    caller.id == target.id
        || caller.parent() == target.parent()
        || caller.ancestors.iter().take(MAX_HOPS).any(|id| *id == target.id)
        || target.ancestors.iter().take(MAX_HOPS).any(|id| *id == caller.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> WorkspaceId {
        WorkspaceId::from_random([n; 16])
    }

    fn line(of: u8, ancestors: &[u8]) -> Lineage {
        Lineage { id: id(of), ancestors: ancestors.iter().map(|n| id(*n)).collect() }
    }

    fn check(caller: &Lineage, target: &Lineage, allowed: bool) {
        assert_eq!(may_talk(Some(caller), Some(target)), allowed, "{caller:?} to {target:?}");
    }

    #[test]
    fn acc_01_02_03_oneself_and_siblings_may_talk_and_roots_are_siblings() {
        check(&line(1, &[]), &line(1, &[]), true);
        check(&line(3, &[1]), &line(4, &[1]), true);
        check(&line(1, &[]), &line(2, &[]), true);
    }

    #[test]
    fn acc_04_05_10_11_12_ancestors_and_descendants_may_talk_at_any_depth() {
        let root = line(1, &[]);
        check(&root, &line(3, &[1]), true);
        check(&line(3, &[1]), &root, true);
        check(&root, &line(5, &[3, 1]), true);
        check(&line(5, &[3, 1]), &root, true);
        let deep: Vec<u8> = (2..40).rev().collect();
        for hops in [3, 10, MAX_HOPS] {
            let above = deep[hops - 1];
            let above = line(above, &deep[hops..]);
            check(&line(200, &deep), &above, true);
            check(&above, &line(200, &deep), true);
        }
        let too_far = line(deep[MAX_HOPS], &deep[MAX_HOPS + 1..]);
        check(&line(200, &deep), &too_far, false);
    }

    #[test]
    fn acc_06_07_13_strangers_may_not() {
        let (nephew, uncle, cousin) = (line(5, &[3, 1]), line(4, &[1]), line(6, &[4, 1]));
        check(&nephew, &cousin, false);
        check(&uncle, &nephew, false);
        check(&line(3, &[1]), &line(2, &[]), false);
        check(&line(2, &[]), &nephew, false);
        check(&nephew, &line(2, &[]), false);
    }

    #[test]
    fn acc_08_09_who_does_not_exist_reaches_nothing() {
        let root = line(1, &[]);
        assert!(!may_talk(Some(&root), None) && !may_talk(None, Some(&root)));
        assert!(!may_talk(None, None));
    }

    proptest! {
        #[test]
        fn the_rule_is_symmetric(a in 0..9u8, b in 0..9u8, up_a in proptest::collection::vec(0..9u8, 0..5), up_b in proptest::collection::vec(0..9u8, 0..5)) {
            let (a, b) = (line(a, &up_a), line(b, &up_b));
            prop_assert_eq!(may_talk(Some(&a), Some(&b)), may_talk(Some(&b), Some(&a)));
        }
    }
}
