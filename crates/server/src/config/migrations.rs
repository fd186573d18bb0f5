//! Migrations: how long they may take, what a target is asked, where data lies on its way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ligand_domain::migration::{Before, Stage};

use super::layers::Layers;
use super::{BackendConfig, Config, Secret};
use crate::transfer::{Bucket, Place};

/// What is read of the environment for a bucket, by its name there and as a setting; and whether it may be shown.
const AWS: [(&str, &str, bool); 17] = [
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id", true),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key", false),
    ("AWS_SESSION_TOKEN", "aws_session_token", false),
    ("AWS_REGION", "aws_region", true),
    ("AWS_DEFAULT_REGION", "aws_default_region", true),
    ("AWS_ENDPOINT_URL", "aws_endpoint_url", true),
    ("AWS_ENDPOINT_URL_S3", "aws_endpoint_url_s3", true),
    ("AWS_ENDPOINT_URL_STS", "aws_endpoint_url_sts", true),
    ("AWS_ALLOW_HTTP", "aws_allow_http", true),
    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "aws_virtual_hosted_style_request", true),
    ("AWS_ROLE_ARN", "aws_role_arn", true),
    ("AWS_ROLE_SESSION_NAME", "aws_role_session_name", true),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "aws_web_identity_token_file", true),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "aws_container_credentials_relative_uri", true),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "aws_container_credentials_full_uri", true),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "aws_container_authorization_token_file", true),
    ("AWS_SERVER_SIDE_ENCRYPTION", "aws_server_side_encryption", true),
];

/// How workspaces go from one backend to another.
#[derive(Debug, Clone)]
pub struct Migrations {
    /// Where their data lies on its way.
    pub store: Place,
    /// What the target is asked before it becomes the workspace.
    pub probe: String,
    /// How long the source is kept after the cut-over, unless said otherwise.
    pub grace: Duration,
    /// How long phases may take, by their names.
    deadlines: BTreeMap<String, Duration>,
}

/// `[migrations]` of the settings file.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFile {
    store: Option<String>,
    probe: Option<String>,
    grace_seconds: Option<u64>,
    #[serde(default)]
    deadline_seconds: BTreeMap<String, u64>,
}

/// What a target is asked, unless said otherwise.
const PROBE: &str = "ping";
/// How long a source is kept, unless said otherwise.
const GRACE_SECONDS: u64 = 30;
/// Longest grace and longest phase.
const MOST_SECONDS: u64 = 7 * 24 * 3600;

impl Migrations {
    /// How long a phase may take.
    #[must_use]
    pub fn deadline(&self, phase: Before) -> Duration {
        let said = self.deadlines.get(Stage::Before(phase).as_str());
        said.copied().unwrap_or_else(|| phase.deadline())
    }

    pub(super) fn resolve(said: &mut Layers<'_>, file: InFile, data_dir: &Path) -> Self {
        let probe = said.of_file("migrations.probe", file.probe, PROBE.to_owned());
        if probe.trim().is_empty() || probe.contains('\0') {
            said.wrong_in_file("migrations.probe", "expected a text");
        }
        let grace = said.of_file("migrations.grace_seconds", file.grace_seconds, GRACE_SECONDS);
        if grace > MOST_SECONDS {
            let expected = format!("expected seconds, 0 to {MOST_SECONDS}");
            said.wrong_in_file("migrations.grace_seconds", &expected);
        }
        let grace = Duration::from_secs(grace);
        let deadlines = deadlines(said, file.deadline_seconds);
        let store = place(said, file.store, data_dir);
        Self { store, probe, grace, deadlines }
    }
}

impl Config {
    /// Whether two backends keep what they hold of a workspace in the same place: what one of them erases, the other
    /// lacks.
    #[must_use]
    pub fn same_place(&self, one: &str, other: &str) -> bool {
        let (Some(first), Some(second)) = (self.backends.get(one), self.backends.get(other)) else {
            return false;
        };
        let root = |name: &str, of: &BackendConfig| {
            let root = of.root.clone().unwrap_or_else(|| self.data_dir.join(name));
            std::path::absolute(&root).unwrap_or(root)
        };
        first.beside(second, (root(one, first), root(other, second)), &self.data_dir)
    }
}

fn deadlines(said: &mut Layers<'_>, file: BTreeMap<String, u64>) -> BTreeMap<String, Duration> {
    const NAME: &str = "migrations.deadline_seconds";
    let names: Vec<&str> =
        Before::ALL.into_iter().map(|phase| Stage::Before(phase).as_str()).collect();
    for (name, seconds) in &file {
        if !names.contains(&name.as_str()) || !(1..=MOST_SECONDS).contains(seconds) {
            let expected =
                format!("expected seconds, 1 to {MOST_SECONDS}, of {}", names.join(", "));
            said.wrong_in_file(NAME, &expected);
        }
    }
    let shown = file.iter().map(|(name, seconds)| format!("{name} {seconds}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let text = if shown.is_empty() { "by phase" } else { &shown };
    said.say_of_file(NAME, text, !file.is_empty());
    file.into_iter().map(|(name, seconds)| (name, Duration::from_secs(seconds))).collect()
}

/// Where data lies on its way.
fn place(said: &mut Layers<'_>, file: Option<String>, data_dir: &Path) -> Place {
    {
        const NAME: &str = "migrations.store";
        let in_file = file.is_some();
        let default = || format!("file://{}", data_dir.join("transfers").display());
        let text = file.unwrap_or_else(default);
        let url = reqwest::Url::parse(&text).ok();
        let store = match url.as_ref().map(|url| (url.scheme(), url)) {
            _ if !in_file => Some(Place::Folder(data_dir.join("transfers"))),
            Some(("file", url)) => {
                url.to_file_path().ok().filter(|path| path.is_absolute()).map(Place::Folder)
            }
            Some(("s3", url)) if bare(url) => Some(Place::Bucket(bucket(said, &text))),
            _ => None,
        };
        let Some(store) = store else {
            let expected = "expected file:///FOLDER (an absolute path) or s3://BUCKET/PREFIX, \
                without user, password, port, query or fragment";
            said.wrong_in_file(NAME, expected);
            return Place::Folder(PathBuf::new());
        };
        // A folder is made when the first data is on its way.
        if let Place::Bucket(_) = &store
            && let Err(cause) = store.open()
        {
            said.wrong_in_file(NAME, &format!("expected settings that make sense: {cause}"));
        }
        said.say_of_file(NAME, &text, in_file);
        store
    }
}

/// A bucket and a prefix, and nothing else that somebody believes in.
fn bare(url: &reqwest::Url) -> bool {
    url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

fn bucket(said: &mut Layers<'_>, url: &str) -> Bucket {
    let mut bucket = Bucket { url: url.to_owned(), said: [].into() };
    for (variable, name, shown) in AWS {
        if let Some(value) = said.secret(name, variable, shown) {
            bucket.said.insert(name, value);
        }
    }
    let value = |name: &str| bucket.said.get(name).map_or("", Secret::reveal);
    let plain =
        [("AWS_ENDPOINT_URL", "aws_endpoint_url"), ("AWS_ENDPOINT_URL_S3", "aws_endpoint_url_s3")];
    let plain = plain.into_iter().find(|(_, name)| value(name).starts_with("http://"));
    if let Some((variable, _)) = plain.filter(|_| value("aws_allow_http") != "true") {
        let expected = "expected an https URL, or AWS_ALLOW_HTTP=true: data and signatures would pass in the clear";
        said.mistake("migrations.store", variable, expected);
    }
    bucket
}
