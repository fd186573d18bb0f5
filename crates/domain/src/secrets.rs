//! Secrets: how they are stored, which of them an instance gets, and how its agent proves that it did.
//!
//! A stored secret is a 12-byte nonce, the ciphertext and a 16-byte tag (AES-256-GCM, version 1), or, where no
//! key is set, the plain bytes (version 0). Nonces are arguments: whoever calls owns the randomness.
//!
//! A *receipt* says for each name the HMAC-SHA256 of name, a zero byte and value, keyed with the SHA-256 of the
//! credential that is presented with it: which is what the platform stores of that credential. So neither side
//! shows a value, and nobody can send again what another credential proved.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use sha2::{Digest as _, Sha256};

use crate::credential::TokenHash;
use crate::guards::{Guard, Guards};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// The name of the secret that holds the model a runtime is told to use.
pub const MODEL: &str = "MODEL_PROVIDER";
/// Longest name, in bytes.
pub const LONGEST_NAME: usize = 256;
/// Longest name and value together, in bytes: Linux takes no longer entry of an environment, its `=` and its end
/// included.
pub const LONGEST_ENTRY: usize = 128 * 1024 - 2;

/// Names that the platform or the agent sets itself. A secret of such a name would never reach a program.
pub const TAKEN: [&str; 11] = [
    "WORKSPACE_ID",
    "WORKSPACE_CONFIG_PATH",
    "WORKSPACE_DIR",
    "CONFIGS_DIR",
    "PLATFORM_URL",
    "MOLECULE_URL",
    "MOLECULE_ORG_ID",
    "HOME",
    "HOST",
    "PORT",
    "PYTHONUNBUFFERED",
];
/// What steers the agent is kept from its program.
pub const AGENTS_OWN: &str = "LIGAND_";

/// A key that secrets are encrypted with. It has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// From a setting: base64 of 32 bytes, or exactly 32 bytes. `None`: neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
        let decoded = decoded.or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')));
        let decoded = decoded.ok().and_then(|bytes| bytes.try_into().ok());
        decoded.or_else(|| text.as_bytes().try_into().ok()).map(Self)
    }

    /// By which stored secrets say with which key they were encrypted. Tells nothing of the key.
    #[must_use]
    pub fn name(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"ligand secrets key\0");
        hasher.update(self.0);
        hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("it has the length of a key");
        LessSafeKey::new(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// The keys of a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Encrypts and decrypts. `None`: secrets are stored as they are.
    pub current: Option<Key>,
    /// Only decrypts: the one before.
    pub previous: Option<Key>,
}

/// A secret as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// 1: encrypted. 0: as it is. Nothing else is known.
    pub version: i64,
    /// Nonce, ciphertext and tag; or the value.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored(version {})", self.version)
    }
}

/// A stored secret cannot be read. Says why, and nothing of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A version that nobody knows.
    #[error("encryption version {0} is not known")]
    Version(i64),
    /// It is encrypted, and there is no key.
    #[error("no key is set")]
    NoKey,
    /// No key opens it.
    #[error("no key opens it")]
    WrongKey,
    /// It is no text.
    #[error("it is not UTF-8")]
    NoText,
}

impl Keys {
    /// Encrypt a value for storing, if there is a key. The nonce must never come twice under one key.
    #[must_use]
    pub fn seal(&self, value: &str, nonce: [u8; NONCE_LEN]) -> Stored {
        let Some(key) = &self.current else {
            return Stored { version: 0, bytes: value.as_bytes().to_vec() };
        };
        let mut sealed = value.as_bytes().to_vec();
        let once = Nonce::assume_unique_for_key(nonce);
        let tag = key.cipher().seal_in_place_separate_tag(once, Aad::empty(), &mut sealed);
        // It fails beyond 64 GiB alone, and no body is that long.
        let tag = tag.expect("a value that came in a request can be encrypted");
        let bytes = [nonce.as_slice(), &sealed, tag.as_ref()].concat();
        Stored { version: 1, bytes }
    }

    /// Read a stored value, by whichever key opens it.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open(&self, stored: &Stored) -> Result<String, Unreadable> {
        let bytes = match stored.version {
            0 => stored.bytes.clone(),
            1 => self.decrypt(&stored.bytes)?,
            other => return Err(Unreadable::Version(other)),
        };
        String::from_utf8(bytes).map_err(|_| Unreadable::NoText)
    }

    fn decrypt(&self, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let keys = || self.current.iter().chain(&self.previous);
        if keys().next().is_none() {
            return Err(Unreadable::NoKey);
        }
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(Unreadable::WrongKey)?;
        let opened = keys().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let opened = key.cipher().open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
            Some(opened.to_vec())
        });
        opened.ok_or(Unreadable::WrongKey)
    }
}

/// Why a name and a value cannot be a secret; what was expected, with the field, and nothing of the value.
///
/// # Errors
/// That sentence.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(format!(
            "key: expected 1 to {LONGEST_NAME} letters, digits, `_`, `-` or `.`: it names a variable"
        ));
    }
    if !deliverable(name) {
        return Err(format!("key: {name} is set by the platform itself"));
    }
    if value.is_empty() || value.contains('\0') {
        return Err("value: expected a text that is not empty, without a zero in it".to_owned());
    }
    if name.len() + value.len() > LONGEST_ENTRY {
        return Err(format!("value: expected at most {LONGEST_ENTRY} bytes, with its key"));
    }
    Ok(())
}

