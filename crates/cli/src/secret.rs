//! `ligand secret`: names of secrets, and their values on the way in. No value is ever printed, nor taken from the
//! command line, where every process of the machine could read it.

use std::io::Read as _;

use anyhow::Context as _;
use ligand_api::secret::{Secret, SecretChanged, UnreadableSecret};
use serde::Serialize;

use crate::error::{CommandError, CommandResult};
use crate::output;
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::text;

/// Set, list and delete secrets, and encrypt them anew
#[derive(clap::Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) verb: SecretVerb,
}

#[derive(clap::Subcommand)]
pub(crate) enum SecretVerb {
    /// List the secrets that a workspace gets, or the global ones; never a value
    List(OfArgs),
    /// Set a secret to what standard input says, and restart whoever gets it
    Set(NameArgs),
    /// Delete a secret, and restart whoever had it
    Delete(NameArgs),
    /// Encrypt every stored secret anew, under the server's current key
    ///
    /// Set SECRETS_ENCRYPTION_KEY to the new key and SECRETS_ENCRYPTION_KEY_PREVIOUS to the old one, restart the
    /// servers, then run this. It can be cut short and run again. Afterwards the old key is not needed any more.
    Rotate(RotateArgs),
}

/// Whose secrets.
#[derive(clap::Args)]
pub(crate) struct OfArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS", required_unless_present = "global")]
    workspace: Option<String>,
    /// Those that every workspace gets
    #[arg(long, conflicts_with = "workspace")]
    global: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// One secret.
#[derive(clap::Args)]
pub(crate) struct NameArgs {
    /// Name of the secret: the variable that programs read
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    of: OfArgs,
}

/// Which server.
#[derive(clap::Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand secret …`.
pub(crate) async fn run(verb: SecretVerb) -> CommandResult {
    match verb {
        SecretVerb::List(args) => list(args).await,
        SecretVerb::Set(args) => set(args).await,
        SecretVerb::Delete(args) => delete(args).await,
        SecretVerb::Rotate(args) => rotate(args).await,
    }
}

/// `None`: everybody.
async fn whose(session: &Session, args: &OfArgs) -> CommandResult<Option<Named>> {
    match &args.workspace {
        Some(workspace) => Ok(Some(session.resolve(workspace).await?)),
        None => Ok(None),
    }
}

fn id(of: Option<&Named>) -> Option<&str> {
    of.map(|named| named.id.as_str())
}

async fn list(args: OfArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let of = whose(&session, &args).await?;
    let secrets = session.client.secrets(id(of.as_ref())).await?;
    session.format.answer(&secrets, || table(&secrets))
}

fn table(secrets: &[Secret]) -> String {
    let rows = secrets.iter().map(|secret| {
        vec![secret.key.clone(), secret.scope.clone(), text::moment(&secret.updated_at)]
    });
    text::table(&["NAME", "SCOPE", "SET"], rows)
}

async fn set(args: NameArgs) -> CommandResult {
    let session = Session::open(&args.of.client)?;
    let of = whose(&session, &args.of).await?;
    let mut value = String::new();
    let read = std::io::stdin().read_to_string(&mut value).context("read the value");
    read.map_err(|error| CommandError::failed(format!("{error:#}")))?;
    // What a terminal or `echo` adds.
    let value = value.strip_suffix('\n').unwrap_or(&value);
    if value.is_empty() {
        return Err(CommandError::usage("there is no value on standard input")
            .hint("printf %s \"$VALUE\" | ligand secret set NAME WS"));
    }
    let changed = session.client.set_secret(id(of.as_ref()), &args.name, value).await?;
    session.format.answer(&changed, || summary(&changed))
}

async fn delete(args: NameArgs) -> CommandResult {
    let session = Session::open(&args.of.client)?;
    let of = whose(&session, &args.of).await?;
    let changed = session.client.delete_secret(id(of.as_ref()), &args.name).await?;
    session.format.answer(&changed, || summary(&changed))
}

fn summary(changed: &SecretChanged) -> String {
    text::pairs(&[
        ("name", Some(changed.key.clone())),
        ("status", Some(changed.status.clone())),
        ("scope", changed.scope.clone()),
    ])
}

/// What all batches came to.
#[derive(Default, Serialize)]
struct Rotated {
    reencrypted: u64,
    left: u64,
    unreadable: Vec<UnreadableSecret>,
}

async fn rotate(args: RotateArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let mut all = Rotated::default();
    let mut after = None;
    loop {
        let done = session.client.reencrypt(after).await?;
        all.reencrypted += done.reencrypted;
        all.left = done.left;
        all.unreadable.extend(done.unreadable);
        after = done.next;
        if after.is_none() {
            break;
        }
        output::note(&format!("{} encrypted anew, {} left", all.reencrypted, all.left));
    }
    session.format.answer(&all, || rotated(&all))?;
    if all.unreadable.is_empty() {
        return Ok(());
    }
    Err(CommandError::failed(format!("{} secrets cannot be read", all.unreadable.len())).hint(
        "SECRETS_ENCRYPTION_KEY_PREVIOUS has to be the key that they were stored under; or set them anew",
    ))
}

fn rotated(all: &Rotated) -> String {
    let mut text = text::pairs(&[
        ("encrypted anew", Some(all.reencrypted.to_string())),
        ("left", Some(all.left.to_string())),
    ]);
    if !all.unreadable.is_empty() {
        let rows = all.unreadable.iter().map(|of| {
            let whose = of.workspace_id.map_or_else(|| "global".to_owned(), |id| id.to_string());
            vec![of.key.clone(), whose, of.why.clone()]
        });
        text += &text::table(&["NAME", "OF", "WHY"], rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let all = Rotated {
            reencrypted: 3,
            left: 1,
            unreadable: vec![UnreadableSecret {
                key: "K".to_owned(),
                workspace_id: None,
                why: "no key opens it".to_owned(),
            }],
        };
        let text = rotated(&all);
        assert!(text.contains("global") && text.contains("no key opens it"), "{text}");
    }
}
