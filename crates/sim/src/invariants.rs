//! The laws, checked against what the API and the backend say.

use std::collections::BTreeSet;

use ligand_server::backend::Key;

use crate::agents::{Letter, What, Who};
use crate::calls::Answer;
use crate::model::{Row, Sort, View, Workspace};
use crate::trace::{Violation, law};

/// What one look at a workspace must show, after the one before.
///
/// # Errors
/// The law that was broken.
pub fn look(workspace: &Workspace, now: &View) -> Result<(), Violation> {
    let (name, before) = (&workspace.name, &workspace.seen);
    law(now.current >= before.current, "law 1: the current generation never goes back", || {
        format!("{name}: {} → {}", before.current, now.current)
    })?;
    law(now.newest >= before.newest, "law 1: the newest generation never goes back", || {
        format!("{name}: {} → {}", before.newest, now.newest)
    })?;
    let removed = |view: &View| view.intent == "removed" && view.status == "removed";
    law(!workspace.removed || removed(now), "removed is terminal", || {
        format!("{name}: {}", now.brief())
    })?;
    let alive = || now.rows.iter().filter(|row| !row.ended);
    let on_the_way = alive().filter(|row| row.generation > now.current).count();
    law(on_the_way <= 1, "law 8: one start in flight", || format!("{name}: {}", now.brief()))?;
    // A migration's target serves nobody but those who try it.
    let tried = |row: &&Row| workspace.moves(row.generation);
    let mut ahead = alive().filter(|row| !tried(row) && row.generation > now.current);
    let ahead = ahead.find(|row| row.phase == "serving");
    law(ahead.is_none(), "law 1: only the current generation serves", || {
        format!("{name}: {}", now.brief())
    })?;
    // The contract calls an external workspace online when its URL is known, before anybody registers.
    let told = workspace.sort == Sort::Open && now.current == 0;
    let evidence = alive().any(|row| row.generation == now.current && row.registered);
    law(!now.serves() || evidence || told, "law 7: online rests on an instance", || {
        format!("{name}: {}", now.brief())
    })?;
    let ascending = now.journal.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let readable = now.journal.iter().all(|(_, summary)| !summary.trim().is_empty());
    law(ascending && readable && !now.next.is_empty(), "the journal is readable", || {
        format!("{name}: {:?}", now.journal)
    })
}

/// What one call may have done.
///
/// # Errors
/// The law that was broken.
pub fn call(
    workspace: &Workspace,
    before: &View,
    letter: &Letter,
    generation: Option<i64>,
    answer: &Answer,
) -> Result<(), Violation> {
    let (name, after, status) = (&workspace.name, &workspace.seen, answer.status);
    let text = &answer.text;
    let say = |what: &str| format!("{name}: {what}: {status} {text}; now {}", after.brief());
    // A rotation that is done, or that nobody asked for, is refused as that.
    let answered = matches!(status, 200 | 401) || status == 409 && letter.what == What::Rotate;
    law(answered, "every call is answered", || say("unexpected answer"))?;
    let refused = status == 401 && before.standing() == after.standing();
    law(status != 200 || !workspace.removed, "removed is terminal", || say("admitted"))?;
    if letter.who == Who::Stranger {
        let silent = !text.contains("auth_token") && !text.contains("\"code\"");
        return law(refused && silent, "law 3: no stranger", || say("a stranger called"));
    }
    if generation.is_some_and(|generation| generation < before.current) {
        return law(refused, "law 1: who was superseded changes nothing", || say("it called"));
    }
    if letter.who == Who::Thief {
        return law(refused, "law 1: a stolen credential changes nothing", || say("it called"));
    }
    let redeems = letter.what == What::Rotate || letter.passport;
    let sealed = workspace.sort == Sort::Managed && !redeems;
    law(!sealed || !text.contains("auth_token"), "law 3: no stranger", || say("was given one"))?;
    let moved = (&before.status, &before.url) != (&after.status, &after.url);
    let newest = generation.is_none_or(|it| it == after.current && workspace.is_newest(it, after));
    let may = status == 200 && newest && !workspace.restart_due && after.intent == "running";
    law(!moved || may, "law 1: only the right instance moves the status", || {
        say(&format!("generation {generation:?} moved it from {}", before.brief()))
    })
}

/// What runs at the backend.
///
/// # Errors
/// The law that was broken.
pub fn one_instance(workspaces: &[Workspace], running: &[Key]) -> Result<(), Violation> {
    for workspace in workspaces {
        let of: Vec<String> = running
            .iter()
            .filter(|key| key.workspace == workspace.id)
            .map(|key| key.generation.to_string())
            .collect();
        let both =
            |key: &&Key| key.workspace == workspace.id && !workspace.moves(key.generation.number());
        let others = running.iter().filter(both).count();
        let most = if workspace.moving.is_some() { 2 } else { 1 };
        law(of.len() <= most && others <= 1, "law 1: two instances never run at once", || {
            format!("{}: generations {}", workspace.name, of.join(" and "))
        })?;
    }
    Ok(())
}

/// What served before a pass runs after it.
///
/// # Errors
/// The law that was broken.
pub fn none_ended(
    workspaces: &[Workspace],
    well: &[Key],
    running: &[Key],
) -> Result<(), Violation> {
    let ended = well.iter().find(|key| !running.contains(key));
    law(ended.is_none(), "law 5: what serves is not ended", || {
        let of = workspaces.iter().find(|it| ended.is_some_and(|key| key.workspace == it.id));
        let last = |it: &Workspace| {
            let lines = it.seen.journal.iter().rev().take(6).rev();
            lines.map(|(_, said)| said.as_str()).collect::<Vec<_>>().join("; ")
        };
        of.map_or_else(String::new, |it| format!("{}: {}; {}", it.name, it.seen.brief(), last(it)))
    })
}

/// What the backend has, while no pass is under way: the instances of rows that have not ended.
///
/// # Errors
/// The law that was broken.
pub fn no_leak(workspaces: &[Workspace], owned: &[Key]) -> Result<(), Violation> {
    for key in owned {
        let workspace = workspaces.iter().find(|it| it.id == key.workspace && !it.purged);
        let generation = key.generation.number();
        let named = workspace.is_some_and(|it| {
            let row = it.seen.rows.iter().any(|row| row.generation == generation && !row.ended);
            row || it.moves(generation)
        });
        law(named, "law 9: nothing leaks", || {
            let name = workspace.map_or("a purged workspace", |it| it.name.as_str());
            format!("{name}: the backend still has generation {generation}, which no row names")
        })?;
    }
    Ok(())
}

/// Every number was given to one decision or one event.
///
/// # Errors
/// The law that was broken.
pub fn no_gap(workspaces: &[Workspace], events: &BTreeSet<i64>) -> Result<(), Violation> {
    if workspaces.iter().any(|it| it.purged || it.seen.journal.len() >= 200) {
        return Ok(());
    }
    let mut all = events.clone();
    for seq in workspaces.iter().flat_map(|it| it.seen.journal.iter().map(|(seq, _)| *seq)) {
        law(all.insert(seq), "numbers are given out once", || format!("{seq} twice"))?;
    }
    let whole = all.iter().zip(1..).all(|(seq, expected)| *seq == expected);
    law(whole, "numbers have no gaps", || format!("{all:?}"))
}
