//! The decisions as a table, and their laws by chance: one message that comes again and again to an agent that is
//! killed between any two steps, with a disk that is full for a while and a program that fails as it likes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn what_is_known_decides() {
    let ended = Known::Ended { failed: false };
    let failure = Known::Ended { failed: true };
    let interrupted = Step::Refuse(Refusal::Interrupted);
    let table = [
        (Known::Nothing, Step::Run, Step::Run),
        (Known::UnderWay, Step::Join, Step::Join),
        (Known::Begun, interrupted, Step::Run),
        (Known::Damaged, interrupted, Step::Run),
        (ended, Step::Replay, Step::Replay),
        (failure, Step::Replay, Step::Run),
    ];
    for (known, step_first, step_again) in table {
        assert_eq!(step(known, true, false, Guards::ON), step_first, "{known:?}");
        assert_eq!(step(known, true, true, Guards::ON), step_again, "{known:?}, again");
        let other = step(known, false, true, Guards::ON);
        let new = known == Known::Nothing;
        assert_eq!(other, if new { Step::Run } else { Step::Refuse(Refusal::Another) });
    }
}

#[test]
fn what_a_program_did_not_take_on_may_come_again() {
    for (status, expected) in [
        (200, Entry::Ended),
        (404, Entry::Ended),
        (429, Entry::Nothing),
        (500, Entry::Ended),
        (503, Entry::Nothing),
    ] {
        assert_eq!(entry(Outcome::Answered { status }), expected, "{status}");
    }
    assert_eq!(entry(Outcome::NotReached), Entry::Nothing);
    assert_eq!(entry(Outcome::Broken), Entry::Begun);
}

#[test]
fn a_message_is_known_by_its_id_and_told_apart_by_its_content() {
    let body = |id: Value, method: &str, text: &str, message: &str| {
        let message = json!({ "messageId": message, "parts": [{ "text": text }] });
        let params = json!({ "message": message, "metadata": { "trace": text } });
        json!({ "id": id, "method": method, "params": params }).to_string()
    };
    let of = |body: &str| named(body.as_bytes(), Some("row")).expect("a name");
    let first = of(&body(json!(1), "SendMessage", "hi", "m"));
    let again = of(&body(json!("other"), "SendMessage", "hi", "m"));
    assert_eq!((&first.file, &first.digest), (&again.file, &again.digest));
    assert_eq!((first.id, again.id), (json!(1), json!("other")));
    for other in [body(json!(1), "SendMessage", "ho", "m"), body(json!(1), "SendStream", "hi", "m")]
    {
        assert_eq!(of(&other).file, first.file);
        assert_ne!(of(&other).digest, first.digest);
    }
    assert_ne!(of(&body(json!(1), "SendMessage", "hi", "n")).file, first.file);
    let spelled = r#"{"method":"SendMessage","params":{"message":{"parts":[{"text":"hi"}], "messageId":"m"}}}"#;
    assert_eq!(of(spelled).digest, first.digest, "another spelling of the same");
}

#[test]
fn without_an_id_the_platforms_name_counts_and_without_both_none() {
    let bodies = ["", "{", "[]", r#"{"params":{"message":{"messageId":""}}}"#, r#"{"params":7}"#];
    for body in bodies {
        assert_eq!(named(body.as_bytes(), None), None, "{body}");
        let named = named(body.as_bytes(), Some("row")).expect("named");
        assert_eq!(named.shown, "row");
    }
    let own = br#"{"params":{"message":{"messageId":"row"}}}"#;
    let both = named(own, Some("x")).expect("named").file;
    assert_ne!(named(b"{}", Some("row")).expect("named").file, both, "one text, two names");
}

/// One message, its agent and its program.
#[derive(Default)]
struct World {
    guards: Guards,
    disk: Option<Known>,
    full: bool,
    /// The turn that is running.
    running: bool,
    effects: u32,
    /// Runs that an operator asked for after an end nobody knew, or a failure.
    granted: u32,
    /// What the record says, and what callers were told.
    recorded: u32,
    answers: Vec<u32>,
}

impl World {
    fn write(&mut self, entry: Option<Known>) -> bool {
        if !self.full {
            self.disk = entry;
        }
        !self.full
    }

    /// The message comes; `fate` says how far it gets and what the program does.
    fn come(&mut self, again: bool, fate: u8) {
        let on_disk = self.disk.unwrap_or(Known::Nothing);
        let known = if self.running { Known::UnderWay } else { on_disk };
        match step(known, true, again, self.guards) {
            Step::Join | Step::Refuse(_) => {}
            Step::Replay => self.answers.push(self.recorded),
            Step::Run => {
                if again && known != Known::Nothing {
                    self.granted += 1;
                }
                // What cannot be written down is not run.
                if !self.write(Some(Known::Begun)) {
                    return;
                }
                self.runs(fate);
            }
        }
    }

    fn runs(&mut self, fate: u8) {
        let outcome = match fate {
            // Killed before the program had it, or with it.
            0 => return,
            1 => return self.effects += 1,
            2 => Outcome::NotReached,
            3 => Outcome::Answered { status: 503 },
            4 => Outcome::Broken,
            5 => Outcome::Answered { status: 500 },
            6 => {
                self.running = true;
                self.effects += 1;
                return;
            }
            _ => Outcome::Answered { status: 200 },
        };
        let ran = !matches!(outcome, Outcome::NotReached | Outcome::Answered { status: 503 });
        self.effects += u32::from(ran);
        self.over(outcome);
    }

    fn over(&mut self, outcome: Outcome) {
        self.running = false;
        match (entry(outcome), outcome) {
            (Entry::Ended, Outcome::Answered { status }) => {
                if self.write(Some(Known::Ended { failed: failed(status) })) {
                    self.recorded = self.effects;
                }
                self.answers.push(self.effects);
            }
            (Entry::Nothing, _) => {
                self.write(None);
            }
            _ => {}
        }
    }
}

/// A run as drawn. Says which law was broken.
fn run(guards: Guards, drawn: &[u8]) -> Result<(), String> {
    let mut world = World { guards, ..World::default() };
    for byte in drawn {
        match byte >> 6 {
            0 => world.full = !world.full,
            1 if world.running && byte & 1 == 0 => world.over(Outcome::Answered { status: 200 }),
            // Killed: what was in memory is gone.
            1 => world.running = false,
            more => world.come(more == 3 && byte & 32 == 0, byte & 7),
        }
        if world.effects > 1 + world.granted {
            return Err(format!("{} effects of one message", world.effects));
        }
        if world.answers.contains(&0) {
            return Err("an answer without a turn".to_owned());
        }
        if world.granted == 0 && world.answers.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("different answers: {:?}", world.answers));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_is_run_once_whatever_happens(drawn in prop::collection::vec(any::<u8>(), 0..40)) {
        let outcome = run(Guards::ON, &drawn);
        prop_assert!(outcome.is_ok(), "{outcome:?}");
    }
}

#[cfg(feature = "mutants")]
#[test]
fn without_the_rule_it_runs_twice() {
    // It comes, is answered, and comes again.
    assert!(run(Guards::ON, &[0x87, 0x87]).is_ok());
    assert!(run(Guards::without(Guard::TurnOnce), &[0x87, 0x87]).is_err());
}
