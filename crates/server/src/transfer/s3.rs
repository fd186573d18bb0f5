//! Buckets of S3, and of what speaks as S3 does, through the HTTP client that all of Ligand shares: its roots, its TLS,
//! and no second one.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::{ClientOptions, RetryConfig};

use super::place::words;
use super::{Bucket, Error, Store};
use crate::config::Secret;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest that one object may take.
const LONGEST: Duration = Duration::from_secs(300);
/// How often one request is made again, and for how long: beyond that it is the migration that tries again.
const RETRIES: usize = 5;
const RETRIED_FOR: Duration = Duration::from_secs(45);

/// Nothing is asked of it yet.
pub(super) fn open(bucket: &Bucket) -> Result<Store, Error> {
    let wrong =
        |why: &str| Error::broken(format!("cannot use {} for snapshots: {why}", bucket.url));
    let url = reqwest::Url::parse(&bucket.url).map_err(|cause| wrong(&cause.to_string()))?;
    let below = Path::from_url_path(url.path()).map_err(|cause| wrong(&cause.to_string()))?;
    let mut builder = AmazonS3Builder::new().with_url(format!(
        "{}://{}",
        url.scheme(),
        url.host_str().unwrap_or_default()
    ));
    for (name, value) in &bucket.said {
        let key = name.parse::<AmazonS3ConfigKey>().map_err(|cause| wrong(&words(&cause)))?;
        builder = builder.with_config(key, value.reveal());
    }
    let retry =
        RetryConfig { max_retries: RETRIES, retry_timeout: RETRIED_FOR, ..RetryConfig::default() };
    let endpoints = ["aws_endpoint_url", "aws_endpoint_url_s3"];
    let direct = endpoints.into_iter().filter_map(|name| bucket.said.get(name)).any(here);
    let objects = builder.with_http_connector(Ours { direct }).with_retry(retry).build();
    let objects = objects.map_err(|cause| wrong(&words(&cause)))?;
    Ok(Store::of(Arc::new(objects)).below(below))
}

/// Whether an address is on this machine.
fn here(address: &Secret) -> bool {
    let url = reqwest::Url::parse(address.reveal()).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    let number = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || number.is_ok_and(|number| number.is_loopback())
}

/// Makes clients.
#[derive(Debug)]
struct Ours {
    /// Past any proxy: what listens on this machine is behind none.
    direct: bool,
}

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Generic { store: "S3", source }
        };
        let client = ligand_api::http::builder().map_err(|cause| failed(cause.into()))?;
        let client = client.connect_timeout(CONNECT).timeout(LONGEST);
        let client = if self.direct { client.no_proxy() } else { client }.build();
        Ok(HttpClient::new(Client(client.map_err(|cause| failed(cause.into()))?)))
    }
}

struct Client(reqwest::Client);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = head.uri.to_string().parse();
        let url = url.map_err(|cause| HttpError::new(HttpErrorKind::Unknown, NoUrl(cause)))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        // With its length: an object in pieces of unknown number is refused.
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        let answer = self.0.execute(request).await.map_err(failed)?;
        let answer: axum::http::Response<reqwest::Body> = answer.into();
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(failed))))
    }
}

impl HttpService for Client {
    fn call<'this, 'answer>(
        &'this self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'this: 'answer,
        Self: 'answer,
    {
        Box::pin(self.ask(request))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no URL: {0}")]
struct NoUrl<T>(T);

/// What may be tried again, and what not.
fn failed(cause: reqwest::Error) -> HttpError {
    let kind = if cause.is_timeout() {
        HttpErrorKind::Timeout
    } else if cause.is_connect() {
        HttpErrorKind::Connect
    } else if cause.is_decode() {
        HttpErrorKind::Decode
    } else {
        // Every request of ours may be made twice: an object is named by what it holds, or written as a whole.
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, cause.without_url())
}
