//! Choices of configurations in the database.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::template::Source;

use super::{Choice, Done};
use crate::db::{Tx, on};

#[derive(sqlx::FromRow)]
struct Stored {
    source: String,
    name: String,
    required_env: String,
    source_at: i64,
    fresh_at: i64,
    carried_by: i64,
    delivered: i64,
}

/// A workspace's choice, and how far it came.
pub(super) struct Row {
    pub(super) source: Source,
    pub(super) required_env: Vec<String>,
    /// The number of the choice that named the source.
    pub(super) source_at: i64,
    /// The number of the choice that asked for a fresh session.
    pub(super) fresh_at: i64,
    /// The start that carries what is not delivered yet.
    pub(super) carried_by: Generation,
    /// The last number that a confirmed start delivered.
    pub(super) delivered: i64,
}

impl TryFrom<Stored> for Row {
    type Error = sqlx::Error;

    fn try_from(row: Stored) -> Result<Self, sqlx::Error> {
        let unknown = |column| {
            let what =
                format!("configurations.{column} holds a value that this version does not know");
            sqlx::Error::Decode(what.into())
        };
        Ok(Self {
            source: Source::from_parts(&row.source, &row.name).ok_or_else(|| unknown("source"))?,
            required_env: serde_json::from_str(&row.required_env)
                .map_err(|_| unknown("required_env"))?,
            source_at: row.source_at,
            fresh_at: row.fresh_at,
            carried_by: Generation::new(row.carried_by),
            delivered: row.delivered,
        })
    }
}

pub(super) async fn get(tx: &mut Tx, workspace: WorkspaceId) -> Done<Option<Row>> {
    let row: Option<Stored> = on!(tx, c => sqlx::query_as("SELECT source, name, required_env, source_at, fresh_at, carried_by, delivered
            FROM configurations WHERE workspace_id = $1")
        .bind(workspace.uuid()).fetch_optional(c).await)?;
    row.map(Row::try_from).transpose()
}

/// A workspace that was created before there was a choice has no row yet. Its own row is locked.
async fn prepare(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO configurations (workspace_id, source)
            SELECT w.id, 'existing' FROM workspaces w
            WHERE w.id = $1 AND NOT EXISTS (SELECT 1 FROM configurations c WHERE c.workspace_id = w.id)")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

fn json(names: &[String]) -> String {
    serde_json::json!(names).to_string()
}

/// The next start delivers this.
pub(super) async fn choose(
    tx: &mut Tx,
    workspace: WorkspaceId,
    choice: &Choice,
    fresh: bool,
) -> Done {
    prepare(tx, workspace).await?;
    let (source, name) = choice.source.parts();
    on!(tx, c => sqlx::query("UPDATE configurations SET source = $1, name = $2, required_env = $3, wanted = wanted + 1,
            source_at = wanted + 1, fresh_at = CASE WHEN $4 THEN wanted + 1 ELSE fresh_at END
            WHERE workspace_id = $5")
        .bind(source).bind(name).bind(json(&choice.required_env)).bind(fresh).bind(workspace.uuid())
        .execute(c).await.map(|_| ()))
}

/// The next start forgets the sessions before it; what was chosen before stands.
pub(super) async fn choose_fresh(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    prepare(tx, workspace).await?;
    on!(tx, c => sqlx::query("UPDATE configurations SET wanted = wanted + 1, fresh_at = wanted + 1 WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// What was read of the configuration that is being delivered.
pub(super) async fn require(tx: &mut Tx, workspace: WorkspaceId, names: &[String]) -> Done {
    on!(tx, c => sqlx::query("UPDATE configurations SET required_env = $1 WHERE workspace_id = $2")
        .bind(json(names)).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// This generation was planned: it carries what is not delivered yet.
pub(crate) async fn planned(tx: &mut Tx, workspace: WorkspaceId, generation: Generation) -> Done {
    on!(tx, c => sqlx::query("UPDATE configurations SET carried = wanted, carried_by = $1
            WHERE workspace_id = $2 AND wanted > delivered")
        .bind(generation.number()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// The start of this generation was confirmed: what it carried is there.
pub(crate) async fn delivered(tx: &mut Tx, workspace: WorkspaceId, generation: Generation) -> Done {
    on!(tx, c => sqlx::query("UPDATE configurations SET delivered = carried
            WHERE workspace_id = $1 AND carried_by = $2 AND delivered < carried")
        .bind(workspace.uuid()).bind(generation.number()).execute(c).await.map(|_| ()))
}
