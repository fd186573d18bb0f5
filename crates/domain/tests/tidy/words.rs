//! What no line may contain. Words that are searched for are spelled in two halves here, so that this file passes.

use super::tree::{File, Offence, Tree};

const NOTES: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// A note to self is a promise; the address says where it is kept. (Documents may speak about the words.)
pub(super) fn notes(file: &File, _: &Tree) -> Vec<Offence> {
    if file.path.ends_with(".md") {
        return Vec::new();
    }
    let is_note = |word: &str| NOTES.contains(&word);
    let promises = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(is_note);
    let bare = file.lines().filter(|(_, line)| promises(line) && !line.contains("https://"));
    bare.map(|(number, _)| {
        file.offence(number, "a note without a link: do it, or link to where it is tracked")
    })
    .collect()
}

/// Snapshots hold what a program printed, blanks included.
pub(super) fn blanks(file: &File, _: &Tree) -> Vec<Offence> {
    if file.path.ends_with(".snap") {
        return Vec::new();
    }
    let ends_blank = file.lines().filter(|(_, line)| line.ends_with(char::is_whitespace));
    ends_blank
        .map(|(number, _)| file.offence(number, "blanks at the end of the line: remove them"))
        .collect()
}

const PLACES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!(".lib", "rary")];

/// The project runs anywhere; it names no folder of the machine that it was written on.
pub(super) fn places(file: &File, _: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (number, line) in file.lines() {
        if let Some(place) = PLACES.iter().find(|place| line.contains(**place)) {
            offences.push(file.offence(
                number,
                format!(
                    "`{place}` is a place on somebody's machine: name it relative to the repository"
                ),
            ));
        }
    }
    offences
}

#[test]
fn a_note_without_a_link_is_caught() {
    let text =
        format!("// {}: later\n// {}(https://a.b/1): later\nMAS{}N", NOTES[0], NOTES[1], NOTES[0]);
    let tree = Tree::of(&[("a.rs", &text), ("b.md", &text)]);
    assert_eq!(tree.caught(notes), ["a.rs:1"]);
}

#[test]
fn blanks_at_the_end_are_caught() {
    let text = "a\n\tb\u{20}\n\u{20}\u{20}\nc\r\n";
    let tree = Tree::of(&[("a.py", text), ("b.snap", text)]);
    assert_eq!(tree.caught(blanks), ["a.py:2", "a.py:3", "a.py:4"]);
}

#[test]
fn a_place_on_a_machine_is_caught() {
    let text = format!("cd network/x\ncd {}main\nls {}", PLACES[0], PLACES[2]);
    assert_eq!(Tree::of(&[("a.md", &text)]).caught(places), ["a.md:2", "a.md:3"]);
}
