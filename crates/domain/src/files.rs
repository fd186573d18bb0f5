//! Which paths of a workspace's files may be named, and how names that others chose are made safe.
//!
//! Paths are judged as text, before anything is touched. What links do to a path that is sound is the
//! backend's to watch over.

use std::time::Duration;

use crate::time::Timestamp;

/// One of the directories that a workspace's files are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// `/configs`
    Configs,
    /// `/workspace`
    Workspace,
    /// `/home`
    Home,
    /// `/plugins`
    Plugins,
}

impl Root {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Configs, Self::Workspace, Self::Home, Self::Plugins];

    /// As it is written in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configs => "/configs",
            Self::Workspace => "/workspace",
            Self::Home => "/home",
            Self::Plugins => "/plugins",
        }
    }

    /// The one that is asked for; where none is, the configuration.
    ///
    /// # Errors
    /// [`Unsound::Root`].
    pub fn asked(text: Option<&str>) -> Result<Self, Unsound> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::Configs) };
        Self::ALL.into_iter().find(|root| root.as_str() == text).ok_or(Unsound::Root)
    }

    /// Whether an agent reads what is in it when it starts, so that a change asks for a restart.
    #[must_use]
    pub const fn read_at_start(self) -> bool {
        match self {
            Self::Configs | Self::Plugins => true,
            Self::Workspace | Self::Home => false,
        }
    }
}

/// Why files are not looked for at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsound {
    /// There is no such directory.
    Root,
    /// The path is absolute where one below a directory is meant.
    Absolute,
    /// The path leads elsewhere, or is none.
    Path,
    /// So many levels are never shown.
    Depth,
    /// A download names nothing.
    Unnamed,
    /// A download names no absolute path.
    Relative,
    /// A download names a path outside all directories.
    Outside,
}

impl Unsound {
    /// As callers read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root must be one of: /configs, /workspace, /home, /plugins",
            Self::Absolute => "absolute paths not permitted",
            Self::Path => "invalid path",
            Self::Depth => "depth must be 1-5",
            Self::Unnamed => "path query required",
            Self::Relative => "path must be absolute",
            Self::Outside => "path must be under /configs, /workspace, /home, or /plugins",
        }
    }
}

/// Longest path, and longest name in it, in bytes.
const LONGEST: (usize, usize) = (4096, 255);
/// Names of platform's own files in the configuration: credentials, and what is kept beside them.
const SECRET: [&str; 2] = [".auth_token", ".register_key"];
/// What writers put beside a file until it is whole.
pub const DRAFT: &str = ".ligand-draft-";

/// A path below a directory, in its shortest form; empty for the directory itself.
///
/// # Errors
/// [`Unsound::Absolute`], [`Unsound::Path`].
pub fn below(text: &str) -> Result<String, Unsound> {
    if text.starts_with('/') {
        return Err(Unsound::Absolute);
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let strange = |part: &&str| *part == ".." || part.len() > LONGEST.1 || part.contains('\\');
    if text.len() > LONGEST.0 || text.chars().any(char::is_control) || parts.iter().any(strange) {
        return Err(Unsound::Path);
    }
    Ok(parts.join("/"))
}

/// A path of a file: not the directory itself, and none of the platform's own.
///
/// # Errors
/// [`Unsound::Absolute`], [`Unsound::Path`].
pub fn file(root: Root, text: &str) -> Result<String, Unsound> {
    let path = below(text)?;
    if path.is_empty() || is_secret(root, &path) { Err(Unsound::Path) } else { Ok(path) }
}

/// Whether a path is one of the platform's own: nobody reads a credential, or puts one there, but by its route.
#[must_use]
pub fn is_secret(root: Root, path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    root == Root::Configs && SECRET.iter().any(|name| first.starts_with(name))
}

/// How many levels are shown: 1 to 5, and one where nothing is said.
///
/// # Errors
/// [`Unsound::Depth`].
pub fn depth(text: Option<&str>) -> Result<u8, Unsound> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(1) };
    text.parse().ok().filter(|depth| (1..=5).contains(depth)).ok_or(Unsound::Depth)
}

