//! A connection to the server, and what a `WS` on the command line means there.

use ligand_api::client::Client;
use ligand_api::workspace::Workspace;
use uuid::Uuid;

use crate::env::Env;
use crate::error::{CommandError, CommandResult};
use crate::output::{self, Format};
use crate::target::{self, ClientArgs};

/// What a client verb works with.
pub(crate) struct Session {
    /// The server.
    pub(crate) client: Client,
    /// How to print.
    pub(crate) format: Format,
}

/// A workspace that a person named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its id, as paths carry it.
    pub(crate) id: String,
    /// What the person called it.
    pub(crate) name: String,
}

impl Session {
    /// Finds the server. Nothing is sent yet.
    pub(crate) fn open(args: &ClientArgs) -> CommandResult<Self> {
        let target = target::find(args, &Env::capture())?;
        if let Some(trouble) = &target.trouble {
            output::note(&format!("warning: going on without a token: {trouble}"));
        }
        let client = Client::new(&target.server, target.token.map(|(token, _)| token))?;
        let client = client.of(target.organisation);
        Ok(Self { client, format: args.output })
    }

    /// The workspace that is meant: an id is taken at its word, a name must be the only one.
    pub(crate) async fn resolve(&self, workspace: &str) -> CommandResult<Named> {
        if let Ok(id) = Uuid::parse_str(workspace) {
            return Ok(Named { id: id.to_string(), name: workspace.to_owned() });
        }
        by_name(workspace, &self.client.list().await?)
    }
}

fn by_name(name: &str, all: &[Workspace]) -> CommandResult<Named> {
    let ids: Vec<String> =
        all.iter().filter(|other| other.name == name).map(|found| found.id.to_string()).collect();
    match ids.as_slice() {
        [id] => Ok(Named { id: id.clone(), name: name.to_owned() }),
        [] => Err(CommandError::failed(format!("there is no workspace `{name}`"))
            .hint("`ligand ws list` shows what there is")),
        several => {
            let error = format!("{} workspaces are called `{name}`", several.len());
            let hint = format!("name one by its id: {}", several.join(", "));
            Err(CommandError::failed(error).hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(id: u128, name: &str) -> Workspace {
        Workspace { id: Uuid::from_u128(id), name: name.to_owned(), ..Workspace::default() }
    }

    #[test]
    fn a_name_must_be_the_only_one() {
        let all = [workspace(1, "a"), workspace(2, "b"), workspace(3, "b")];
        assert_eq!(by_name("a", &all).unwrap().id, Uuid::from_u128(1).to_string());
        let none = by_name("c", &all).unwrap_err();
        assert_eq!(none.lines()[0], "error: there is no workspace `c`");
        let several = by_name("b", &all).unwrap_err().lines();
        assert_eq!(several[0], "error: 2 workspaces are called `b`");
        assert!(several[1].contains(&Uuid::from_u128(3).to_string()));
    }
}
