//! Reading requests: axum's extractors, with a [`Problem`] where they fail.
//!
//! A body of which no type is said is read as JSON, since nothing else is asked for; one that says another type is
//! 415. Hand-written clients, and the documented GET with a body of one platform's, say none.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use cuewire::event::is_json;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::form_urlencoded;

use crate::error::{FieldError, Problem};

/// Bodies but those of events: a webhook with the longest filter, all types and headers is a tenth of it.
pub(crate) const MAX_BODY_BYTES: usize = 256 * 1024;

/// Of a value that is repeated in an error.
const MAX_SHOWN_BYTES: usize = 100;
const FORM: &str = "application/x-www-form-urlencoded";

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body that may be left out.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

/// A body of JSON, or of a form, whose values are all text; an empty one has no fields.
#[derive(Debug)]
pub(crate) struct JsonOrForm<T>(pub(crate) T);

/// The parameters in the path; what cannot be read names nothing.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

/// The parameters of the query.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

/// The same for clients that are not ours to correct: of a parameter that is repeated the last counts.
#[derive(Debug)]
pub(crate) struct LooseQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = may_be_json(request.headers());
        let body = read_body(request, state).await?;
        if !is_json {
            return Err(Problem::unsupported("send the body as JSON, with `Content-Type: application/json`"));
        }
        read_json(&body).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = may_be_json(request.headers());
        let body = read_body(request, state).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(Problem::unsupported(
                "send the body as JSON, with `Content-Type: application/json`, or none",
            ));
        }
        read_json(&body).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonOrForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = may_be_json(request.headers());
        let is_form = content_type(request.headers()).is_some_and(is_form);
        let body = read_body(request, state).await?;
        if body.is_empty() {
            read_json(b"{}").map(Self)
        } else if is_json {
            read_json(&body).map(Self)
        } else if is_form {
            read_form(&body).map(Self)
        } else {
            Err(Problem::unsupported(format!(
                "send the body as JSON, with `Content-Type: application/json`, or as a form, with \
                 `Content-Type: {FORM}`"
            )))
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(path)| Self(path)).map_err(|_| {
            Problem::new(StatusCode::NOT_FOUND, "the path names nothing: an id in it cannot be read")
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| unread_query(&source_of(&rejection)))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for LooseQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read_form(parts.uri.query().unwrap_or_default().as_bytes()).map(Self)
    }
}

/// Why a query cannot be read: by its parameter, which stands before the reason, where that is one's fault.
fn unread_query(reason: &str) -> Problem {
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match reason.split_once(": ").filter(|(name, _)| is_name(name)) {
        Some((name, reason)) => {
            let error = FieldError::new(name, in_json_words(reason));
            Problem::of_fields(StatusCode::BAD_REQUEST, vec![error], 0)
        }
        None => Problem::unreadable(format!("the query: {reason}")),
    }
}

/// The whole body, within the limit of its route.
pub(crate) async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large("the body is larger than this route accepts"),
        _ => Problem::unreadable("the body broke off"),
    })
}

/// The media type of the body.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// Whether the body is of JSON by its type, or by the lack of one.
fn may_be_json(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).filter(|value| !value.is_empty());
    said.is_none_or(|value| value.to_str().is_ok_and(is_json))
}

