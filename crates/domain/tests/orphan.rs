//! Properties of what is left over.

use std::collections::{BTreeMap, BTreeSet};

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::orphan::{Known, Label, Listed, Rows, sort};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

fn workspace() -> impl Strategy<Value = WorkspaceId> {
    (0_u8..5).prop_map(|n| WorkspaceId::from_random([n; 16]))
}

fn label() -> impl Strategy<Value = Label> {
    (workspace(), (1_i64..4).prop_map(Generation::new))
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![Just(Known::Kept), Just(Known::Removed), Just(Known::Purged), Just(Known::Never)]
}

fn listed() -> impl Strategy<Value = Listed> {
    (btree_set(label(), 0..8), btree_set(workspace(), 0..5))
        .prop_map(|(instances, data)| Listed { instances, data })
}

fn rows() -> impl Strategy<Value = Rows> {
    (btree_map(workspace(), known(), 0..5), btree_map(label(), any::<bool>(), 0..8))
        .prop_map(|(workspaces, named)| Rows { workspaces, named })
}

/// What happens to one instance, in the only order in which it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nothing,
    RowCommitted,
    Created,
    RowEnded,
    Destroyed,
}

/// The world: how far each instance has come, moment by moment.
fn history() -> impl Strategy<Value = Vec<BTreeMap<Label, Stage>>> {
    vec(label(), 0..40).prop_map(|moves| {
        let mut now: BTreeMap<Label, Stage> = BTreeMap::new();
        let mut all = vec![now.clone()];
        for label in moves {
            let next = match now.get(&label).copied().unwrap_or(Stage::Nothing) {
                Stage::Nothing => Stage::RowCommitted,
                Stage::RowCommitted => Stage::Created,
                Stage::Created => Stage::RowEnded,
                Stage::RowEnded | Stage::Destroyed => Stage::Destroyed,
            };
            now.insert(label, next);
            all.push(now.clone());
        }
        all
    })
}

fn at_backend(world: &BTreeMap<Label, Stage>) -> Listed {
    let there = |stage: &Stage| matches!(stage, Stage::Created | Stage::RowEnded);
    let instances = world.iter().filter(|(_, stage)| there(stage)).map(|(label, _)| *label);
    Listed { instances: instances.collect(), data: BTreeSet::new() }
}

fn in_database(world: &BTreeMap<Label, Stage>) -> Rows {
    let alive = |stage: &Stage| matches!(stage, Stage::RowCommitted | Stage::Created);
    let named = world.iter().filter(|(_, stage)| alive(stage));
    Rows {
        workspaces: world.keys().map(|(workspace, _)| (*workspace, Known::Kept)).collect(),
        named: named.map(|(label, stage)| (*label, *stage == Stage::Created)).collect(),
    }
}

proptest! {
    #[test]
    fn nothing_that_a_row_names_is_garbage_and_garbage_was_listed(listed in listed(), rows in rows()) {
        let verdict = sort(&listed, &rows);
        prop_assert!(verdict.end.iter().all(|label| !rows.named.contains_key(label)));
        prop_assert!(verdict.end.is_subset(&listed.instances));
        prop_assert!(listed.instances.iter().all(|it| rows.named.contains_key(it) || verdict.end.contains(it)));
    }

    #[test]
    fn data_goes_only_of_what_was_ours_and_is_over(listed in listed(), rows in rows()) {
        let verdict = sort(&listed, &rows);
        for workspace in &verdict.erase {
            let known = rows.workspaces.get(workspace);
            prop_assert!(matches!(known, Some(Known::Removed | Known::Purged)), "{known:?}");
            prop_assert!(rows.named.keys().all(|(named, _)| named != workspace));
            prop_assert!(listed.workspaces().contains(workspace));
        }
        prop_assert!(verdict.unknown.is_disjoint(&verdict.erase));
        prop_assert!(verdict.unknown.is_subset(&listed.data));
    }

    #[test]
    fn only_what_was_confirmed_is_missed(listed in listed(), rows in rows()) {
        let verdict = sort(&listed, &rows);
        prop_assert!(verdict.missing.iter().all(|it| rows.named.get(it) == Some(&true)));
        prop_assert!(verdict.missing.is_disjoint(&listed.instances));
    }

    /// Whoever starts what at any moment, on whichever server.
    #[test]
    fn nothing_fresh_is_garbage_while_lists_are_read_before_rows(
        history in history(),
        first in any::<proptest::sample::Index>(),
        second in any::<proptest::sample::Index>(),
    ) {
        let (first, second) = (first.index(history.len()), second.index(history.len()));
        let (listed_at, read_at) = (first.min(second), first.max(second));
        let verdict = sort(&at_backend(&history[listed_at]), &in_database(&history[read_at]));
        let last = history.last().unwrap();
        for label in &verdict.end {
            prop_assert!(history[read_at][label] >= Stage::RowEnded);
            // The verdict holds for ever, however late it is carried out.
            prop_assert!(last[label] >= Stage::RowEnded);
        }
    }
}

#[test]
fn read_the_other_way_round_a_fresh_instance_would_be_garbage() {
    let label = (WorkspaceId::from_random([1; 16]), Generation::new(1));
    let (before, after) = (BTreeMap::new(), BTreeMap::from([(label, Stage::Created)]));
    let verdict = sort(&at_backend(&after), &in_database(&before));
    assert!(verdict.end.contains(&label), "what the order is there for");
    assert!(sort(&at_backend(&before), &in_database(&after)).end.is_empty());
}
