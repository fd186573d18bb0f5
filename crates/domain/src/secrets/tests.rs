//! Stored forms, environments, receipts.

use super::*;
use proptest::prelude::*;

const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];

fn keys(current: u8, previous: Option<u8>) -> Keys {
    let key = |byte| Key([byte; KEY_LEN]);
    Keys { current: Some(key(current)), previous: previous.map(key) }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_key_is_base64_of_32_bytes_or_32_bytes() {
    let plain = "0123456789abcdef0123456789abcde!";
    let same = Key::parse(plain);
    assert_eq!(Key::parse(&STANDARD.encode(plain)), same);
    assert_eq!(Key::parse(&URL_SAFE_NO_PAD.encode(plain)), same);
    for bad in ["", "short", &plain[1..], &STANDARD.encode("short")] {
        assert_eq!(Key::parse(bad), None, "{bad}");
    }
    let key = same.expect("32 bytes");
    assert_eq!(format!("{key:?}"), "Key(hidden)");
    assert_eq!(key.name().len(), 16);
    assert_ne!(key.name(), keys(1, None).current.expect("set").name());
}

#[test]
fn stored_are_nonce_ciphertext_and_tag() {
    let stored = keys(1, None).seal("hunter2", NONCE);
    assert_eq!((stored.version, stored.bytes.len()), (1, 12 + 7 + 16));
    assert_eq!(stored.bytes[..12], NONCE);
    assert!(!stored.bytes.windows(7).any(|window| window == b"hunter2"));
    let plain = Keys::default().seal("hunter2", NONCE);
    assert_eq!((plain.version, plain.bytes.as_slice()), (0, b"hunter2".as_slice()));
    assert_eq!(keys(1, None).open(&plain), Ok("hunter2".to_owned()), "from before the key");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let stored = keys(1, None).seal("hunter2", NONCE);
    assert_eq!(keys(2, Some(1)).open(&stored), Ok("hunter2".to_owned()));
    assert_eq!(keys(2, None).open(&stored), Err(Unreadable::WrongKey));
    assert_eq!(Keys::default().open(&stored), Err(Unreadable::NoKey));
    let open =
        |version, bytes: &[u8]| keys(1, None).open(&Stored { version, bytes: bytes.to_vec() });
    assert_eq!(open(2, &stored.bytes), Err(Unreadable::Version(2)));
    assert_eq!(open(1, &stored.bytes[..30]), Err(Unreadable::WrongKey));
    assert_eq!(open(1, b"short"), Err(Unreadable::WrongKey));
    assert_eq!(open(0, &[0xff]), Err(Unreadable::NoText));
}

#[test]
fn names_that_reach_no_program_are_refused() {
    for good in ["API_KEY", "a.b-c", "PATH"] {
        assert_eq!(check(good, "x"), Ok(()), "{good}");
    }
    for bad in ["", "A B", "A=B", "Ä", "HOME", "LIGAND_X", "PLATFORM_URL", "a\n"] {
        assert!(check(bad, "x").is_err_and(|why| why.starts_with("key: ")), "{bad}");
    }
    let long = "x".repeat(LONGEST_ENTRY);
    for bad in ["", "a\0b", &long] {
        assert!(check("K", bad).is_err_and(|why| why.starts_with("value: ")));
    }
    assert_eq!(check("K", &long[1..]), Ok(()));
}

#[test]
fn own_entries_win_over_global_ones() {
    let entries = |names: [&str; 2]| names.map(|name| (name.to_owned(), ()));
    let all = merged(entries(["A", "B"]), entries(["B", "C"]));
    let scopes: Vec<_> = all.into_iter().map(|(name, (scope, ()))| (name, scope)).collect();
    let expected = [
        ("A".to_owned(), Scope::Global),
        ("B".to_owned(), Scope::Workspace),
        ("C".to_owned(), Scope::Workspace),
    ];
    assert_eq!(scopes, expected);
}

#[test]
fn an_environment_is_put_together_in_order() {
    let whose = Whose { name: "My Agent!", runtime: "hermes", model: None, role: Some("writes") };
    let platform = map(&[("PLATFORM_URL", "here"), ("TIER", "3")]);
    let recipe = map(&[("TIER", "of the recipe"), ("MODE", "of the recipe")]);
    let secrets = map(&[
        ("MODE", "secret"),
        ("PLATFORM_URL", "elsewhere"),
        ("LIGAND_X", "y"),
        ("GIT_AUTHOR_NAME", "me"),
        (MODEL, "large"),
    ]);
    let env = environment(platform, &recipe, &secrets, whose);
    let expected = map(&[
        ("PLATFORM_URL", "here"),
        ("TIER", "of the recipe"),
        ("MODE", "secret"),
        (MODEL, "large"),
        ("GIT_AUTHOR_NAME", "me"),
        ("GIT_AUTHOR_EMAIL", "my-agent@agents.moleculesai.app"),
        ("GIT_COMMITTER_NAME", "Molecule AI My Agent!"),
        ("GIT_COMMITTER_EMAIL", "my-agent@agents.moleculesai.app"),
        ("HERMES_DEFAULT_MODEL", "large"),
        ("MOLECULE_AGENT_ROLE", "writes"),
    ]);
    assert_eq!(env, expected);
    let required = ["MODE".to_owned(), "GITHUB_TOKEN".to_owned()];
    assert_eq!(missing(&required, &env), ["GITHUB_TOKEN"]);
    assert_eq!(missing(&required, &map(&[("MODE", "")])).len(), 2);
}

/// The agent has the same vector.
#[test]
fn a_proof_is_what_the_protocol_says() {
    let hash = TokenHash::of("the-credential");
    assert_eq!(proof(&hash, "API_KEY", "hunter2"), VECTOR);
    assert_ne!(proof(&hash, "API_KEYh", "unter2"), VECTOR, "where the name ends counts");
}

const VECTOR: &str = "t2yKnRm9JkiJwRnn7fsVZwee433N2w20ts_k4bsCDyY";

#[test]
fn a_receipt_is_complete_when_each_loaded_name_is_proved() {
    let hash = TokenHash::of("the credential");
    let loaded = map(&[("A", "1"), ("B", "2"), ("C", "3"), ("HOME", "never")]);
    let said = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(n, v)| ((*n).to_owned(), proof(&hash, n, v))).collect()
    };
    let of = |said: &_| lacking(&hash, &loaded, said, Guards::ON);
    assert!(of(&said(&[("A", "1"), ("B", "2"), ("C", "3"), ("D", "4")])).nothing());
    let some = of(&said(&[("A", "1"), ("B", "two")]));
    assert_eq!(some.to_string(), "C missing; B not as it was loaded");
    let other = lacking(&TokenHash::of("another"), &loaded, &said(&[("A", "1")]), Guards::ON);
    assert_eq!(other.different, ["A"], "it proves nothing under another credential");
}

proptest! {
    #[test]
    fn whatever_is_sealed_can_be_opened(value in ".{0,200}", key: u8, nonce: [u8; NONCE_LEN]) {
        let keys = keys(key, None);
        prop_assert_eq!(keys.open(&keys.seal(&value, nonce)), Ok(value));
    }
}
