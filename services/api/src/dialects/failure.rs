//! How platforms say that a request failed. Each has a body of its own, of which both the answers and what the
//! document says of them are made.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{OpenApi as Document, RefOr};

use crate::error::Problem;
use crate::openapi::ErrorBody;

const JSON: &str = "application/json";

/// The body of a platform's errors.
pub(super) trait Failure: Serialize + ToSchema {
    /// What is said of a problem, and with which status.
    fn of(problem: &Problem) -> (StatusCode, Self);
}

/// What a dialect does with failures, whatever their body is.
#[derive(Clone, Copy)]
pub(super) struct Failures {
    tell: fn(&Problem) -> (StatusCode, String),
    schema: fn() -> (String, RefOr<Schema>),
}

impl Failures {
    /// Those that have this body.
    pub(super) const fn of<F: Failure>() -> Self {
        Self {
            tell: |problem| {
                let (status, body) = F::of(problem);
                (status, serde_json::to_string(&body).unwrap_or_default())
            },
            schema: || (F::name().into_owned(), F::schema()),
        }
    }

    /// An error in the platform's envelope; any other answer as it is.
    pub(super) fn enclosed(self, mut response: Response) -> Response {
        let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
        let (status, body) = (self.tell)(&problem);
        *response.status_mut() = status;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        response.map(|_| Body::from(body))
    }

    /// Adds the body's schema to the document, and answers what operations say of it.
    pub(super) fn described(self, document: &mut Document) -> ErrorBody {
        let (name, schema) = (self.schema)();
        document.components.get_or_insert_default().schemas.insert(name.clone(), schema);
        ErrorBody { media_type: JSON, schema: name }
    }
}

/// The problem's status, for platforms that know no 422.
pub(super) fn without_422(problem: &Problem) -> StatusCode {
    match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

/// The problem with the platform's names for the fields of a webhook.
pub(super) fn in_words_of(names: &[(&str, &str)], problem: &Problem) -> Problem {
    if problem.errors.is_empty() {
        return problem.clone();
    }
    let mut errors = problem.errors.clone();
    for error in &mut errors {
        if let Some((_, own)) = names.iter().find(|(native, _)| *native == error.field) {
            error.field = (*own).to_owned();
        }
    }
    Problem::of_fields(problem.status, errors, 0)
}
