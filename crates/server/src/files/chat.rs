//! Files that go with messages.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use ligand_api::error::ErrorBody;
use ligand_api::files::{Uploaded, Uploads};
use ligand_domain::files::{self, Root};
use multer::{Constraints, Multipart, SizeLimit};
use serde::Deserialize;

use super::{Files, too_large, unavailable, unsound};
use crate::access::OfWorkspace;
use crate::app::App;
use crate::error::{Error, Result};

/// Bytes of one upload, and of one file in it.
const MOST: (u64, u64) = (50 << 20, 25 << 20);
/// Files of one upload.
const MOST_FILES: usize = 200;
/// Where the agent finds them, below its workspace.
const FOLDER: &str = ".molecule/chat-uploads";
/// The field that holds them.
const FIELD: &str = "files";
const NOT_RUNNING: &str = "workspace container not running";
/// A download goes out in pieces of this size.
const PIECE: usize = 64 << 10;

/// A file as it came.
struct Sent {
    name: String,
    mime_type: String,
    content: Bytes,
}

/// Send files to an agent, to be named in a message. `multipart/form-data` with one field `files` for each.
#[utoipa::path(post, path = "/workspaces/{id}/chat/uploads", tag = "files", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Uploads), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn upload(
    caller: OfWorkspace,
    State(app): State<App>,
    request: Request,
) -> Result<Json<Uploads>> {
    let files = Files::of(&app, caller.workspace).await?;
    let sent = received(request).await?;
    if !files.runs(&app).await? {
        return Err(unavailable(NOT_RUNNING));
    }
    let mut uploads = Uploads::default();
    for Sent { name, mime_type, content } in sent {
        let number: String =
            app.ids.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("{FOLDER}/{number}-{}", files::upload_name(&name));
        let size = content.len() as u64;
        files.write(Root::Workspace, &path, content).await?;
        let uri = format!("workspace:{}/{path}", Root::Workspace.as_str());
        uploads.files.push(Uploaded { uri, name, mime_type, size });
    }
    Ok(Json(uploads))
}

async fn received(request: Request) -> Result<Vec<Sent>> {
    let unread = |why: String| Error::invalid("failed to parse multipart form", why);
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let boundary = multer::parse_boundary(kind.unwrap_or_default())
        .map_err(|_| unread("Content-Type: expected multipart/form-data with a boundary".into()))?;
    let limit = SizeLimit::new().whole_stream(MOST.0).per_field(MOST.1);
    let constraints = Constraints::new().size_limit(limit);
    let body = request.into_body().into_data_stream();
    let mut form = Multipart::with_constraints(body, boundary, constraints);
    let refused = |cause: multer::Error| match cause {
        multer::Error::StreamSizeExceeded { .. } => too_large("upload exceeds 50 MB"),
        multer::Error::FieldSizeExceeded { .. } => too_large("file exceeds 25 MB"),
        cause => unread(cause.to_string()),
    };
    let mut sent = Vec::new();
    while let Some(field) = form.next_field().await.map_err(refused)? {
        if field.name() != Some(FIELD) {
            continue;
        }
        if sent.len() == MOST_FILES {
            return Err(Error::bad_request(format!("too many files, max {MOST_FILES}")));
        }
        let name = files::last_part(field.file_name().unwrap_or_default()).trim().to_owned();
        let name = if name.is_empty() { "file".to_owned() } else { name };
        let told = field.content_type().map(ToString::to_string);
        let mime_type = told.unwrap_or_else(|| mime_type(&name).to_owned());
        let content = field.bytes().await.map_err(refused)?;
        sent.push(Sent { name, mime_type, content });
    }
    if sent.is_empty() {
        return Err(Error::bad_request("expected at least one 'files' field"));
    }
    Ok(sent)
}

/// Which file.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Absolute, in `/configs`, `/workspace`, `/home` or `/plugins`.
    path: Option<String>,
}

/// A file of a workspace as it is.
#[utoipa::path(get, path = "/workspaces/{id}/chat/download", tag = "files", params(("id" = String, Path, description = "workspace id"), Wanted), responses(
    (status = 200, description = "the file", content_type = "application/octet-stream"), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn download(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<Wanted>,
) -> Result<Response> {
    let wanted = query.path.as_deref().unwrap_or_default();
    let (root, path) = files::absolute(wanted).map_err(unsound)?;
    let files = Files::of(&app, caller.workspace).await?;
    if files.backend.is_none() {
        return Err(unavailable(NOT_RUNNING));
    }
    let content = files.read(root, &path).await?;
    let content = content.ok_or_else(|| Error::not_found("file not found"))?;
    let name = files::last_part(&path);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime_type(name)));
    headers.insert(header::CONTENT_LENGTH, content.len().into());
    if let Ok(value) = HeaderValue::try_from(disposition(name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    let pieces = stream::unfold(content, |mut rest| async move {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), rest))
    });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// To be kept, not shown: under a plain name, and under the whole one for whoever reads that.
fn disposition(name: &str) -> String {
    let whole: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("attachment; filename=\"{}\"; filename*=UTF-8''{whole}", files::upload_name(name))
}

/// What a file is, by its name. Nothing that a browser would run is named as such.
fn mime_type(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    match end.as_deref().unwrap_or_default() {
        "txt" | "log" | "html" | "htm" | "js" | "svg" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" => "application/json",
        "yaml" | "yml" => "application/yaml",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(
            disposition("a\"; x=\"ä.txt"),
            "attachment; filename=\"a___x___.txt\"; filename*=UTF-8''a%22%3B%20x%3D%22%C3%A4.txt"
        );
    }
}
