//! A platform asks for an instance.

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::fleet::Provision;
use ligand_domain::backoff::Failures;
use ligand_domain::fleet::{Asked, Existing, Intent, Placing, Recreations, State, place};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::secrets::Stored;
use ligand_domain::time::Timestamp;
use ligand_server::db::Tx;
use ligand_server::error::{Error, Result};

use super::{Instance, MOMENT, PATIENCE, provider, spec, store};
use crate::app::Fleet;
use crate::journal::{self, About};
use crate::tenants::{self, Tenant};

/// Write down that it is wanted, wait until it is there, and say which it is. What is wanted is committed before
/// anything is asked of a provider, so a crash at any point leaves a row that the next server takes up.
pub(super) async fn provision(
    fleet: &Fleet,
    tenant: &Tenant,
    asked: &Provision,
) -> Result<Instance> {
    let mistakes = spec::mistakes(asked, &tenant.org_id);
    if !mistakes.is_empty() {
        return Err(Error::invalid("invalid provision request", mistakes.join("; ")));
    }
    let name = asked.provider.as_deref().unwrap_or(&fleet.config.provider);
    provider(fleet, name)?;
    let workspace: WorkspaceId = asked.workspace_id.parse().map_err(|_| {
        Error::invalid("invalid provision request", "workspace_id: expected a UUID")
    })?;
    let text = serde_json::to_string(asked).map_err(Error::internal("cannot keep the request"))?;
    let wanted = Wanted {
        workspace,
        generation: asked.generation.map(Generation::new),
        provider: name,
        runtime: &asked.runtime,
        wish: spec::wish(fleet, asked),
        spec: fleet.seal(&text),
    };
    let mut tx = fleet.db.begin().await?;
    let id = wanted.place(fleet, &mut tx, tenant).await?;
    if tenant.platform_url.is_empty() && !asked.platform_url.is_empty() {
        let url = tenants::platform_url(&asked.platform_url).unwrap_or_default();
        tenants::learn_platform(&mut tx, &tenant.org_id, &url).await?;
    }
    tx.commit().await?;
    fleet.ring();
    until(fleet, &tenant.org_id, &id, started).await
}

/// A call for an instance, as it will be written down.
struct Wanted<'a> {
    workspace: WorkspaceId,
    generation: Option<Generation>,
    provider: &'a str,
    runtime: &'a str,
    wish: Vec<u8>,
    spec: Stored,
}

impl Wanted<'_> {
    /// Decide which instance is meant, and commit to it.
    async fn place(&self, fleet: &Fleet, tx: &mut Tx, tenant: &Tenant) -> Result<String> {
        let now = fleet.clock.now();
        let known = store::claim(tx, self.workspace, &tenant.org_id, self.provider).await?;
        if known.org != tenant.org_id {
            let detail = "workspace_id: expected one of this organisation";
            return Err(conflict("workspace conflict", detail.to_owned(), "conflict"));
        }
        let rows = store::of_workspace(tx, self.workspace).await?;
        let rows: Vec<Existing> = rows.into_iter().map(existing).collect();
        let asked =
            Asked { generation: self.generation, provider: self.provider, wish: &self.wish };
        match place(asked, Generation::new(known.generation), &rows) {
            Placing::Same(id) => Ok(id),
            Placing::Again(id) => {
                store::revive(tx, &id, &self.wish, &self.spec, now).await?;
                self.note(fleet, tx, tenant, &id, "asked for again, after its start had failed")
                    .await?;
                Ok(id)
            }
            Placing::New { generation, ends } => {
                for elder in &ends {
                    store::want(tx, elder, Intent::End, now).await?;
                    self.note(fleet, tx, tenant, elder, "replaced by another wish").await?;
                }
                store::raise(tx, self.workspace, generation, self.provider).await?;
                let new = self.instance(fleet, tenant, generation, now);
                store::insert(tx, &new).await?;
                let what = format!("generation {generation} asked for on {}", self.provider);
                self.note(fleet, tx, tenant, &new.id, &what).await?;
                Ok(new.id)
            }
            Placing::Over => Err(conflict(
                "instance is over",
                "generation: expected one that has not ended".to_owned(),
                "ended",
            )),
            Placing::Superseded(newest) => Err(conflict(
                "instance is superseded",
                format!("generation: expected {newest} or above"),
                "superseded",
            )),
            Placing::Elsewhere(provider) => Err(conflict(
                "instance is elsewhere",
                format!("provider: this generation is on {provider}"),
                "conflict",
            )),
        }
    }

    async fn note(
        &self,
        fleet: &Fleet,
        tx: &mut Tx,
        tenant: &Tenant,
        id: &str,
        what: &str,
    ) -> Result<()> {
        let about = About {
            org: Some(&tenant.org_id),
            workspace: Some(self.workspace),
            instance: Some(id),
        };
        Ok(journal::note(fleet, tx, about, "provision", what).await?)
    }

    fn instance(
        &self,
        fleet: &Fleet,
        tenant: &Tenant,
        generation: Generation,
        now: Timestamp,
    ) -> Instance {
        Instance {
            id: format!("i-{}", fleet.ids.instance().uuid().simple()),
            org: tenant.org_id.clone(),
            workspace: self.workspace,
            generation,
            counted: self.generation.is_none(),
            provider: self.provider.to_owned(),
            runtime: self.runtime.to_owned(),
            wish: self.wish.clone(),
            spec: Some(self.spec.clone()),
            intent: Intent::Run,
            state: State::Pending,
            since: now,
            evidence: "asked for".to_owned(),
            exit: None,
            handle: String::new(),
            address: None,
            last_error: None,
            failures: Failures::default(),
            recreations: Recreations::default(),
            booting_until: None,
            confirmed_at: None,
            ended_at: None,
            due: now,
            version: 0,
            created_at: now,
        }
    }
}

fn existing(it: Instance) -> Existing {
    Existing {
        id: it.id,
        generation: it.generation,
        provider: it.provider,
        wish: it.wish,
        intent: it.intent,
        confirmed: it.confirmed_at.is_some(),
        ended: it.ended_at.is_some(),
    }
}

fn conflict(error: &str, detail: String, code: &str) -> Error {
    let body = ErrorBody::new(error).detail(detail).code(code);
    Error::Refused(StatusCode::CONFLICT, Box::new(body))
}

/// Whether a start is decided: it is there, it failed, or its first attempt did.
fn started(it: &Instance) -> bool {
    it.state != State::Pending || it.ended_at.is_some() || it.last_error.is_some()
}

/// Wait until an instance is as told, for as long as a caller waits; then as it is.
pub(super) async fn until(
    fleet: &Fleet,
    org: &str,
    id: &str,
    done: impl Fn(&Instance) -> bool,
) -> Result<Instance> {
    let mut heard = fleet.changed.subscribe();
    let mut looks = PATIENCE.as_millis() / MOMENT.as_millis();
    loop {
        heard.mark_unchanged();
        let mut tx = fleet.db.read().await?;
        let found = store::get(&mut tx, org, id).await?;
        drop(tx);
        let it = found.ok_or_else(|| Error::not_found("instance not found"))?;
        if done(&it) || looks == 0 || fleet.stop.is_cancelled() {
            return Ok(it);
        }
        looks -= 1;
        fleet.a_change(&mut heard, MOMENT).await;
    }
}
