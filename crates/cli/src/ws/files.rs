//! `ligand ws files`.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ligand_api::files::{Entry, Write};
use ligand_domain::files::{Root, Unsound, below};

use crate::error::{CommandError, CommandResult};
use crate::output::{self, Format};
use crate::session::Session;
use crate::target::ClientArgs;

/// List, read, write and remove files of a workspace
///
/// PATH begins with `/configs`, `/workspace`, `/home` or `/plugins`; without a leading slash it is
/// below `/configs`. What is written in `/configs` or `/plugins` restarts a running workspace.
#[derive(clap::Args)]
pub(crate) struct FilesArgs {
    #[command(subcommand)]
    verb: FilesVerb,
}

#[derive(clap::Subcommand)]
enum FilesVerb {
    Ls(LsArgs),
    Cat(CatArgs),
    Put(PutArgs),
    Rm(RmArgs),
}

/// List a directory
#[derive(clap::Args)]
struct LsArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// The directory
    #[arg(value_name = "PATH", default_value = "/configs")]
    path: String,
    /// How many levels
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    depth: u8,
    #[command(flatten)]
    client: ClientArgs,
}

/// Print a file as it is
#[derive(clap::Args)]
struct CatArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// The file
    #[arg(value_name = "PATH")]
    path: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Write a file, and the directories that it is in
#[derive(clap::Args)]
struct PutArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// The file
    #[arg(value_name = "PATH")]
    path: String,
    /// A file of this machine with its content; without one it is read from standard input
    #[arg(value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Remove a file, or a directory with all that is in it
#[derive(clap::Args)]
struct RmArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// The file
    #[arg(value_name = "PATH")]
    path: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws files`.
pub(crate) async fn run(args: FilesArgs) -> CommandResult {
    match args.verb {
        FilesVerb::Ls(args) => list(args).await,
        FilesVerb::Cat(args) => cat(args).await,
        FilesVerb::Put(args) => put(args).await,
        FilesVerb::Rm(args) => remove(args).await,
    }
}

/// The directory and the path below it.
fn place(text: &str) -> CommandResult<(&'static str, String)> {
    let wrong = |why: Unsound| CommandError::usage(format!("{text}: {}", why.as_str()));
    let in_it = |root: Root| {
        let rest = text.strip_prefix(root.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| (root, rest.trim_start_matches('/')))
    };
    let (root, rest) = match Root::ALL.into_iter().find_map(in_it) {
        Some(found) => found,
        None if text.starts_with('/') => return Err(wrong(Unsound::Outside)),
        None => (Root::Configs, text),
    };
    Ok((root.as_str(), below(rest).map_err(wrong)?))
}

/// The same, of a file.
fn file(text: &str) -> CommandResult<(&'static str, String)> {
    let (root, path) = place(text)?;
    if path.is_empty() {
        return Err(CommandError::usage(format!("{text}: a file is needed")));
    }
    Ok((root, path))
}

async fn list(args: LsArgs) -> CommandResult {
    let (root, path) = place(&args.path)?;
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let entries = session.client.files(&named.id, root, &path, args.depth).await?;
    match session.format {
        Format::Json => output::json(&entries),
        Format::Table if entries.is_empty() => Ok(()),
        Format::Table => output::line(&listing(&entries)),
    }
}

fn listing(entries: &[Entry]) -> String {
    let row = |entry: &Entry| match entry.dir {
        true => format!("{:>10}  {}/\n", "-", crate::text::plain(&entry.path)),
        false => format!("{:>10}  {}\n", entry.size, crate::text::plain(&entry.path)),
    };
    entries.iter().map(row).collect()
}

async fn cat(args: CatArgs) -> CommandResult {
    let (root, path) = file(&args.path)?;
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let content = session.client.file(&named.id, root, &path).await?;
    match (session.format, content.encoding.as_deref()) {
        (Format::Json, _) => output::json(&content),
        (Format::Table, Some("base64")) => {
            let bytes = STANDARD.decode(&content.content);
            output::bytes(&bytes.map_err(|cause| CommandError::internal(cause.into()))?)
        }
        (Format::Table, _) => output::bytes(content.content.as_bytes()),
    }
}

async fn put(args: PutArgs) -> CommandResult {
    let (root, path) = file(&args.path)?;
    let content = match &args.from {
        Some(from) => std::fs::read(from)
            .map_err(|cause| CommandError::failed(format!("{}: {cause}", from.display())))?,
        None => {
            let mut content = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut content);
            read.map_err(|cause| CommandError::failed(format!("standard input: {cause}")))?;
            content
        }
    };
    let body = match String::from_utf8(content) {
        Ok(content) => Write { content, encoding: None },
        Err(other) => {
            let content = STANDARD.encode(other.as_bytes());
            Write { content, encoding: Some("base64".to_owned()) }
        }
    };
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let done = session.client.write_file(&named.id, root, &path, &body).await?;
    session.format.answer(&done, || format!("{} {root}/{}", done.status, done.path))
}

async fn remove(args: RmArgs) -> CommandResult {
    let (root, path) = file(&args.path)?;
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let done = session.client.remove_file(&named.id, root, &path).await?;
    session.format.answer(&done, || format!("{} {root}/{}", done.status, done.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_directory_or_is_a_configuration() {
        let is = |text: &str| place(text).unwrap();
        assert_eq!(is("config.yaml"), ("/configs", "config.yaml".to_owned()));
        assert_eq!(is("/workspace/a//b"), ("/workspace", "a/b".to_owned()));
        assert_eq!(is("/home"), ("/home", String::new()));
        for wrong in ["/etc/passwd", "/workspaces/a", "a/../b", "/configs/.."] {
            assert_eq!(place(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(file("/home").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn directories_are_told_from_files() {
        let entry = |path: &str, size, dir| Entry { path: path.to_owned(), size, dir };
        let text = listing(&[entry("a", 12, false), entry("b", 0, true)]);
        assert_eq!(text, "        12  a\n         -  b/\n");
    }
}
