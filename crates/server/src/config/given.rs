//! What a control plane has for this server: settings that it is told at its start, by a control plane that it was told
//! of. They are a layer of settings and nothing else: the process environment stays as it is.
//!
//! Nothing here keeps a server from starting: it starts with what it has.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::control_plane::is_address;

/// Longest wait, connection and answer together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer.
const MOST: usize = 64 << 10;
/// Longest value.
const LONGEST: usize = 4096;

/// Ask, if the environment names an organisation, an administrator's token and a control plane. Without all of them
/// nobody is asked: there is no default.
#[expect(clippy::disallowed_methods, reason = "the settings read the environment of the server")]
pub async fn given() -> BTreeMap<String, String> {
    let said = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    let (Some(org), Some(token), Some(url)) =
        (said("MOLECULE_ORG_ID"), said("ADMIN_TOKEN"), said("MOLECULE_CP_URL"))
    else {
        return BTreeMap::new();
    };
    if !is_address(url.trim()) {
        // Whoever resolves the settings says so.
        return BTreeMap::new();
    }
    fetch(url.trim().trim_end_matches('/'), org.trim(), &token).await
}

/// Ask this control plane. Where there is no answer that is understood, nothing is given, and the log says why.
pub async fn fetch(url: &str, org: &str, token: &str) -> BTreeMap<String, String> {
    let answered = tokio::time::timeout(PATIENCE, ask(url, org, token)).await;
    match answered.unwrap_or_else(|_| Err("it did not answer in time".to_owned())) {
        Ok(all) => {
            let kept = kept(all);
            tracing::info!(settings = kept.len(), "the control plane has settings for this server");
            kept
        }
        Err(why) => {
            tracing::warn!(
                why,
                "the control plane gave no settings: the server starts with what it has"
            );
            BTreeMap::new()
        }
    }
}

async fn ask(url: &str, org: &str, token: &str) -> Result<BTreeMap<String, String>, String> {
    let client = ligand_api::http::builder().map_err(|cause| cause.to_string())?;
    let client = client.no_proxy().build().map_err(|cause| cause.to_string())?;
    let request = client.get(format!("{url}/cp/tenants/config")).bearer_auth(token);
    let failed = |cause: reqwest::Error| cause.without_url().to_string();
    let response = request.header("X-Molecule-Org-Id", org).send().await.map_err(failed)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(format!("it answered {}", response.status().as_u16()));
    }
    let (mut body, mut parts) = (Vec::new(), response.bytes_stream());
    while let Some(part) = parts.next().await {
        body.extend_from_slice(&part.map_err(failed)?);
        if body.len() > MOST {
            return Err(format!("its answer is longer than {MOST} bytes"));
        }
    }
    // What it said is not repeated: it holds secrets.
    serde_json::from_slice(&body).map_err(|_| "its answer is no object of texts".to_owned())
}

/// Names without a name and values that are too long are left out, and nothing else with them.
fn kept(mut all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.retain(|name, value| {
        let fits = !name.is_empty() && value.len() <= LONGEST;
        if !fits {
            tracing::warn!(
                name,
                "a setting of the control plane was left out: it has no name, or is too long"
            );
        }
        fits
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_or_is_too_long_is_left_out() {
        let all = [
            ("", "a".to_owned()),
            ("LONG", "x".repeat(LONGEST + 1)),
            ("FITS", "x".repeat(LONGEST)),
        ];
        let all = all.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(kept(BTreeMap::from(all)).into_keys().collect::<Vec<_>>(), ["FITS"]);
    }
}
