//! The rules of the credential files, on real files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::testing::Scratch;

fn token(text: &str) -> Token {
    Token::parse(text).expect("a usable text")
}

fn holds(dir: &Scratch, name: &str) -> Option<String> {
    fs::read_to_string(dir.path().join(name)).ok()
}

fn open(dir: &Scratch) -> Identity {
    Identity::open(dir.path()).expect("a writable directory")
}

#[test]
fn a_credential_is_one_private_line_without_end() {
    let dir = Scratch::new();
    open(&dir).adopt(token("abc")).expect("written");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("abc"));
    let mode = fs::metadata(dir.path().join(TOKEN)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_same_value_is_not_written_again() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    identity.adopt(token("abc")).expect("written");
    let before = fs::metadata(dir.path().join(TOKEN)).expect("there").ino();
    identity.adopt(token("abc")).expect("nothing to do");
    assert_eq!(fs::metadata(dir.path().join(TOKEN)).expect("there").ino(), before);
    assert_eq!(identity.previous(), None);
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

#[test]
fn a_missing_file_clears_what_was_held() {
    let dir = Scratch::new();
    fs::write(dir.path().join(TOKEN), "abc\n").expect("written");
    let mut identity = open(&dir);
    assert_eq!(identity.held(), Some(&token("abc")));
    fs::remove_file(dir.path().join(TOKEN)).expect("removed");
    identity.reread();
    assert_eq!(identity.held(), None);
}

#[test]
fn the_previous_credential_stays_until_the_new_one_has_worked() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    identity.adopt(token("old")).expect("written");
    identity.confirm();
    identity.adopt(token("new")).expect("written");
    assert_eq!(holds(&dir, PREVIOUS).as_deref(), Some("old"));
    assert_eq!(open(&dir).previous(), Some(&token("old")), "it survives a crash");
    identity.confirm();
    assert_eq!((holds(&dir, PREVIOUS), identity.previous()), (None, None));
}

#[test]
fn falling_back_makes_the_previous_one_current_on_disk_too() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    identity.adopt(token("old")).expect("written");
    identity.adopt(token("new")).expect("written");
    identity.fall_back().expect("written");
    assert_eq!(holds(&dir, PREVIOUS), None);
    let again = open(&dir);
    assert_eq!((again.held(), again.previous()), (Some(&token("old")), None));
}

#[test]
fn a_key_is_drawn_once_and_survives_a_crash_until_confirmed() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    let first = identity.key(|| [7; KEY_BYTES]).0.to_owned();
    assert_eq!(first.len(), 43);
    assert_eq!(holds(&dir, KEY), Some(first.clone()));
    assert_eq!(open(&dir).key(|| panic!("it is there")).0, first);
    identity.adopt(token("abc")).expect("written");
    assert_eq!(identity.key(|| panic!("still needed")).0, first);
    identity.confirm();
    assert_eq!(holds(&dir, KEY), None);
    assert_ne!(identity.key(|| [8; KEY_BYTES]).0, first);
}

#[test]
fn what_cannot_be_written_is_used_from_memory_and_written_later() {
    let dir = Scratch::new();
    let mut identity = open(&dir);
    identity.adopt(token("old")).expect("written");
    // A directory in the place of the temporary file makes every write fail, whoever runs the test.
    let obstacle = dir.path().join(format!("{TOKEN}.new"));
    fs::create_dir(&obstacle).expect("made");
    let failure = identity.adopt(token("new")).expect_err("in the way");
    assert!(failure.to_string().contains(TOKEN), "{failure}");
    assert_eq!(identity.held(), Some(&token("new")));
    identity.confirm();
    assert_eq!(holds(&dir, PREVIOUS).as_deref(), Some("old"), "kept until the new one is safe");
    identity.reread();
    assert_eq!(identity.held(), Some(&token("new")), "the file is known to be older");
    fs::remove_dir(&obstacle).expect("removed");
    identity.save().expect("written now");
    assert_eq!(holds(&dir, TOKEN).as_deref(), Some("new"));
}

#[test]
fn a_directory_that_takes_no_files_is_said_unless_a_credential_is_there() {
    let dir = Scratch::new();
    fs::write(dir.path().join("file"), "").expect("written");
    let below = dir.path().join("file/configs");
    let failure = Identity::open(&below).expect_err("a file is no directory");
    assert!(failure.to_string().contains("file/configs"), "{failure}");

    fs::create_dir(dir.path().join(".write_trial")).expect("made");
    Identity::open(dir.path()).expect_err("no trial, no credential");
    fs::write(dir.path().join(TOKEN), "abc").expect("written");
    assert_eq!(open(&dir).held(), Some(&token("abc")));
}

#[test]
fn no_value_in_debug_output() {
    assert!(!format!("{:?}", token("secret-value")).contains("secret-value"));
}
