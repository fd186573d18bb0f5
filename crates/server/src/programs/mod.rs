//! Programs that do not simply run: what is wanted of them, and what their agents say.
//!
//! An agent runs its program as long as nobody says otherwise, and then there is no row here. A migration says
//! otherwise: its candidate's program waits until it may run, and runs with secrets that its agent fetches; its
//! source's program stands by while its data leaves. Every heartbeat is answered with what is wanted, and carries
//! what is: `crates/server/src/registry/heartbeat.rs`. A nudge makes the next one come at once; nothing rests on it.
//!
//! Whoever writes here has locked the workspace.

mod store;

use std::time::Duration;

use ligand_api::registry::{ProgramState, ProgramWish};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::migration;
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;

use crate::app::App;
use crate::http::route::Route;
use crate::journal::Work;
use crate::workspaces;

pub use self::store::{forget, of, want, wanted};

type Done<T = ()> = Result<T, sqlx::Error>;

/// The wire's word for what does not run, and changes nothing.
const STANDS_BY: &str = "standing-by";
/// Where an agent is asked to send its heartbeat now.
const NUDGE: &str = ".well-known/ligand/nudge";
/// A nudge that takes longer has come too late.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is wanted of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it runs, with secrets that were fetched for this serial or a later one.
    Run(i64),
    /// That it does not. Whoever stands by because of this says the serial again: what was said because of an earlier
    /// wish, and comes late, counts for nothing.
    StandBy(i64),
}

impl Wish {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::StandBy(_) => "stand-by",
        }
    }

    const fn serial(self) -> i64 {
        match self {
            Self::Run(serial) | Self::StandBy(serial) => serial,
        }
    }

    /// As a heartbeat's answer says it.
    fn told(self) -> ProgramWish {
        ProgramWish { state: self.as_str().to_owned(), serial: Some(self.serial()) }
    }

    /// Whether this was said because of another wish to stand by. An agent that does not know serials names none.
    fn is_anothers(self, said: &ProgramState) -> bool {
        let Self::StandBy(serial) = self else { return false };
        said.state == STANDS_BY && said.serial.is_some_and(|of| of != serial)
    }
}

/// What an agent says of its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The wire's word.
    pub state: String,
    /// The serial for which its secrets were fetched; of one that stands by, that of the wish because of which it does.
    pub serial: Option<i64>,
    /// When it said so last.
    pub at: Timestamp,
}

/// A program of which something is wanted, or was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What is wanted, if somebody said so.
    pub wanted: Option<Wish>,
    /// What its agent said last.
    pub reported: Option<Reported>,
    /// The restarts that had been asked for when its secrets were fetched last: what was written before is among
    /// them.
    pub fetched: Option<i64>,
}

impl Program {
    /// What it does, as far as is known. Of the serials the smaller one counts: an agent says which secrets its
    /// program was started with, and this server knows which ones it ever gave.
    #[must_use]
    pub fn doing(&self) -> migration::Program {
        let Some(reported) = &self.reported else { return migration::Program::Unknown };
        match (reported.state.as_str(), reported.serial, self.fetched) {
            (STANDS_BY, ..) => migration::Program::StandsBy,
            ("running", None, _) => migration::Program::Runs(0),
            ("running", Some(said), Some(given)) => migration::Program::Runs(said.min(given)),
            _ => migration::Program::Unknown,
        }
    }
}

/// Take down what an agent says, and give what is wanted of it. A candidate of which nothing is wanted waits. Any
/// other agent that stands by, though nobody wants it to, is told to run: it was started to wait, and started again
/// after it had become the workspace.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn heard(
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    candidate: bool,
    said: Option<&ProgramState>,
) -> Done<Option<ProgramWish>> {
    // To say nothing is to say that it runs as usual: an agent that was started anew knows nothing of standing by.
    let usual = ProgramState { state: "running".to_owned(), serial: None };
    let wish = wanted(&mut work.tx, of).await?;
    let of_now = |said: &&ProgramState| !wish.is_some_and(|wish| wish.is_anothers(said));
    if let Some(said) = said.or((!candidate).then_some(&usual)).filter(of_now) {
        store::report(&mut work.tx, of, said, candidate, work.now).await?;
    }
    if let Some(wish) = wish {
        return Ok(Some(wish.told()));
    }
    let waits = said.is_some_and(|said| said.state == STANDS_BY) && !candidate;
    Ok(waits.then(|| ProgramWish { state: "run".to_owned(), serial: None }))
}

/// A candidate is given its secrets in this transaction, which has read them and the restarts that were asked for:
/// `serial`. That is the load of its start. What its program held until now proves nothing any more.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn fetched(
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    serial: i64,
) -> Done {
    store::fetched(&mut work.tx, of, serial).await?;
    // One that sends no receipts would be held for one that lacks them, for ever.
    let instance = workspaces::instance_of(&mut work.tx, of.0, of.1).await?;
    match instance.is_some_and(|instance| instance.features.receipt) {
        true => workspaces::set_receipt(&mut work.tx, of, Receipt::Incomplete).await,
        false => Ok(()),
    }
}

/// Ask an agent to send its heartbeat now, in the background. Whether it does nobody is told. `reported`: its backend
/// said that this is its address.
pub fn nudge(app: &App, url: &str, reported: bool) {
    let (nudges, url) = (app.clone(), url.to_owned());
    app.spawn(async move {
        let sent = async {
            let to = format!("{}/{NUDGE}", url.trim_end_matches('/'));
            let Route { url, http } = Route::to(&nudges, &to, reported).await.ok()?;
            http.post(url).timeout(PATIENCE).send().await.ok()
        };
        if sent.await.is_none() {
            tracing::debug!("a nudge did not arrive; the next heartbeat comes without it");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_because_of_an_earlier_wish_is_no_answer_to_this_one() {
        let said = |state: &str, serial| ProgramState { state: state.to_owned(), serial };
        let wish = Wish::StandBy(7);
        for (state, serial, anothers) in [
            ("standing-by", Some(7), false),
            ("standing-by", Some(6), true),
            ("standing-by", Some(0), true),
            ("standing-by", None, false),
            ("running", Some(3), false),
            ("stopping", Some(6), false),
        ] {
            assert_eq!(wish.is_anothers(&said(state, serial)), anothers, "{state} {serial:?}");
        }
        assert!(!Wish::Run(7).is_anothers(&said("standing-by", Some(0))), "a candidate that waits");
    }

    #[test]
    fn a_serial_counts_as_far_as_both_ends_say_it() {
        let doing = |state: &str, serial, fetched| {
            let at = Timestamp::from_micros(0);
            let reported = Some(Reported { state: state.to_owned(), serial, at });
            Program { wanted: None, reported, fetched }.doing()
        };
        assert_eq!(doing("running", Some(5), Some(5)), migration::Program::Runs(5));
        assert_eq!(doing("running", Some(4), Some(5)), migration::Program::Runs(4));
        assert_eq!(doing("running", Some(9), Some(5)), migration::Program::Runs(5));
        assert_eq!(doing("running", Some(9), None), migration::Program::Unknown);
        assert_eq!(doing("running", None, None), migration::Program::Runs(0), "as it was started");
        assert_eq!(doing("standing-by", None, None), migration::Program::StandsBy);
        assert_eq!(doing("standing-by", Some(2), None), migration::Program::StandsBy);
        for other in ["starting", "stopping", "", "dancing"] {
            assert_eq!(doing(other, Some(5), Some(5)), migration::Program::Unknown, "{other}");
        }
    }
}
