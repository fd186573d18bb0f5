//! Where an agent says that it answers.
//!
//! An address is judged by what its name stands for, and asking that may take seconds. So it is asked
//! neither inside the transaction that admits (SQLite has one writer, and a decision must not be older than
//! what it mints) nor for a caller who would not be let in (strangers would choose what this server looks
//! up). Where a name is to be looked up, a register therefore knocks first, and everything that came of it
//! but a refusal is dropped; then names are resolved; then it is admitted in earnest. Nothing rests on the
//! first look: decision, mint and effect are the second transaction alone.

use std::net::IpAddr;

use ligand_api::registry::Register;
use reqwest::Url;
use serde_json::Value;

use super::http::{CARD_FAILED, FAILED};
use super::{Admitted, Knock, Whence};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::address::Address;
use crate::journal::Work;
use crate::workspaces::{self, Brings, Instance, Workspace};

/// An address, and what came of judging it. `None`: it was not judged, since its instance is trusted.
struct Judged {
    text: String,
    verdict: Option<std::result::Result<(), String>>,
}

/// What a register says about where the agent answers.
pub(super) struct Said {
    url: Option<Judged>,
    card: Option<Judged>,
}

impl Said {
    /// Read a register and judge its addresses.
    ///
    /// # Errors
    /// What admission says, where it has to be asked first.
    pub(super) async fn of(app: &App, knock: &Knock<'_>, request: &Register) -> Result<Self> {
        let url = request.url.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let card = url_of(&request.agent_card);
        let named = |text: Option<&str>| {
            text.is_some_and(|text| Address::parse(text).is_ok_and(|address| address.is_named()))
        };
        let skip = (named(url) || named(card)) && {
            match super::enter(app, knock, FAILED).await? {
                Some((mut work, admitted)) => trusted(&mut work, &admitted).await?,
                None => true,
            }
        };
        let judged = async |text: Option<&str>| match text {
            None => None,
            Some(text) => {
                let verdict = if skip { None } else { Some(advertised(app, text).await) };
                Some(Judged { text: text.to_owned(), verdict })
            }
        };
        Ok(Self { url: judged(url).await, card: judged(card).await })
    }

    /// Where turns will go. What a backend reported is trusted; of anything else the verdict counts.
    ///
    /// # Errors
    /// 400 with the reason; 503 when the database does not answer.
    pub(super) async fn settle(
        self,
        work: &mut Work<'_>,
        admitted: &Admitted,
        mode: &str,
    ) -> Result<Option<String>> {
        // An agent that polls may say outright that nothing can call it.
        let real = |said: &Judged| !(mode == "poll" && said.text.starts_with("remote://"));
        let (url, card) = (self.url.filter(real), self.card.filter(real));
        if !trusted(work, admitted).await? {
            if let Some(Err(why)) = url.as_ref().and_then(|said| said.verdict.clone()) {
                return Err(Error::invalid(why.clone(), format!("url: {why}")));
            }
            if let Some(Err(why)) = card.as_ref().and_then(|said| said.verdict.clone()) {
                let text = "workspace agent_card URL not allowed";
                return Err(Error::invalid(text, format!("agent_card.url: {why}")));
            }
        }
        match url.or(card) {
            Some(said) => Ok(Some(said.text)),
            None if mode == "push" => {
                Err(Error::bad_request("url is required for push-mode workspaces"))
            }
            None => Ok(None),
        }
    }
}

/// Whether the address in a new card may be called; a card without one is fine.
///
/// # Errors
/// What admission says, where it has to be asked first.
pub(super) async fn of_card(
    app: &App,
    knock: &Knock<'_>,
    card: &Value,
) -> Result<std::result::Result<(), String>> {
    let Some(text) = url_of(card) else { return Ok(Ok(())) };
    let address = match Address::parse(text) {
        Ok(address) => address,
        Err(why) => return Ok(Err(why)),
    };
    if address.is_named() {
        let trusted = match super::enter(app, knock, CARD_FAILED).await? {
            Some((mut work, admitted)) => trusted(&mut work, &admitted).await?,
            None => true,
        };
        if trusted {
            return Ok(Ok(()));
        }
    }
    Ok(address.may_be_called(app).await.map(|_| ()))
}

