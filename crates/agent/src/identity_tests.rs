//! The rules of the credential files, on real files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::session::Refusal;
use crate::testing::Scratch;

const TOKEN: &str = ".auth_token";
const NEXT: &str = ".auth_token.next";
const KEY: &str = ".register_key";
const BEATEN: Answer<Token> = Answer::Beaten { pace: None, rotate: None };

fn token(text: &str) -> Token {
    Token::parse(text).expect("a usable text")
}

fn minted(text: &str) -> Answer<Token> {
    Answer::Registered { token: Some(token(text)), pace: None }
}

fn rotated(text: &str) -> Answer<Token> {
    Answer::Rotated { token: token(text) }
}

fn refused() -> Answer<Token> {
    Answer::Refused(Refusal { action: None, retry_after: None, why: String::new() })
}

fn holds(dir: &Scratch, name: &str) -> Option<String> {
    fs::read_to_string(dir.path().join(name)).ok()
}

fn put_file(dir: &Scratch, name: &str, text: &str) {
    fs::write(dir.path().join(name), text).expect("written");
}

fn open(dir: &Scratch) -> Identity {
    Identity::open(dir.path(), None, Guards::ON).expect("a writable directory")
}

impl Identity {
    fn held(&self) -> Option<&Token> {
        self.holdings.held()
    }

    /// An answer to a call with the credential in hand, and whether all was written.
    fn told(&mut self, answer: &Answer<Token>) -> Result<(), Unwritable> {
        self.learn(answer, Bearer::Held, 0.0).1
    }
}

#[test]
fn a_credential_is_one_private_line_without_end() {
    let dir = Scratch::new();
    open(&dir).told(&minted("abc")).expect("written");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("abc"));
    let mode = fs::metadata(dir.path().join(TOKEN)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_same_value_is_not_written_again() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    identity.told(&minted("abc")).expect("written");
    let before = fs::metadata(dir.path().join(TOKEN)).expect("there").ino();
    identity.told(&minted("abc")).expect("nothing to do");
    put(dir.path(), TOKEN, &token("abc")).expect("nothing to do");
    assert_eq!(fs::metadata(dir.path().join(TOKEN)).expect("there").ino(), before);
    assert_eq!(identity.presented(Bearer::Next), None);
}

#[test]
fn reading_trims_and_refuses_what_is_no_credential() {
    assert_eq!(Token::parse(" abc\n"), Some(token("abc")));
    let long = "x".repeat(4097);
    for bad in ["", " \n", "two words", "tab\tinside", "umläut", "nul\0", long.as_str()] {
        assert_eq!(Token::parse(bad), None, "{:?}", &bad[..bad.len().min(12)]);
    }
    let dir = Scratch::new();
    for bad in [b"".as_slice(), b"a b", b"\xff\xfe", long.as_bytes()] {
        fs::write(dir.path().join(TOKEN), bad).expect("written");
        assert_eq!(open(&dir).held(), None);
    }
}

/// Also RR-04: reading again without a change gives the same again.
#[test]
fn rr_01_rr_04_a_refusal_finds_what_was_put_in_the_file() {
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "old");
    let mut identity = open(&dir);
    put_file(&dir, TOKEN, "new\n");
    let (facts, _) = identity.learn(&refused(), Bearer::Held, 0.0);
    assert!(facts.file_differs);
    for _ in 0..3 {
        assert_eq!(identity.held(), Some(&token("new")));
        identity.reread();
    }
    let (facts, _) = identity.learn(&refused(), Bearer::Held, 0.0);
    assert!(!facts.file_differs, "nothing newer than what was presented");
}

#[test]
fn rr_02_rr_03_a_missing_file_clears_what_was_held() {
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "abc\n");
    let mut identity = open(&dir);
    assert_eq!(identity.held(), Some(&token("abc")));
    fs::remove_file(dir.path().join(TOKEN)).expect("removed");
    identity.reread();
    assert_eq!(identity.held(), None);
    identity.reread();
    assert_eq!(identity.held(), None);
    let (facts, _) = identity.learn(&refused(), Bearer::Held, 0.0);
    assert!(!facts.file_differs && !facts.holds);
}

#[test]
fn a_file_that_cannot_be_read_takes_nothing_from_who_held_its_value() {
    let dir = Scratch::new();
    let path = dir.path().join(TOKEN);
    put_file(&dir, TOKEN, "abc");
    let mut identity = open(&dir);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("no file can be read there");
    let (facts, _) = identity.learn(&refused(), Bearer::Held, 0.0);
    assert!(facts.holds && !facts.file_differs);
    identity.reread();
    assert_eq!(identity.held(), Some(&token("abc")));
    fs::remove_dir(&path).expect("removed");
    for unusable in ["", "two words", "x".repeat(5000).as_str()] {
        put_file(&dir, TOKEN, unusable);
        identity.reread();
        assert_eq!(identity.held(), Some(&token("abc")));
    }
    put_file(&dir, TOKEN, "new");
    identity.reread();
    assert_eq!(identity.held(), Some(&token("new")));
}

#[test]
fn a_rotated_credential_survives_a_crash_beside_the_old_one() {
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "old");
    let mut identity = open(&dir);
    identity.told(&rotated("new")).expect("written");
    assert_eq!((holds(&dir, TOKEN), holds(&dir, NEXT)), (Some("old".into()), Some("new".into())));
    let mode = fs::metadata(dir.path().join(NEXT)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut again = open(&dir);
    assert_eq!(again.presented(Bearer::Held), Some(&token("old")));
    assert_eq!(again.presented(Bearer::Next), Some(&token("new")));
    again.learn(&BEATEN, Bearer::Next, 0.0).1.expect("written");
    assert_eq!((holds(&dir, TOKEN), holds(&dir, NEXT)), (Some("new".into()), None));
}

