//! The rules of what is held, as values.

use super::*;

type Held = Holdings<&'static str>;

fn open(disk: Disk<&'static str>) -> Held {
    Holdings::open(disk, None, Guards::ON)
}

/// Carry out the whole plan on `disk`.
fn write(held: &mut Held, disk: &mut Disk<&'static str>) {
    for write in held.plan() {
        disk.apply(&write);
        held.done(&write);
    }
    assert_eq!(held.plan(), [], "nothing is left to do");
}

const BEATEN: Answer<&str> = Answer::Beaten { pace: None, rotate: None };

#[test]
fn a_rotated_credential_stands_beside_the_old_one_until_it_has_worked() {
    let mut disk = Disk { token: Some("old"), ..Disk::default() };
    let mut held = open(disk.clone());
    held.learn(&Answer::Rotated { token: "new" }, Bearer::Held, || None);
    assert!(!held.facts(false, 0.0).next_ready, "not before it is written");
    write(&mut held, &mut disk);
    assert_eq!((disk.token, disk.next), (Some("old"), Some("new")));
    assert!(held.facts(false, 0.0).next_ready);
    held.learn(&BEATEN, Bearer::Next, || None);
    assert_eq!(held.plan(), [Write::Put(Slot::Token, "new"), Write::Remove(Slot::Next)]);
}
