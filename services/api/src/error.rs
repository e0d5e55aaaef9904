//! What a request that cannot be answered gets: `application/problem+json` (RFC 9457), with a sentence that
//! says what to do, and the fields that are wrong.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cuewire::db::DbError;
use serde::Serialize;
use utoipa::ToSchema;

/// When a part that the api depends on is away: reconnecting takes a few seconds at most.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A request that cannot be answered. The answer carries it among its extensions, so that a dialect can say it
/// in its own words.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) errors: Vec<FieldError>,
    retry_after: Option<Duration>,
}

/// A field of the request that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Which event of a batch it is, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    /// The field, a query parameter or a header.
    #[schema(example = "url")]
    pub(crate) field: String,
    /// What is wrong with it, to be read after its name.
    #[schema(example = "has the scheme \"ftp\", and must be http or https")]
    pub(crate) detail: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { index: None, field: field.into(), detail: detail.into() }
    }
}

/// An error, as RFC 9457 writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Always `about:blank`: the status says which kind of error it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong, and what to do.
    #[schema(example = "`url` has the scheme \"ftp\", and must be http or https")]
    detail: String,
    /// The first field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "url")]
    field: Option<String>,
    /// Every field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    /// 400: the request cannot be read at all.
    pub(crate) fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 403.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404, also for what belongs to another organization: `what` with its article.
    pub(crate) fn no_such(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no such {what} in your reach"))
    }

    /// 409.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 413.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 415.
    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 422: fields that are not as they must be.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self::of_fields(StatusCode::UNPROCESSABLE_ENTITY, errors, 0)
    }

    /// Fields that are not as they must be, and how many more there are.
    pub(crate) fn of_fields(status: StatusCode, errors: Vec<FieldError>, more: usize) -> Self {
        let sentence = |error: &FieldError| match error.index {
            Some(index) => format!("event {index}: `{}` {}", error.field, error.detail),
            None => format!("`{}` {}", error.field, error.detail),
        };
        let mut sentences: Vec<_> = errors.iter().map(sentence).collect();
        if more > 0 {
            sentences.push(format!("and {more} more"));
        }
        Self { errors, ..Self::new(status, sentences.join("; ")) }
    }

    /// 422 for one field.
    pub(crate) fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, detail)])
    }

    /// 429, with the time to come back where that is known.
    pub(crate) fn too_many(detail: impl Into<String>, wait: Option<Duration>) -> Self {
        let retry_after = Some(wait.unwrap_or(RETRY_AFTER));
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// 500: what went wrong is on the log, and not for clients.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this is a fault of Cuewire's, and on its log")
    }

    /// 503, with a time to come back.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(reason) => {
                tracing::warn!(%reason, "a request found the database away");
                Self::unavailable("the database cannot be reached now; try again")
            }
            // Every field is checked before it comes here; what slips through is the client's all the same.
            DbError::Unfit(reason) => {
                tracing::error!(%reason, "a request got to the database with a value that it cannot hold");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the request holds a value that cannot be stored")
            }
            other => {
                tracing::error!(error = %other, "a request failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            field: self.errors.first().map(|error| error.field.clone()),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, and never too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}
