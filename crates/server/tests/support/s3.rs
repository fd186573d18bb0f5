//! As much of S3 as snapshots need, on loopback, over memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

/// Names in one answer of a list.
const PAGE: usize = 3;
/// Whoever else asks is refused.
pub(crate) const KEY_ID: &str = "KEYOFTHETESTS";

/// What the server saw and has.
#[derive(Clone, Default)]
pub(crate) struct S3 {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    asked: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    address: Option<SocketAddr>,
}

impl S3 {
    /// Start it. It ends with the runtime.
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let s3 = Self { address: Some(listener.local_addr().unwrap()), ..Self::default() };
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
        let router = router.with_state(s3.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        s3
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address.unwrap())
    }

    /// How often this was asked for.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// The names of all objects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn count(&self, what: &'static str) {
        *self.asked.lock().unwrap().entry(what).or_default() += 1;
    }

    fn put(&self, path: String, content: Bytes) -> Response {
        self.objects.lock().unwrap().insert(path, content);
        [("etag", "\"tag\"")].into_response()
    }

    fn get(&self, path: &str) -> Response {
        let Some(content) = self.objects.lock().unwrap().get(path).cloned() else {
            return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>")
                .into_response();
        };
        let changed = ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
        ([changed, ("etag", "\"tag\"")], content).into_response()
    }

    fn list(&self, asked: &BTreeMap<String, String>) -> Response {
        let objects = self.objects.lock().unwrap();
        let (prefix, after) = (&asked["prefix"], asked.get("continuation-token"));
        let prefix = format!("/bucket/{prefix}");
        let all = objects.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut left = all.filter(|(name, _)| after.is_none_or(|after| *name > after));
        let mut body = String::from("<ListBucketResult>");
        let mut last = None;
        for (name, content) in left.by_ref().take(PAGE) {
            let key = name.strip_prefix("/bucket/").unwrap();
            let size = content.len();
            let time = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>tag</ETag>";
            write!(body, "<Contents><Key>{key}</Key><Size>{size}</Size>{time}</Contents>").unwrap();
            last = Some(name);
        }
        if let (Some(_), Some(last)) = (left.next(), last) {
            write!(body, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
        }
        body.push_str("</ListBucketResult>");
        body.into_response()
    }

    fn remove(&self, body: &Bytes) -> Response {
        let asked = String::from_utf8(body.to_vec()).unwrap();
        let mut answer = String::from("<DeleteResult>");
        for key in asked.split("<Key>").skip(1) {
            let key = key.split("</Key>").next().unwrap();
            self.objects.lock().unwrap().remove(&format!("/bucket/{key}"));
            write!(answer, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        answer.push_str("</DeleteResult>");
        answer.into_response()
    }
}

async fn answer(
    State(s3): State<S3>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
    let signature = header("authorization");
    let signed = signature.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/"))
        && signature.contains("/eu-test-1/s3/aws4_request")
        && signature.contains("Signature=")
        && !header("x-amz-date").is_empty();
    if !signed {
        s3.count("refused");
        let body = "<Error><Code>InvalidAccessKeyId</Code></Error>";
        return (StatusCode::FORBIDDEN, body).into_response();
    }
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace("%2F", "/");
            (!name.is_empty()).then(|| (name.to_owned(), value))
        })
        .collect();
    let path = uri.path().to_owned();
    if method == Method::PUT {
        s3.count("put");
        if header("content-length") != body.len().to_string() {
            return StatusCode::LENGTH_REQUIRED.into_response();
        }
        s3.put(path, body)
    } else if method == Method::POST && query.contains_key("delete") {
        s3.count("delete");
        s3.remove(&body)
    } else if method == Method::GET && query.contains_key("list-type") {
        s3.count("list");
        s3.list(&query)
    } else if method == Method::GET {
        s3.count("get");
        s3.get(&path)
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
}
