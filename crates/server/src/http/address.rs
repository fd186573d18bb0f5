//! Addresses of agents: what a text says, and whether it may be advertised or called. What decides is
//! `ligand_domain::address`; here names are resolved for it, so none of this belongs inside a transaction.

use std::net::{IpAddr, SocketAddr};

use ligand_domain::address::{self, Setting};
use reqwest::Url;

use crate::app::App;

/// An address that can be judged.
#[derive(Debug, Clone)]
pub struct Address {
    url: Url,
    host: String,
}

impl Address {
    /// Read it.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|cause| format!("not a URL: {cause}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("scheme must be http or https".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("a host is required")?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        Ok(Self { url, host })
    }

    /// As it was said.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its host, in small letters and without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// It names this machine, whatever that resolves to.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.host.trim_end_matches('.') == "localhost"
    }

    /// Judging it means asking a name server.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.is_localhost() && self.host.parse::<IpAddr>().is_err()
    }

    /// Whether an agent may say that it answers here: every address that the name stands for is judged.
    /// `localhost` may be said; whether it may be called is decided at each call.
    ///
    /// # Errors
    /// A sentence that names what is wrong with it.
    pub async fn may_be_advertised(&self, app: &App) -> Result<(), String> {
        if self.is_localhost() {
            return Ok(());
        }
        let config = &app.config;
        let Ok(found) = app.names.resolve(&self.host).await else {
            let domain = config.app_domain.as_deref().filter(|_| config.saas);
            return match domain.is_some_and(|domain| address::is_tunnel(&self.host, domain)) {
                true => Ok(()),
                false => Err("its name does not resolve".to_owned()),
            };
        };
        judge(&found, Setting::to_advertise(config.saas))
    }

    /// Whether the platform may call it now. Gives what was judged: that, and nothing the name stands for a
    /// moment later, is what may be connected to.
    ///
    /// # Errors
    /// A sentence that names what is wrong with it.
    pub async fn may_be_called(&self, app: &App) -> Result<Vec<SocketAddr>, String> {
        let unresolved = |_| "its name does not resolve".to_owned();
        let found = app.names.resolve(&self.host).await.map_err(unresolved)?;
        judge(&found, Setting::to_call(app.config.saas, app.config.development))?;
        let port = self.url.port_or_known_default().unwrap_or(80);
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

fn judge(found: &[IpAddr], setting: Setting) -> Result<(), String> {
    found.iter().try_for_each(|ip| address::judge(*ip, setting)).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uv_01_sf_06_what_is_no_http_address_is_refused() {
        for (text, why) in [
            ("ftp://example.org", "scheme must be http or https"),
            ("file:///etc/passwd", "scheme must be http or https"),
            ("javascript:alert(1)", "scheme must be http or https"),
            ("http://", "not a URL: empty host"),
            ("", "not a URL: relative URL without a base"),
            ("example.org", "not a URL: relative URL without a base"),
        ] {
            assert_eq!(Address::parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn only_names_need_to_be_looked_up() {
        for (text, host, named) in [
            ("http://Example.org:1/x", "example.org", true),
            ("http://localhost:8000", "localhost", false),
            ("http://LOCALHOST.", "localhost.", false),
            ("http://[::1]:80", "::1", false),
            // The URL standard reads numbers of any form as an address.
            ("http://0x7f.1", "127.0.0.1", false),
            ("http://2130706433/", "127.0.0.1", false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host(), address.is_named()), (host, named), "{text}");
        }
    }
}
