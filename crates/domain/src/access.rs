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

    #[test]
    fn family_may_talk_and_strangers_may_not() {
        let root = line(1, &[]);
        let other_root = line(2, &[]);
        let child = line(3, &[1]);
        let sibling = line(4, &[1]);
        let grandchild = line(5, &[3, 1]);
        let cousin = line(6, &[4, 1]);
        let check = |a: &Lineage, b: &Lineage, allowed: bool| {
            assert_eq!(may_talk(Some(a), Some(b)), allowed, "{a:?} to {b:?}");
        };
        check(&root, &root, true);
        check(&root, &other_root, true);
        check(&child, &sibling, true);
        check(&root, &grandchild, true);
        check(&grandchild, &root, true);
        check(&grandchild, &cousin, false);
        check(&sibling, &grandchild, false);
        check(&child, &other_root, false);
        assert!(!may_talk(Some(&root), None) && !may_talk(None, Some(&root)));
    }

    proptest! {
        #[test]
        fn the_rule_is_symmetric(a in 0..9u8, b in 0..9u8, up_a in proptest::collection::vec(0..9u8, 0..5), up_b in proptest::collection::vec(0..9u8, 0..5)) {
            let (a, b) = (line(a, &up_a), line(b, &up_b));
            prop_assert_eq!(may_talk(Some(&a), Some(&b)), may_talk(Some(&b), Some(&a)));
        }
    }
}
