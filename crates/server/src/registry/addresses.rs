//! Where an agent says that it answers.
//!
//! An address is judged by what its name stands for, and asking that may take seconds. So it is asked
//! neither inside the transaction that admits (SQLite has one writer, and a decision must not be older than
//! what it mints) nor for a caller who would not be let in (strangers would choose what this server looks
//! up). Where a name is to be looked up, a register therefore knocks first, and everything that came of it
//! but a refusal is dropped; then names are resolved; then it is admitted in earnest. Nothing rests on the
//! first look: decision, mint and effect are the second transaction alone.

use ligand_api::registry::Register;
use serde_json::Value;

use super::http::{CARD_FAILED, FAILED};
use super::{Admitted, Knock};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::address::Address;
use crate::journal::Work;
use crate::workspaces::{self, Instance};

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