/// The address in a card, if it has one.
fn url_of(card: &Value) -> Option<&str> {
    card.get("url").and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

async fn advertised(app: &App, text: &str) -> std::result::Result<(), String> {
    Address::parse(text)?.may_be_advertised(app).await
}

/// Where a register says that its agent answers.
pub(super) fn said(request: &Register) -> Option<&str> {
    let url = request.url.as_deref().map(str::trim).filter(|text| !text.is_empty());
    url.or_else(|| url_of(&request.agent_card))
}

/// Whether a caller without a proof is somewhere else than the newest instance, for all that the backend says: one that
/// passes start-up data only, so that its instances may come without a proof. Until its start is confirmed nobody knows
/// where an instance is.
pub(super) fn is_elsewhere(
    app: &App,
    workspace: Option<&Workspace>,
    newest: Option<&Instance>,
    whence: Whence<'_>,
) -> bool {
    let (Some(workspace), Some(newest)) = (workspace, newest) else { return false };
    let Some(name) = newest.backend.as_deref() else { return false };
    let asked = app.config.backends.get(name).is_none_or(|of| !of.proxied);
    if !asked || Brings::of(app, workspace) == Brings::Credential {
        return false;
    }
    match (newest.url_reported, &newest.host) {
        (true, _) => !is_at(&newest.url, whence),
        (false, Some(host)) => !is_at(host, whence),
        (false, None) => false,
    }
}

/// Whether somebody is where an instance was reported: at an address with a port, or on a machine. What is said counts
/// where it can be compared; else the peer of the connection does.
fn is_at(reported: &str, whence: Whence<'_>) -> bool {
    let url = |text: &str| Url::parse(text).ok();
    let place = url(reported).filter(Url::has_host);
    let host = |url: &Url| url.host_str().map(|host| plain(host).to_owned());
    let there = place.as_ref().and_then(host).unwrap_or_else(|| plain(reported).to_owned());
    let port = place.as_ref().and_then(Url::port_or_known_default);
    let said = whence.says.and_then(url).filter(Url::has_host);
    let is_ip = |host: &str| host.parse::<IpAddr>().is_ok();
    if let Some((said, its)) = said.as_ref().and_then(|said| Some((said, host(said)?))) {
        if its == there {
            return port.is_none() || said.port_or_known_default() == port;
        }
        // Two addresses of one machine differ as texts: then the peer may be what was reported.
        if place.is_some() && is_ip(&its) {
            return false;
        }
    }
    whence.peer.is_some_and(|peer| there.parse() == Ok(peer))
}

/// A host without what surrounds or ends it in an address, and as a number where this machine is meant.
fn plain(host: &str) -> &str {
    let host = host.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host }
}

/// Whether what the caller says of its address is not what counts. An agent may be quicker than its
/// backend's word of the start, which brings the address that does; until then this one is judged at every
/// call.
pub(super) async fn trusted(work: &mut Work<'_>, admitted: &Admitted) -> Result<bool> {
    let of = (admitted.before.id, admitted.generation);
    let instance = workspaces::instance_of(&mut work.tx, of.0, of.1).await?;
    let unconfirmed =
        |instance: &Instance| instance.backend.is_some() && instance.started_at.is_none();
    Ok(instance.is_some_and(|instance| instance.url_reported || unconfirmed(&instance)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_where_it_was_reported_and_nowhere_else() {
        let at = |reported: &str, says: Option<&str>, peer: Option<&str>| {
            is_at(reported, Whence { says, peer: peer.map(|peer| peer.parse().unwrap()) })
        };
        let (address, machine) = ("http://10.0.0.5:8000", "10.0.0.5");
        assert!(at(address, Some("http://10.0.0.5:8000/a2a"), None));
        assert!(!at(address, Some("http://10.0.0.5:8001"), Some("10.0.0.5")));
        assert!(!at(address, Some("http://10.0.0.6:8000"), Some("10.0.0.5")));
        assert!(at(address, Some("http://box-7:8000"), Some("10.0.0.5")));
        assert!(!at(address, Some("http://box-7:8000"), Some("10.0.0.6")));
        assert!(at(machine, Some("http://10.0.0.5:8123"), None));
        assert!(at(machine, Some("http://203.0.113.9:8000"), Some("10.0.0.5")));
        assert!(!at(machine, Some("http://10.0.0.6:8000"), Some("10.0.0.6")));
        assert!(at(machine, None, Some("10.0.0.5")) && !at(machine, None, None));
        assert!(at("http://127.0.0.1:9", Some("http://localhost:9"), None));
        assert!(at("[fd00::5]", Some("http://[fd00::5]:1"), None));
    }
}