/// Whether a secret of this name can reach a program. What was stored before there was a check may not.
#[must_use]
pub fn deliverable(name: &str) -> bool {
    !TAKEN.contains(&name) && !name.starts_with(AGENTS_OWN)
}

/// Where a secret applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To every workspace that has none of its name.
    Global,
    /// To one workspace.
    Workspace,
}

impl Scope {
    /// As the wire says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Workspace => "workspace",
        }
    }
}

/// What a workspace has: every global entry, overlaid by its own of the same name.
pub fn merged<T>(
    global: impl IntoIterator<Item = (String, T)>,
    own: impl IntoIterator<Item = (String, T)>,
) -> BTreeMap<String, (Scope, T)> {
    let of = |scope| move |(name, entry)| (name, (scope, entry));
    let global = global.into_iter().map(of(Scope::Global));
    global.chain(own.into_iter().map(of(Scope::Workspace))).collect()
}

/// Whom an environment is for.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The workspace's name.
    pub name: &'a str,
    /// What runs it.
    pub runtime: &'a str,
    /// The model that it was created with.
    pub model: Option<&'a str>,
    /// What it is for.
    pub role: Option<&'a str>,
}

/// Put an environment together: what the platform says, then the recipe, then the secrets; whatever stands there
/// by then wins over the git identity, the model and the role. Names that the platform keeps to itself are never
/// taken from a secret.
#[must_use]
pub fn environment(
    platform: BTreeMap<String, String>,
    recipe: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
    whose: Whose<'_>,
) -> BTreeMap<String, String> {
    let mut env = platform;
    env.extend(recipe.clone());
    let delivered = secrets.iter().filter(|(name, _)| deliverable(name));
    env.extend(delivered.map(|(name, value)| (name.clone(), value.clone())));
    let mut unless_set = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            env.entry(name.to_owned()).or_insert(value);
        }
    };
    let author = format!("Molecule AI {}", whose.name);
    let address = format!("{}@agents.moleculesai.app", slug(whose.name));
    for who in ["AUTHOR", "COMMITTER"] {
        unless_set(&format!("GIT_{who}_NAME"), Some(author.clone()));
        unless_set(&format!("GIT_{who}_EMAIL"), Some(address.clone()));
    }
    unless_set("MODEL", whose.model.map(str::to_owned));
    if whose.runtime == "hermes" {
        let model = whose.model.map(str::to_owned).or_else(|| secrets.get(MODEL).cloned());
        unless_set("HERMES_DEFAULT_MODEL", model);
    }
    unless_set("MOLECULE_AGENT_ROLE", whose.role.map(str::to_owned));
    env
}

/// A name as part of an address: small letters and digits, hyphens between them.
fn slug(name: &str) -> String {
    let small = name.to_lowercase();
    let words = small.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() { "agent".to_owned() } else { slug }
}

/// The names that an environment lacks. A variable that is empty is as good as none.
#[must_use]
pub fn missing(required: &[String], env: &BTreeMap<String, String>) -> Vec<String> {
    let lacks = |name: &&String| env.get(*name).is_none_or(String::is_empty);
    required.iter().filter(lacks).cloned().collect()
}

/// What a receipt says of one secret.
#[must_use]
pub fn proof(credential: &TokenHash, name: &str, value: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, credential.bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(value.as_bytes());
    URL_SAFE_NO_PAD.encode(context.sign())
}

/// What an instance has shown of the secrets that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// All of them.
    Complete,
    /// Not all of them.
    Incomplete,
}

impl Receipt {
    /// Text form in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Complete, Self::Incomplete].into_iter().find(|it| it.as_str() == text)
    }
}

/// What a receipt comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacking {
    /// Nothing was said of these.
    pub missing: Vec<String>,
    /// These are held with another value.
    pub different: Vec<String>,
}

impl Lacking {
    /// Whether the receipt is complete.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty()
    }
}

impl fmt::Display for Lacking {
    /// Names alone, never values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(&self.missing, "missing"), (&self.different, "not as it was loaded")];
        let mut parts = parts.into_iter().filter(|(names, _)| !names.is_empty());
        if let Some((names, how)) = parts.next() {
            write!(f, "{} {how}", names.join(", "))?;
        }
        parts.try_for_each(|(names, how)| write!(f, "; {} {how}", names.join(", ")))
    }
}

/// What a receipt lacks of what was loaded. It covers the names that can be delivered; whatever else it says is of
/// no interest.
#[must_use]
pub fn lacking(
    credential: &TokenHash,
    loaded: &BTreeMap<String, String>,
    receipt: &BTreeMap<String, String>,
    guards: Guards,
) -> Lacking {
    let mut lacking = Lacking::default();
    if !guards.hold(Guard::Receipt) {
        return lacking;
    }
    for (name, value) in loaded.iter().filter(|(name, _)| deliverable(name)) {
        match receipt.get(name) {
            None => lacking.missing.push(name.clone()),
            Some(said) if *said != proof(credential, name, value) => {
                lacking.different.push(name.clone());
            }
            Some(_) => {}
        }
    }
    lacking
}

#[cfg(test)]
mod tests;
