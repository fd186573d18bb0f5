//! How every part of Ligand calls another one over HTTP.

use std::sync::Arc;

use reqwest::{ClientBuilder, redirect};

/// A client to be completed by its user, who sets time limits. It trusts the roots that are compiled in,
/// whatever the machine has, does TLS by `ring`, and follows no redirect: a credential goes where it was
/// sent and nowhere else.
///
/// # Errors
/// When the compiled-in provider lacks a protocol version; that would be a defect of the build.
pub fn builder() -> Result<ClientBuilder, rustls::Error> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(redirect::Policy::none()))
}