#[test]
fn a_key_is_drawn_once_and_survives_a_crash_until_its_credential_has_worked() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    let (first, written) = identity.key(|| [7; KEY_BYTES]);
    written.expect("written");
    assert!(first.len() >= 22, "{}", first.len());
    assert_eq!(holds(&dir, KEY), Some(first.clone()));
    assert_eq!(open(&dir).key(|| panic!("it is there")).0, first);
    identity.told(&minted("abc")).expect("written");
    assert_eq!(identity.key(|| panic!("still needed")).0, first);
    identity.told(&BEATEN).expect("written");
    assert_eq!(holds(&dir, KEY), None);
    assert_ne!(identity.key(|| [8; KEY_BYTES]).0, first);
}

#[test]
fn what_cannot_be_written_is_used_from_memory_and_written_later() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    // A directory in the place of the temporary file makes every write fail, whoever runs the test.
    let obstacle = dir.path().join(format!("{TOKEN}.new"));
    fs::create_dir(&obstacle).expect("made");
    let failure = identity.told(&minted("new")).expect_err("in the way");
    assert!(failure.to_string().contains(TOKEN), "{failure}");
    assert_eq!(identity.held(), Some(&token("new")));
    identity.reread();
    assert_eq!(identity.held(), Some(&token("new")), "it exists nowhere else");
    identity.told(&BEATEN).expect_err("still in the way");
    fs::remove_dir(&obstacle).expect("removed");
    identity.save().expect("written now");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("new"));
}

#[test]
fn a_rotated_credential_that_cannot_be_written_is_not_ready() {
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "old");
    let mut identity = open(&dir);
    let obstacle = dir.path().join(format!("{NEXT}.new"));
    fs::create_dir(&obstacle).expect("made");
    let (facts, written) = identity.learn(&rotated("new"), Bearer::Held, 0.0);
    assert!(written.expect_err("in the way").to_string().contains(NEXT));
    assert!(facts.has_next && !facts.next_ready);
    let (facts, _) = identity.learn(&BEATEN, Bearer::Held, 0.0);
    assert!(!facts.next_ready, "the old one goes on working");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("old"));
    fs::remove_dir(&obstacle).expect("removed");
    let (facts, written) = identity.learn(&BEATEN, Bearer::Held, 0.0);
    written.expect("there is room again");
    assert!(facts.next_ready);
    assert_eq!(holds(&dir, NEXT).as_deref(), Some("new"));
}

#[test]
fn what_somebody_else_put_in_the_file_is_not_written_over() {
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "old");
    let mut identity = open(&dir);
    identity.told(&rotated("new")).expect("written");
    put_file(&dir, TOKEN, "delivered");
    identity.learn(&BEATEN, Bearer::Next, 0.0).1.expect("nothing failed");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("delivered"));
    assert_eq!(identity.held(), Some(&token("new")), "in use as long as it is accepted");
    identity.save().expect("nothing to do");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("delivered"));
    let (facts, _) = identity.learn(&refused(), Bearer::Held, 0.0);
    assert!(facts.file_differs);
    assert_eq!(identity.held(), Some(&token("delivered")));
}

#[test]
fn a_passport_puts_files_of_another_origin_aside_and_keeps_its_own() {
    let passport = |name: &str| Some(Passport { value: token("passport"), origin: token(name) });
    let open = |dir: &Scratch, name: &str| {
        Identity::open(dir.path(), passport(name), Guards::ON).expect("writable")
    };
    let dir = Scratch::new();
    put_file(&dir, TOKEN, "copied");
    put_file(&dir, KEY, "copied-key");
    let mut identity = open(&dir, "7");
    assert_eq!(identity.held(), None);
    assert_eq!(identity.presented(Bearer::Passport), Some(&token("passport")));
    assert_eq!((holds(&dir, TOKEN), holds(&dir, KEY)), (None, None));
    assert_eq!(holds(&dir, ".auth_token.previous").as_deref(), Some("copied"));
    identity.learn(&minted("own"), Bearer::Passport, 0.0).1.expect("written");
    drop(identity);
    let mut again = open(&dir, "7");
    assert_eq!(again.held(), Some(&token("own")), "its own is not put aside");
    again.told(&BEATEN).expect("written");
    assert_eq!(holds(&dir, ".auth_token.previous"), None, "another one has worked");
    assert_eq!(holds(&dir, ".auth_token.generation").as_deref(), Some("7"));
}

#[test]
fn a_directory_that_takes_no_files_is_said_unless_a_credential_is_there() {
    let dir = Scratch::new();
    put_file(&dir, "file", "");
    let below = dir.path().join("file/configs");
    let failure = Identity::open(&below, None, Guards::ON).expect_err("a file is no directory");
    assert!(failure.to_string().contains("file/configs"), "{failure}");

    fs::create_dir(dir.path().join(".write_trial")).expect("made");
    Identity::open(dir.path(), None, Guards::ON).expect_err("no trial, no credential");
    put_file(&dir, TOKEN, "abc");
    assert_eq!(open(&dir).held(), Some(&token("abc")));
}

#[test]
fn no_value_in_debug_output() {
    assert!(!format!("{:?}", token("secret-value")).contains("secret-value"));
}
