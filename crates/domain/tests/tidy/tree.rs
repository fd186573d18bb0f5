//! The files of a repository as values, so that a rule can be shown a made-up one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// A text file. Its path is relative to the root, with slashes.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// Lines with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.split('\n').enumerate().map(|(index, line)| (index + 1, line))
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Code that only tests or measurements run.
    pub(super) fn is_test(&self) -> bool {
        ["/tests/", "/benches/"].iter().any(|folder| self.path.contains(folder))
            || self.path.ends_with("_tests.rs")
            || self.path.ends_with("/tests.rs")
    }

    pub(super) fn offence(&self, line: usize, what: impl Into<String>) -> Offence {
        Offence { path: self.path.clone(), line, what: what.into() }
    }
}

/// A place that breaks a rule, and the cure.
#[derive(Debug)]
pub(super) struct Offence {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What a file does wrong, given all the others.
pub(super) type Rule = fn(&File, &Tree) -> Vec<Offence>;

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Files that hold text.
    files: Vec<File>,
    /// Every file and folder.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Everything below a folder that belongs to the project.
    pub(super) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.enter(root, "");
        tree
    }

    /// A made-up repository: paths and texts.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            let folders = path.match_indices('/').map(|(end, _)| path[..end].to_owned());
            tree.paths.extend(folders);
            tree.add((*path).to_owned(), Some((*text).to_owned()));
        }
        tree
    }

    fn enter(&mut self, folder: &Path, prefix: &str) {
        let entries = folder.read_dir().expect("folders of the repository can be read");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !belongs(&name) {
                continue;
            }
            let path = format!("{prefix}{name}");
            // A link is not followed: what it leads to is read where it stands.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.enter(&entry.path(), &format!("{path}/"));
                self.paths.insert(path);
            } else {
                self.add(path, std::fs::read_to_string(entry.path()).ok());
            }
        }
    }

    fn add(&mut self, path: String, text: Option<String>) {
        self.paths.insert(path.clone());
        self.files.extend(text.map(|text| File { path, text }));
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    pub(super) fn offences(&self, rule: Rule) -> Vec<Offence> {
        self.files.iter().flat_map(|file| rule(file, self)).collect()
    }

    /// Where a rule finds something, as `path:line`. For the tests of rules.
    pub(super) fn caught(&self, rule: Rule) -> Vec<String> {
        self.offences(rule).iter().map(|it| format!("{}:{}", it.path, it.line)).collect()
    }
}

/// Not what a build or a run left behind, and no hidden folder but CI's.
fn belongs(name: &str) -> bool {
    let made = ["target", "node_modules", "__pycache__"].contains(&name);
    let hidden = name.starts_with('.') && ![".ci", ".gitignore"].contains(&name);
    !made && !hidden
}

#[test]
fn a_folder_of_files_is_read_without_what_was_built() {
    assert!(belongs("crates") && belongs(".ci") && !belongs("target") && !belongs(".git"));
    let tree = Tree::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests").as_ref());
    assert!(tree.exists("tidy") && tree.exists("tidy/tree.rs"));
    assert!(tree.file("tidy/tree.rs").expect("this file").is_rust());
}
