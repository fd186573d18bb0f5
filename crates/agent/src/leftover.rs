//! What a program leaves behind. A program that is told to stand by must not go on working on the data through a
//! process that it started; a backend ends those of a whole instance, and here the instance lives on.
//!
//! They are found as descendants of the program, looked for before it ends (afterwards they are somebody else's
//! children), and as members of our own process group, where we lead it: whoever started us with others in one group
//! has not meant those to end with our program.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Rounds in which what is left is ended: a process may start another one at the last moment.
const ROUNDS: usize = 5;

/// A process, told from a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    start: u64,
}

/// What the kernel says of one.
struct Stat {
    process: Process,
    parent: u32,
    group: u32,
    zombie: bool,
}

/// Whatever descends from a process, itself excepted.
pub(crate) fn descendants(of: u32) -> Vec<Process> {
    let all = running();
    let (mut found, mut at): (Vec<Process>, _) = (Vec::new(), 0);
    let mut parent = of;
    loop {
        let children = all.iter().filter(|stat| stat.parent == parent);
        found.extend(children.map(|stat| stat.process));
        match found.get(at) {
            Some(next) => parent = next.pid,
            None => return found,
        }
        at += 1;
    }
}

/// End what is left of these, and of our own group where we lead it. Gives how many were found.
pub(crate) fn end(family: &[Process]) -> usize {
    let me = std::process::id();
    let leads = running().iter().any(|stat| stat.process.pid == me && stat.group == me);
    end_with(family, leads.then_some(me))
}

fn end_with(family: &[Process], group: Option<u32>) -> usize {
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let left = running().into_iter().filter(|stat| {
            let kin = family.contains(&stat.process) || group == Some(stat.group);
            kin && !stat.zombie && stat.process.pid != std::process::id()
        });
        let left: Vec<Pid> = left.filter_map(|stat| id(stat.process.pid)).collect();
        if left.is_empty() {
            break;
        }
        // One that has ended meanwhile needs no signal.
        ended += left.into_iter().filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count();
    }
    ended
}

fn id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn running() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// The program's name stands in parentheses, and may hold anything.
fn parse(pid: u32, stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        process: Process { pid, start: fields.get(19)?.parse().ok()? },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;

    #[tokio::test]
    async fn descendants_are_found_and_ended_and_nobody_else() {
        let script = "sh -c 'sleep 600; :' & echo; wait";
        let mut program = machine::command("sh".as_ref(), &["-c".into(), script.into()]);
        let mut program = program.kill_on_drop(true).spawn().expect("a shell");
        let mut other = machine::command("sleep".as_ref(), &["600".into()]);
        let mut other = other.kill_on_drop(true).spawn().expect("sleep");
        let pid = program.id().expect("it runs");
        while descendants(pid).len() < 2 {
            tokio::task::yield_now().await;
        }
        let family = descendants(pid);
        assert!(!family.iter().any(|it| Some(it.pid) == other.id() || it.pid == pid));
        program.kill().await.expect("killed");
        assert!(end_with(&family, None) >= 2);
        let gone = |it: &Process| !running().iter().any(|stat| stat.process == *it && !stat.zombie);
        while !family.iter().all(gone) {
            tokio::task::yield_now().await;
        }
        assert!(other.try_wait().expect("our child").is_none());
    }

    #[test]
    fn a_name_may_hold_anything() {
        let line = "12 (a) Z 9) S 3 4 4 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0";
        let stat = parse(12, line).expect("understood");
        assert_eq!((stat.parent, stat.group, stat.process.start, stat.zombie), (3, 4, 777, false));
        assert!(parse(1, "nonsense").is_none());
    }
}
