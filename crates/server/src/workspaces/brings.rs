//! What an instance brings along to prove itself with: by how its backend delivers, and by what its runtime can do.
//!
//! A file that is there before it starts holds a credential. Where only start-up data can be passed, a passport goes in,
//! and no secret of the workspace: its agent fetches those itself, once it is somebody. A runtime that can redeem nothing
//! comes with nothing: what its predecessors hold ends with the plan of its start, and it is given its secrets with
//! its start, or never.

use std::collections::{BTreeMap, BTreeSet};

use ligand_domain::credential::Token;
use ligand_domain::guards::Guard;
use ligand_domain::id::Generation;

use super::steps::Steps;
use super::{Workspace, store};
use crate::access::{self, For};
use crate::app::App;
use crate::backend::{Delivery, Spec, fleet};
use crate::journal::Work;
use crate::{secrets, templates};

/// Makes Ligand's agent fetch the secrets of its workspace before it starts its program.
const STANDBY: (&str, &str) = ("LIGAND_STANDBY", "pull");
/// The right to become one generation.
const PASSPORT: &str = "LIGAND_PASSPORT";
/// What writes to repositories. Only a workspace's own secrets of these names leave the platform.
const WRITES_CODE: [&str; 6] =
    ["BITBUCKET_TOKEN", "GH_TOKEN", "GITEA_TOKEN", "GITHUB_TOKEN", "GITLAB_TOKEN", "GIT_TOKEN"];

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brings {
    /// Its credential, in a file.
    Credential,
    /// A passport, in its environment.
    Passport,
    /// Nothing.
    Nothing,
}

impl Brings {
    /// What an instance of this workspace brings, where it is placed now.
    pub(crate) fn of(app: &App, workspace: &Workspace) -> Self {
        let placed = workspace.backend.as_deref();
        let Some((name, backend)) = placed.and_then(|name| Some((name, app.backends.get(name)?)))
        else {
            return Self::Credential;
        };
        let own = workspace.command.as_deref();
        match backend.delivery() {
            Delivery::File => Self::Credential,
            Delivery::StartData if app.config.redeems(own, &workspace.runtime, name) => {
                Self::Passport
            }
            Delivery::StartData => Self::Nothing,
        }
    }

    /// What of an environment leaves the platform. `bare` is the same without secrets, `own` names those that are the
    /// workspace's own.
    pub(super) fn dressed(
        self,
        mut env: BTreeMap<String, String>,
        mut bare: BTreeMap<String, String>,
        own: &BTreeSet<String>,
    ) -> BTreeMap<String, String> {
        match self {
            Self::Credential => env,
            Self::Passport => {
                bare.insert(STANDBY.0.to_owned(), STANDBY.1.to_owned());
                bare
            }
            Self::Nothing => {
                env.retain(|name, _| !WRITES_CODE.contains(&name.as_str()) || own.contains(name));
                env
            }
        }
    }
}

/// What one start was given.
pub(super) enum Given {
    Credential(Token),
    Passport(Token),
    Nothing,
}

impl Given {
    /// Put it where the instance finds it.
    pub(super) fn put_into(self, spec: &mut Spec) {
        spec.credential = None;
        match self {
            Self::Credential(token) => spec.credential = Some(token),
            Self::Passport(token) => {
                spec.env.insert(PASSPORT.to_owned(), token.reveal().to_owned());
            }
            Self::Nothing => {}
        }
    }
}

impl Steps<'_> {
    /// Commit with the plan of a generation what its instance will prove itself with.
    pub(super) async fn commit_proof(
        &self,
        work: &mut Work<'_>,
        workspace: &Workspace,
        generation: Generation,
    ) -> anyhow::Result<Given> {
        match Brings::of(self.app, workspace) {
            Brings::Credential => {
                let token = self.app.ids.token();
                if self.app.config.guards.hold(Guard::PlanCommits) {
                    let purpose = For::Start(generation);
                    access::keep(self.app, work, self.id, purpose, &token).await?;
                }
                Ok(Given::Credential(token))
            }
            Brings::Passport => self.passport(work, workspace, generation).await,
            Brings::Nothing => {
                if self.app.config.guards.hold(Guard::ForeignSuperseded) {
                    access::supersede_instances(&mut work.tx, self.id, work.now).await?;
                }
                Ok(Given::Nothing)
            }
        }
    }

    /// The same for a start that is resumed: another one, beside what was committed before.
    pub(super) async fn another_proof(
        &self,
        work: &mut Work<'_>,
        workspace: &Workspace,
        generation: Generation,
    ) -> anyhow::Result<Given> {
        if !self.app.config.guards.hold(Guard::ResumeBeside) {
            access::lapse_pending(&mut work.tx, self.id, generation, work.now).await?;
            access::end_passports_of(&mut work.tx, self.id, generation, work.now).await?;
        }
        match Brings::of(self.app, workspace) {
            Brings::Credential => {
                let purpose = For::Start(generation);
                Ok(Given::Credential(access::mint(self.app, work, self.id, purpose).await?))
            }
            Brings::Passport => self.passport(work, workspace, generation).await,
            Brings::Nothing => Ok(Given::Nothing),
        }
    }

    async fn passport(
        &self,
        work: &mut Work<'_>,
        workspace: &Workspace,
        generation: Generation,
    ) -> anyhow::Result<Given> {
        let deadline = templates::start_deadline(self.app, &workspace.runtime).await;
        let until = work.now.after(self.app.config.passport_term(deadline));
        let (of, backend) = ((self.id, generation), workspace.backend.as_deref());
        Ok(Given::Passport(access::mint_passport(self.app, work, of, backend, until).await?))
    }

    /// Names of the workspace's own secrets, where it matters whose they are.
    pub(super) async fn own_names(
        &self,
        work: &mut Work<'_>,
        brings: Brings,
    ) -> Result<BTreeSet<String>, sqlx::Error> {
        match brings {
            Brings::Nothing => secrets::own_names(&mut work.tx, self.id).await,
            Brings::Credential | Brings::Passport => Ok(BTreeSet::new()),
        }
    }

    /// The provider that somebody chose for the instance before this one, on the same backend.
    pub(super) async fn provider(
        &self,
        workspace: &Workspace,
        generation: Generation,
    ) -> anyhow::Result<Option<String>> {
        if Brings::of(self.app, workspace) == Brings::Credential {
            return Ok(None);
        }
        let latest = store::latest(&mut self.app.db.read().await?, self.id, 8).await?;
        let mut before = latest.into_iter().filter(|it| it.generation < generation);
        let before = before.find(|it| it.handle.is_some() && it.backend == workspace.backend);
        Ok(before.and_then(|it| it.handle).as_deref().and_then(fleet::provider_of))
    }
}
