//! Templates as directories of this machine.
//!
//! Nothing outside the root is read, whatever links lead there. What a `config.yaml` says is kept until the
//! file changes.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use ligand_domain::template;

use super::said::Said;
use super::{CONFIG, Catalogue, Template};
use crate::app::App;

/// Most files of a template.
pub(super) const MOST_FILES: usize = 200;
/// Most bytes of all of them together.
const MOST_BYTES: u64 = 8 << 20;
/// Longest `config.yaml` that is looked into.
const MOST_CONFIG: u64 = 256 << 10;
/// Directories inside each other.
const MOST_DEPTH: usize = 8;

/// By which a file is known to be the same: when it was changed, and how long it is.
type Stamp = (Option<SystemTime>, u64);

/// A file as it was read.
type Read = (Stamp, Arc<Said>);

/// What templates say, as last read.
#[derive(Default, Clone)]
pub(crate) struct Cache(Arc<Mutex<HashMap<PathBuf, Read>>>);

impl Cache {
    /// What the template in this directory says; nothing, where it has no file that may be read.
    fn said(&self, root: &Path, directory: &Path) -> Arc<Said> {
        let Some(path) = inside(root, &directory.join(CONFIG)) else { return Arc::default() };
        let found = fs::metadata(&path).ok().filter(|found| found.is_file());
        let Some(found) = found.filter(|found| found.len() <= MOST_CONFIG) else {
            return Arc::default();
        };
        let stamp: Stamp = (found.modified().ok(), found.len());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        if let Some((_, said)) = known.filter(|(of, _)| *of == stamp) {
            return said;
        }
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let said = Said::read(&text).unwrap_or_else(|why| {
            tracing::warn!(path = %path.display(), error = why, "a template's configuration is not understood");
            Said::of_lines(&text)
        });
        let said = Arc::new(said);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(path, (stamp, Arc::clone(&said)));
        said
    }
}

/// Where a path really leads, if that is below the root.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|real| real.starts_with(root))
}

/// Read which templates there are.
pub(super) async fn scan(app: &App) -> Catalogue {
    let (cache, root) = (app.templates().clone(), app.config.templates.root.clone());
    let org = app.config.templates.org.clone();
    let read = move || Catalogue {
        templates: root.canonicalize().map(|root| below(&cache, &root, "")).unwrap_or_default(),
        org: org
            .and_then(|root| root.canonicalize().ok())
            .map(|root| nested(&cache, &root))
            .unwrap_or_default(),
    };
    // Nobody waits for a thread where there is nothing to read.
    if !app.config.templates.root.is_dir() && app.config.templates.org.is_none() {
        return Catalogue::default();
    }
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// The directories right below a root, or below one of its directories, in the order of their names.
fn below(cache: &Cache, root: &Path, parent: &str) -> Vec<Template> {
    let entries = match fs::read_dir(root.join(parent)) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(cause) => {
            tracing::warn!(path = %root.display(), error = %cause, "templates cannot be read");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let id = if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
        let visible = !name.starts_with('.') && template::clean(&id).as_deref() == Some(&id);
        let real = inside(root, &entry.path()).filter(|real| visible && real.is_dir());
        if let Some(real) = real {
            found.push(Template { id, said: cache.said(root, &real) });
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// The same, two levels deep: an organisation's templates are in a directory of its own.
fn nested(cache: &Cache, root: &Path) -> Vec<Template> {
    let mut found = below(cache, root, "");
    let inside: Vec<Template> =
        found.iter().flat_map(|template| below(cache, root, &template.id)).collect();
    found.extend(inside);
    found
}

/// The files of a template, by their paths below it.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about it.
pub(super) async fn files(root: &Path, id: &str) -> Result<BTreeMap<String, Bytes>, String> {
    let (root, id) = (root.to_owned(), id.to_owned());
    let read = tokio::task::spawn_blocking(move || collect(&root, &id));
    read.await.unwrap_or_else(|_| Err("could not be read".to_owned()))
}

fn collect(root: &Path, id: &str) -> Result<BTreeMap<String, Bytes>, String> {
    let gone = |cause: io::Error| format!("cannot be read: {cause}");
    let id = template::clean(id).ok_or("is outside its root")?;
    let root = root.canonicalize().map_err(gone)?;
    let top = root.join(id);
    fs::metadata(&top).map_err(gone)?;
    let top = inside(&root, &top).ok_or("is outside its root")?;
    let mut reading = Reading { root, files: BTreeMap::new(), bytes: 0 };
    reading.enter(&top, "", 0)?;
    Ok(reading.files)
}

struct Reading {
    root: PathBuf,
    files: BTreeMap<String, Bytes>,
    bytes: u64,
}

impl Reading {
    fn enter(&mut self, directory: &Path, parent: &str, depth: usize) -> Result<(), String> {
        let gone = |cause: io::Error| format!("cannot be read: {cause}");
        if depth > MOST_DEPTH {
            return Err(format!("has directories more than {MOST_DEPTH} deep"));
        }
        for entry in fs::read_dir(directory).map_err(gone)? {
            let entry = entry.map_err(gone)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{parent}{name}");
            // What only keeps the directory's own history or layout; a link that leads out, or nowhere.
            let passed_over = name == ".git" || name.starts_with("..");
            let real = inside(&self.root, &entry.path()).filter(|_| !passed_over);
            let Some(real) = real else { continue };
            let found = fs::metadata(&real).map_err(gone)?;
            if found.is_dir() {
                self.enter(&real, &format!("{path}/"), depth + 1)?;
            } else if found.is_file()
                && let Some(path) = template::file(&path)
            {
                self.take(&real, path, found.len())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, real: &Path, path: String, length: u64) -> Result<(), String> {
        self.bytes += length;
        if self.files.len() == MOST_FILES {
            return Err(format!("has more than {MOST_FILES} files"));
        }
        if self.bytes > MOST_BYTES {
            return Err(format!("is longer than {MOST_BYTES} bytes"));
        }
        let content = fs::read(real).map_err(|cause| format!("cannot be read: {cause}"))?;
        self.files.insert(path, Bytes::from(content));
        Ok(())
    }
}

/// Write a new template, in one step. `false`: there is one of this name.
///
/// # Errors
/// When the machine fails.
pub(super) fn import(
    root: &Path,
    id: &str,
    draft: &str,
    files: &BTreeMap<String, String>,
) -> io::Result<bool> {
    let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    let (draft, place) = (root.join(draft), root.join(id));
    if place.exists() {
        return Ok(false);
    }
    create(&draft)?;
    let written = files.iter().try_for_each(|(path, content)| {
        let path = draft.join(path);
        path.parent().map_or(Ok(()), create)?;
        fs::write(path, content)
    });
    // A directory takes the place of nothing, or of an empty one.
    let outcome = written.and_then(|()| fs::rename(&draft, &place));
    match outcome {
        Ok(()) => Ok(true),
        Err(cause) => {
            let _ = fs::remove_dir_all(&draft);
            let there = [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::AlreadyExists];
            if there.contains(&cause.kind()) { Ok(false) } else { Err(cause) }
        }
    }
}
