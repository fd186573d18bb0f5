//! How the fleet calls a platform: as its administrator, and for its organisation.

use std::net::IpAddr;
use std::time::Duration;

use ligand_domain::address::{Setting, judge};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use crate::access::ORGANISATION;
use crate::app::Fleet;
use crate::tenants::Tenant;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer that is read.
const MOST: usize = 1 << 20;

/// A platform was not reached, or did not answer in a way that is understood. Says no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(String);

/// Call a platform. The answer is its status and its JSON, `null` where it is none.
///
/// # Errors
/// [`Unreached`] says why there is no answer.
pub async fn call(
    fleet: &Fleet,
    tenant: &Tenant,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), Unreached> {
    let failed = |why: String| Unreached(format!("the platform of {}: {why}", tenant.slug));
    let url = url_of(&tenant.platform_url, path).map_err(failed)?;
    let token = fleet.open(&tenant.admin_token);
    let token = token.map_err(|cause| failed(format!("its token cannot be read: {cause}")))?;
    let mut request = fleet.http.request(method, url).timeout(PATIENCE).bearer_auth(token);
    request = request.header(ORGANISATION, &tenant.org_id);
    if let Some(body) = body {
        request = request.json(body);
    }
    // An error of the client names the address: without its query, and a token is never part of it.
    let unreached = |cause: reqwest::Error| failed(cause.without_url().to_string());
    let mut response = request.send().await.map_err(unreached)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreached)? {
        if bytes.len() + part.len() > MOST {
            return Err(failed("its answer is too long".to_owned()));
        }
        bytes.extend_from_slice(&part);
    }
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

/// A platform may be on this machine or in our network, but it is no metadata service.
fn url_of(base: &str, path: &str) -> Result<Url, String> {
    if base.is_empty() {
        return Err("where it answers is not known".to_owned());
    }
    let url = Url::parse(&format!("{base}{path}")).map_err(|_| "its address is malformed")?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if let Ok(ip) = host.parse::<IpAddr>() {
        let ours = Setting { private_is_ours: true, loopback_is_ours: true };
        judge(ip, ours).map_err(|refused| refused.to_string())?;
    }
    Ok(url)
}

/// What an answer that is no success says, in a sentence.
#[must_use]
pub fn refusal(status: StatusCode, body: &Value) -> String {
    let said = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let words: Vec<&str> = [said("error"), said("detail")].into_iter().flatten().collect();
    match words.is_empty() {
        true => format!("HTTP {}", status.as_u16()),
        false => format!("HTTP {}: {}", status.as_u16(), words.join(": ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_no_metadata_service() {
        assert!(url_of("http://127.0.0.1:8080", "/a").is_ok());
        assert!(url_of("https://acme.example", "/a").is_ok());
        for bad in ["", "nonsense", "http://169.254.169.254", "http://[fe80::1]"] {
            assert!(url_of(bad, "/a").is_err(), "{bad}");
        }
    }
}