/// An absolute path in one of the directories.
///
/// # Errors
/// All but [`Unsound::Root`], [`Unsound::Absolute`], [`Unsound::Depth`].
pub fn absolute(text: &str) -> Result<(Root, String), Unsound> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Unsound::Unnamed);
    }
    if !text.starts_with('/') {
        return Err(Unsound::Relative);
    }
    let in_it = |root: Root| Some((root, text.strip_prefix(root.as_str())?.strip_prefix('/')?));
    let (root, rest) = Root::ALL.into_iter().find_map(in_it).ok_or(Unsound::Outside)?;
    match file(root, rest.trim_start_matches('/')) {
        Ok(path) => Ok((root, path)),
        Err(_) => Err(Unsound::Path),
    }
}

/// The name under which something that a person sent is kept.
#[must_use]
pub fn upload_name(sent: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let safe = |c: char| if plain(c) { c } else { '_' };
    let name: String = last_part(sent).chars().map(safe).collect();
    // The end says what it is.
    let name = name[name.len().saturating_sub(100)..].trim_start_matches('.');
    if name.is_empty() { "file".to_owned() } else { name.to_owned() }
}

/// A name without the directories that some browsers send along.
#[must_use]
pub fn last_part(sent: &str) -> &str {
    sent.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// The files that a configuration shares with the workspaces below it: the list `shared_context` of its
/// `config.yaml`, in either of the forms that lists have there.
#[must_use]
pub fn shared(config: &str) -> Vec<String> {
    let mut lines = config.lines().skip_while(|line| !line.starts_with("shared_context:"));
    let Some(first) = lines.next() else { return Vec::new() };
    let inline = first.trim_start_matches("shared_context:").trim();
    let inline = inline.split(" #").next().unwrap_or_default().trim();
    let inline = inline.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let items: Vec<&str> = match inline {
        Some(list) => list.split(',').collect(),
        None => lines
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
            .map_while(|line| line.trim_start().strip_prefix('-'))
            .map(|item| item.split(" #").next().unwrap_or_default())
            .collect(),
    };
    let plain = |item: &str| item.trim().trim_matches(['"', '\'']).to_owned();
    items.into_iter().map(plain).filter(|item| !item.is_empty()).collect()
}

/// Files that are written ask for at most one restart in this time.
pub const RESTARTS_EVERY: Duration = Duration::from_secs(15);

/// When a write at `now` restarts its workspace: at once, unless writes did so a moment ago. One that is asked
/// for already is enough.
#[must_use]
pub fn restart_at(now: Timestamp, asked: Option<Timestamp>, last: Option<Timestamp>) -> Timestamp {
    let due = last.map_or(now, |last| last.after(RESTARTS_EVERY).max(now));
    asked.map_or(due, |asked| asked.min(due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_relative_and_stay_inside() {
        assert_eq!(below("a//b/./c.md"), Ok("a/b/c.md".to_owned()));
        assert_eq!((below(""), below("./")), (Ok(String::new()), Ok(String::new())));
        assert_eq!(below("/etc/passwd"), Err(Unsound::Absolute));
        for bad in ["..", "a/../b", "a/..", "../a", "a\0b", "a\nb", "a\\..\\b", &"x".repeat(256)] {
            assert_eq!(below(bad), Err(Unsound::Path), "{bad:?}");
        }
        assert_eq!(below("..a/b.."), Ok("..a/b..".to_owned()), "only the name `..` leads up");
    }

    #[test]
    fn credentials_are_no_files() {
        for name in [".auth_token", "./.auth_token.next", ".register_key"] {
            assert_eq!(file(Root::Configs, name), Err(Unsound::Path), "{name}");
        }
        assert!(file(Root::Workspace, ".auth_token").is_ok() && file(Root::Home, "a").is_ok());
        assert_eq!(file(Root::Home, "."), Err(Unsound::Path), "the directory itself is no file");
        assert_eq!(absolute("/configs/.auth_token"), Err(Unsound::Path));
    }

    #[test]
    fn roots_and_depths_are_those_of_the_contract() {
        assert_eq!(Root::asked(None), Ok(Root::Configs));
        assert_eq!(Root::asked(Some("/home")), Ok(Root::Home));
        assert_eq!(Root::asked(Some("home")), Err(Unsound::Root));
        assert_eq!(Root::asked(Some("/configs/..")), Err(Unsound::Root));
        assert_eq!((depth(None), depth(Some("5"))), (Ok(1), Ok(5)));
        for bad in ["0", "6", "-1", "x", "256"] {
            assert_eq!(depth(Some(bad)), Err(Unsound::Depth), "{bad}");
        }
    }

    #[test]
    fn downloads_name_an_absolute_path_in_a_root() {
        assert_eq!(absolute("/workspace/a/b"), Ok((Root::Workspace, "a/b".to_owned())));
        assert_eq!(absolute(" "), Err(Unsound::Unnamed));
        assert_eq!(absolute("workspace/a"), Err(Unsound::Relative));
        for outside in ["/etc/passwd", "/workspaces/a", "/workspace", "/"] {
            assert_eq!(absolute(outside), Err(Unsound::Outside), "{outside}");
        }
        assert_eq!(absolute("/workspace/../etc/passwd"), Err(Unsound::Path));
        assert_eq!(absolute("/workspace/"), Err(Unsound::Path));
    }

    #[test]
    fn what_is_uploaded_has_a_plain_name() {
        assert_eq!(upload_name("C:\\x\\my report (1).pdf"), "my_report__1_.pdf");
        assert_eq!(
            (upload_name("../../.bashrc"), upload_name("..")),
            ("bashrc".into(), "file".into())
        );
        assert_eq!(upload_name("ä"), "_");
    }

    #[test]
    fn shared_files_are_listed_in_either_form() {
        let block = "name: a\nshared_context:\n  # those\n  - 'rules.md'\n\n- docs/b.md # why\ntier: 2\n  - c";
        assert_eq!(shared(block), ["rules.md", "docs/b.md"]);
        assert_eq!(shared("shared_context: [a.md, \"b.md\"] # c"), ["a.md", "b.md"]);
        assert_eq!(shared("shared_context: []\nx: 1"), Vec::<String>::new());
        assert_eq!(shared("x: [shared_context]"), Vec::<String>::new());
    }

    #[test]
    fn writes_ask_for_one_restart_in_a_while() {
        let at = |s: i64| Timestamp::from_micros(s * 1_000_000);
        assert_eq!(restart_at(at(100), None, None), at(100));
        assert_eq!(restart_at(at(100), None, Some(at(90))), at(105));
        assert_eq!(restart_at(at(100), Some(at(103)), Some(at(90))), at(103));
        assert_eq!(restart_at(at(200), None, Some(at(90))), at(200));
    }

    proptest! {
        #[test]
        fn a_sound_path_leads_nowhere_else(text in "[a./\\\\ \0]{0,24}") {
            if let Ok(path) = below(&text) {
                prop_assert!(!path.starts_with('/') && !path.ends_with('/'));
                prop_assert!(path.is_empty() || path.split('/').all(|it| !matches!(it, "" | "." | "..")));
                prop_assert_eq!(below(&path), Ok(path.clone()), "its shortest form is final");
            }
            if let Ok((root, path)) = absolute(&text) {
                prop_assert_eq!(file(root, &path), Ok(path.clone()));
            }
        }

        #[test]
        fn a_kept_name_is_one_plain_name(sent in ".*") {
            let name = upload_name(&sent);
            prop_assert!(!name.is_empty() && name.len() <= 100 && !name.starts_with('.'));
            prop_assert_eq!(below(&name), Ok(name.clone()));
        }

        #[test]
        fn restarts_keep_their_distance(now in 0..1_000_000_000_i64, last in proptest::option::of(0..1_000_000_000_i64)) {
            let (now, last) = (Timestamp::from_micros(now), last.map(Timestamp::from_micros));
            let due = restart_at(now, None, last);
            prop_assert!(due >= now && last.is_none_or(|last| due >= last.after(RESTARTS_EVERY)));
        }
    }
}
