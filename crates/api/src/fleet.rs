//! The fleet: instances on provider accounts, for many platforms.
//!
//! Keys that published clients read (`instance_id`, `private_ip`, `state`, `error`, `output`, `member`, `user_id`, `id`,
//! `admin_token`) are the contract's; the rest is additional.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an instance may use of the machine that runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Shares of processor time: 1024 are one core's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
}

/// Body of `POST /cp/workspaces/provision`. It has no `Debug`: its environment may hold secrets.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Provision {
    /// The caller's organisation. Empty: the one that its credentials belong to.
    #[serde(default)]
    pub org_id: String,
    /// Which workspace.
    pub workspace_id: String,
    /// Which instance of it. Without one the fleet counts, and there is one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// What it runs.
    #[serde(default)]
    pub runtime: String,
    /// 0 to 4: how much it is trusted. 0: nothing is said.
    #[serde(default)]
    pub tier: i64,
    /// Where the instance, and the fleet, reach the platform.
    #[serde(default)]
    pub platform_url: String,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Program and arguments; empty: what the provider's recipe for the runtime says. Begun with `ligand agent`, the fleet
    /// puts its own agent in the place of these two words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// On which provider; the fleet's default where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Files below its configuration directory, as base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config_files: BTreeMap<String, String>,
    /// Take away the sessions of earlier instances first.
    #[serde(default)]
    pub fresh_session: bool,
    /// What the contract has beside these, and no provider here looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
}

/// An instance, as the fleet says it. Answer 201 to `POST /cp/workspaces/provision`, and to
/// `GET /cp/workspaces/{id}/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Instance {
    /// The fleet's name for it, `i-…`.
    pub instance_id: String,
    /// Whose.
    pub workspace_id: String,
    /// Which.
    #[serde(default)]
    pub generation: i64,
    /// Where it is.
    #[serde(default)]
    pub provider: String,
    /// `pending`, `running`, `stopped`, `gone` or `unknown`. `running` is the only one that means alive.
    pub state: String,
    /// Where its agent answers; empty while that is not known.
    #[serde(default)]
    pub url: String,
    /// The host of that address.
    #[serde(default)]
    pub private_ip: String,
    /// How it ended, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Since when it is in that state (RFC 3339).
    #[serde(default)]
    pub since: String,
    /// What the state rests on.
    #[serde(default)]
    pub evidence: String,
    /// Why it is not what it is meant to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the next attempt is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
}

/// How an instance ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Exit {
    /// Exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The last thing that it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// Answer to `GET /cp/workspaces` and `GET /cp/workspaces/{id}/instances`: instances that have not ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Instances {
    /// By workspace and generation.
    pub instances: Vec<Instance>,
}

/// Answer to `GET`, `PUT` and `DELETE` of a workspace's data. `Carried` of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Data {
    /// SHA-256 over names, modes and content, in lower-case hexadecimal digits.
    pub digest: String,
    /// Files and directories.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Answer to `GET /cp/admin/workspaces/{id}/console`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Console {
    /// The end of what its instances said.
    pub output: String,
    /// The newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
}

/// Answer to `GET /cp/auth/tenant-member`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Membership {
    /// Whether the session is that of a member.
    pub member: bool,
    /// Whose it is; empty where it is nobody's.
    pub user_id: String,
}

/// Body of `POST /cp/admin/orgs`.
#[derive(Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NewOrg {
    /// Its name in addresses: small letters, digits, hyphens.
    pub slug: String,
    /// Its name for people; the slug where nothing is said.
    #[serde(default)]
    pub name: String,
    /// Its first member.
    #[serde(default)]
    pub owner_user_id: String,
    /// Its id; a new one where nothing is said.
    #[serde(default)]
    pub id: Option<String>,
    /// Where its platform answers; where nothing is said, what the platform says itself.
    #[serde(default)]
    pub platform_url: Option<String>,
    /// The token of its administrator, where the platform has one already; otherwise one is minted.
    #[serde(default)]
    pub admin_token: Option<String>,
    /// The secret that it provisions with, where that is not the fleet's.
    #[serde(default)]
    pub shared_secret: Option<String>,
    /// What its platform is told at its start.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// What its platform calls the backend of a provider, where that is not the provider's name.
    #[serde(default)]
    pub backends: BTreeMap<String, String>,
}