fn is_form(media_type: &str) -> bool {
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// Reads a form, whose values are all text; of a name that is repeated the last counts.
fn read_form<T: DeserializeOwned>(form: &[u8]) -> Result<T, Problem> {
    let members = form_urlencoded::parse(form).map(|(name, value)| (name.into(), value.into()));
    read_json(Value::Object(members.collect()).to_string().as_bytes())
}

/// Reads JSON: 400 where it is none, 422 with the field where it is not what is wanted.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take an array for an object, its elements for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid_field("body", "is an array, and must be an object"));
    }
    // What is passed over would not be looked at, in a field that nobody knows.
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::unreadable(format!("the body is not valid JSON: {error}")))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => Problem::invalid(vec![field_error(&path, &error)]),
            _ => Problem::unreadable(format!("the body is not valid JSON: {error}")),
        }
    })?;
    deserializer
        .end()
        .map_err(|error| Problem::unreadable(format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}

/// The field that serde stumbled over, and why, to be read after the field's name.
fn field_error(path: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    let named = |prefix| reason.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(field) = named("unknown field `") {
        let known = reason.split_once(", ").map_or("", |(_, known)| known);
        return FieldError::new(field, format!("is not known here: {known}"));
    }
    if let Some(field) = named("missing field `") {
        return FieldError::new(field, "is missing");
    }
    let field = if path == "." { "body" } else { path };
    FieldError::new(field, in_json_words(reason))
}

/// What serde says of a value that is of the wrong type, in the words of JSON: its own are those of the code. What
/// our own code says stands to be read after the field's name.
fn in_json_words(reason: &str) -> String {
    if reason.starts_with("is ") {
        return reason.to_owned();
    }
    let told = reason.strip_prefix("invalid type: ").or_else(|| reason.strip_prefix("invalid value: "));
    let Some((found, expected)) = told.and_then(|told| told.rsplit_once(", expected ")) else {
        return format!("cannot be read: {reason}");
    };
    let value = |prefix| found.strip_prefix(prefix).map(|rest: &str| rest.trim_matches('`').to_owned());
    let found = match found {
        "map" => "an object".to_owned(),
        "sequence" => "an array".to_owned(),
        _ => ["boolean ", "integer ", "floating point ", "string "]
            .into_iter()
            .find_map(value)
            .unwrap_or_else(|| found.to_owned()),
    };
    let expected = match expected {
        "a string" | "str" => "text",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" => "a whole number within its range",
        _ if expected.starts_with("struct ") || expected == "a map" => "an object",
        other => other,
    };
    let shown = &found[..found.floor_char_boundary(MAX_SHOWN_BYTES)];
    format!("is {shown}{}, and must be {expected}", if shown.len() < found.len() { "…" } else { "" })
}

/// The innermost message: the outer ones say only that something failed.
fn source_of(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// For a field whose `null` means something else than its absence.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Sample {
        name: String,
        #[serde(default)]
        list: Vec<u32>,
    }

    #[derive(Debug, Deserialize)]
    struct Tolerant {}

    #[test]
    fn what_does_not_fit_is_named() {
        for (body, field, detail) in [
            (r#"{"name":1}"#, "name", "is 1, and must be text"),
            (r#"{"name":{}}"#, "name", "is an object, and must be text"),
            (r#"{"name":null}"#, "name", "is null, and must be text"),
            (r#"{}"#, "name", "is missing"),
            (r#"{"name":"a","naem":1}"#, "naem", "is not known here: expected `name` or `list`"),
            (
                r#"{"name":"a","list":[1,-2]}"#,
                "list[1]",
                "is -2, and must be a whole number within its range",
            ),
            (r#"{"name":"a","list":true}"#, "list", "is true, and must be an array"),
            (r#"{"name":"a","list":"x, expected y"}"#, "list", r#"is "x, expected y", and must be an array"#),
            (r#"7"#, "body", "is 7, and must be an object"),
        ] {
            let error =
                serde_path_to_error::deserialize::<_, Sample>(&mut serde_json::Deserializer::from_str(body));
            let error =
                error.map(drop).map_err(|error| field_error(&error.path().to_string(), error.inner()));
            assert_eq!(error, Err(FieldError::new(field, detail)), "{body}");
        }
        assert!(read_json::<Sample>(br#"["name", []]"#).is_err());
    }

    #[test]
    fn a_parameter_of_the_query_that_does_not_fit_is_named() {
        let said = |reason| (unread_query(reason).status.as_u16(), unread_query(reason).detail);
        let own = "limit: is \"x\", and must be a whole number";
        assert_eq!(said(own), (400, "`limit` is \"x\", and must be a whole number".to_owned()));
        let serdes = "sort_by: unknown variant `url`, expected `name`";
        let expected = "`sort_by` cannot be read: unknown variant `url`, expected `name`";
        assert_eq!(said(serdes), (400, expected.to_owned()));
        assert_eq!(said("duplicate field `page`"), (400, "the query: duplicate field `page`".to_owned()));
    }

    #[test]
    fn what_is_no_utf8_is_no_json_wherever_it_stands() {
        assert_eq!(read_json::<Tolerant>(b"{\"a\":\"\xff\"}").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
