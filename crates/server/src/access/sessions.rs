//! Sessions of people: a cookie of the control plane, which is asked whose it is. What it said holds for a
//! moment, so that a page that asks ten things at once asks it once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use ligand_domain::credential::TokenHash;
use ligand_domain::time::Timestamp;
use serde::Deserialize;

use crate::app::App;

/// Longest wait for the control plane.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer of the control plane.
const MAX_ANSWER: usize = 64 << 10;
/// How long a yes holds.
const YES: Duration = Duration::from_secs(30);
/// How long a no holds.
const NO: Duration = Duration::from_secs(5);
/// Most answers that are remembered.
const MOST: usize = 10_000;
/// How many make room for a new one.
const EVICT: usize = 128;
/// Answers that hold no more are swept this often.
const SWEEP_EVERY: Duration = Duration::from_secs(120);

/// What a request's cookie is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// There is none, or nobody to ask about it.
    Absent,
    /// One that the control plane did not confirm.
    Refused,
    /// That of a member of the organisation.
    Member,
}

/// What the control plane said.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    said: BTreeMap<TokenHash, Said>,
    swept: Timestamp,
}

#[derive(Clone, Copy)]
struct Said {
    member: bool,
    until: Timestamp,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    member: bool,
    #[serde(default)]
    user_id: String,
}

impl Sessions {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn get(&self, key: &TokenHash, now: Timestamp) -> Option<bool> {
        self.said.get(key).filter(|said| said.until > now).map(|said| said.member)
    }

    /// `entropy` says where room is made, so that nobody can foresee who has to ask again.
    fn put(&mut self, key: TokenHash, member: bool, now: Timestamp, entropy: [u8; 32]) {
        if now.since(self.swept) >= SWEEP_EVERY {
            self.said.retain(|_, said| said.until > now);
            self.swept = now;
        }
        if self.said.len() >= MOST && !self.said.contains_key(&key) {
            let pivot = TokenHash::from_bytes(entropy);
            let (after, before) = (self.said.range(pivot..), self.said.range(..pivot));
            let goes: Vec<_> = after.chain(before).take(EVICT).map(|(key, _)| *key).collect();
            for key in goes {
                self.said.remove(&key);
            }
        }
        let until = now.after(if member { YES } else { NO });
        self.said.insert(key, Said { member, until });
    }
}

/// One key for one cookie of one organisation. The zero byte is in neither.
fn key(slug: &str, cookie: &str) -> TokenHash {
    TokenHash::of(&format!("{slug}\0{cookie}"))
}

/// Whose session a request carries.
pub(crate) async fn session(app: &App, headers: &HeaderMap) -> Session {
    let edge = &app.config.edge;
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    let Some(slug) = edge.org_slug.as_deref().filter(|_| !cookie.is_empty()) else {
        return Session::Absent;
    };
    let Some(control_plane) = edge.control_plane.as_deref() else {
        return Session::Refused;
    };
    let (key, now) = (key(slug, &cookie), app.clock.now());
    let known = app.sessions().memory().get(&key, now);
    let member = match known {
        Some(member) => member,
        None => match ask(app, control_plane, slug, &cookie).await {
            Ok(member) => {
                let entropy = app.ids.bytes();
                app.sessions().memory().put(key, member, app.clock.now(), entropy);
                member
            }
            Err(cause) => {
                // It may answer in a moment: nothing is remembered.
                let cause = cause.without_url();
                tracing::warn!(error = %cause, "the control plane could not be asked about a session");
                false
            }
        },
    };
    if member { Session::Member } else { Session::Refused }
}

/// # Errors
/// When there was no answer. An answer that is not understood is a no.
async fn ask(
    app: &App,
    control_plane: &str,
    slug: &str,
    cookie: &str,
) -> Result<bool, reqwest::Error> {
    let request = app.http.get(format!("{control_plane}/cp/auth/tenant-member"));
    let request = request
        .query(&[("slug", slug)])
        .header(header::COOKIE, cookie)
        .header(header::USER_AGENT, "molecule-tenant-platform/session-verifier")
        .timeout(PATIENCE);
    let mut response = request.send().await?;
    if response.status() != reqwest::StatusCode::OK {
        return Ok(false);
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            return Ok(false);
        }
    }
    let answer = serde_json::from_slice::<Answer>(&answer);
    Ok(answer.is_ok_and(|answer| answer.member && !answer.user_id.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn se_10_se_11_answers_are_forgotten_when_they_end_and_when_there_are_too_many() {
        let (mut memory, now) = (Memory::default(), Timestamp::from_micros(0));
        let key_of = |number: usize| key("acme", &number.to_string());
        for number in 0..MOST + 1 {
            memory.put(key_of(number), true, now, [7; 32]);
            assert!(memory.said.len() <= MOST);
        }
        assert_eq!(memory.said.len(), MOST - EVICT + 1);
        assert_eq!(memory.get(&key_of(MOST), now), Some(true));
        assert_eq!(memory.get(&key_of(MOST), now.after(YES)), None);
        memory.put(key_of(0), false, now.after(SWEEP_EVERY), [7; 32]);
        assert_eq!(memory.said.len(), 1, "what ended is swept");
        assert_eq!(memory.get(&key_of(0), now.after(SWEEP_EVERY)), Some(false));
        assert_eq!(memory.get(&key_of(0), now.after(SWEEP_EVERY).after(NO)), None);
    }

    #[test]
    fn se_09_se_12_no_two_sessions_share_a_key() {
        assert_eq!(key("a", "b=c"), key("a", "b=c"));
        assert_ne!(key("a", "b=c"), key("b", "b=c"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }
}