/// Body of `PATCH /cp/admin/orgs/{slug}`. What is not named stays.
#[derive(Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ChangeOrg {
    /// Its name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Where its platform answers.
    #[serde(default)]
    pub platform_url: Option<String>,
    /// What its platform is told at its start, as a whole.
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
    /// What its platform calls the backends of providers, as a whole.
    #[serde(default)]
    pub backends: Option<BTreeMap<String, String>>,
}

/// An organisation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Org {
    /// Its id.
    pub id: String,
    /// Its name in addresses.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Its first member.
    pub owner_user_id: String,
    /// Where its platform answers; empty while that is not known.
    pub platform_url: String,
    /// `pending` until its platform was heard of, then `running`, or `failed` where that said so.
    pub instance_status: String,
    /// The last thing that its platform said of its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_event: Option<String>,
    /// Names of what its platform is told at its start; never values.
    pub config_keys: Vec<String>,
    /// What its platform calls the backends of providers.
    pub backends: BTreeMap<String, String>,
    /// Instances of its workspaces that have not ended.
    pub instances: i64,
    /// When it was created.
    pub created_at: String,
}

/// Answer to `GET /cp/orgs` and `GET /cp/admin/orgs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Orgs {
    /// By slug.
    pub orgs: Vec<Org>,
}

/// Answer to `GET /cp/admin/orgs/{slug}/admin-token`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AdminToken {
    /// The token.
    pub admin_token: String,
}

/// Body of `DELETE /cp/admin/tenants/{slug}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Confirm {
    /// The slug once more.
    #[serde(default)]
    pub confirm: String,
}

/// Body of `POST /cp/admin/orgs/{slug}/members`, and of its removal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Member {
    /// Who.
    pub user_id: String,
}

/// Body of `POST /cp/admin/sessions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NewSession {
    /// Whose.
    pub user_id: String,
    /// Seconds for which it holds (default: 12 hours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A session, shown once.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Session {
    /// What a browser sends as its cookie: `ligand_session=…`.
    pub cookie: String,
    /// Until when it holds.
    pub expires_at: String,
}

/// Body of `POST /cp/tenants/boot-event`. Other fields are not looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BootEvent {
    /// What happened.
    #[serde(default)]
    pub event: String,
    /// Why it did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where the platform answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_url: Option<String>,
}

/// Body of `POST /cp/admin/workspaces/{id}/migrate-provider`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MigrateProvider {
    /// Where it is to go.
    pub provider: String,
}

/// Body of `POST /cp/admin/providers/{name}/drain`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DrainProvider {
    /// Where its workspaces are to go.
    pub to: String,
    /// Migrations at once (default 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// After so many that failed, no further one is begun (default 1; 0: never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after_failures: Option<u32>,
}

/// Workspaces on their way from one provider to another: one of them, or all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Transfer {
    /// Its id.
    pub id: Uuid,
    /// The provider that they leave.
    pub from: String,
    /// The provider that they go to.
    pub to: String,
    /// `running`, `paused`, `stopped` (too many failed), `aborted` or `done`.
    pub state: String,
    /// Migrations at once.
    pub concurrency: i64,
    /// After so many failures no further one is begun; 0: never.
    pub stop_after_failures: i64,
    /// Each of them.
    pub workspaces: Vec<TransferItem>,
    /// When it was asked for.
    pub started_at: String,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// One workspace of a [`Transfer`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TransferItem {
    /// Which.
    pub workspace_id: Uuid,
    /// Whose.
    pub org_id: String,
    /// `waiting`, `asked`, `migrated`, `failed`, or `kept` where its turn did not come.
    pub state: String,
    /// The platform's migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_id: Option<String>,
    /// The phase that it has come to, as the platform says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why it failed, or why the last attempt to ask did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Answer to `GET /cp/admin/drains`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Transfers {
    /// Newest first.
    pub drains: Vec<Transfer>,
}

/// A decision of the fleet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Decision {
    /// When.
    pub at: String,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// About which workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Uuid>,
    /// About which instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Of which kind.
    pub kind: String,
    /// In words.
    pub what: String,
}

/// Answer to `GET /cp/admin/journal`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Journal {
    /// Newest first.
    pub decisions: Vec<Decision>,
}
