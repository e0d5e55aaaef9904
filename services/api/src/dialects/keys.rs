//! How platforms' clients show a key: what the document says of it, and the reading of what several have.

use axum::http::HeaderMap;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};

use crate::auth::Credentials;
use crate::openapi::operations;

/// A part of what a client shows of a key, with what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    /// `Authorization: Bearer …`
    Bearer(&'static str),
    /// `Authorization: Basic …`
    Basic(&'static str),
    /// A header of this name.
    Header(&'static str, &'static str),
}

impl Shown {
    /// Its name in the document, where every platform has its own.
    fn name(self, platform: &str) -> String {
        let part = match self {
            Self::Bearer(_) => "bearer".to_owned(),
            Self::Basic(_) => "basic".to_owned(),
            Self::Header(name, _) => name.to_ascii_lowercase().replace('-', "_"),
        };
        format!("{platform}_{part}")
    }

    fn scheme(self) -> SecurityScheme {
        let http = |scheme, holds: &str| {
            let mut http = Http::new(scheme);
            http.description = Some(holds.to_owned());
            SecurityScheme::Http(http)
        };
        match self {
            Self::Bearer(holds) => http(HttpAuthScheme::Bearer, holds),
            Self::Basic(holds) => http(HttpAuthScheme::Basic, holds),
            Self::Header(name, holds) => {
                SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, holds)))
            }
        }
    }
}

/// Whether a key can be shown as `Authorization: Bearer …`, as a 401 then says.
pub(super) fn has_bearer(ways: &[&[Shown]]) -> bool {
    ways.iter().copied().flatten().any(|part| matches!(part, Shown::Bearer(_)))
}

/// Says in the document that each of these ways is enough, but for operations that say otherwise themselves.
pub(super) fn describe(document: &mut Document, platform: &str, ways: &[&[Shown]]) {
    let components = document.components.get_or_insert_default();
    for part in ways.iter().copied().flatten() {
        components.add_security_scheme(part.name(platform), part.scheme());
    }
    let together = |parts: &&[Shown]| {
        let none = SecurityRequirement::default();
        parts.iter().fold(none, |all, part| all.add(part.name(platform), [""; 0]))
    };
    let requirements: Vec<_> = ways.iter().map(together).collect();
    for operation in operations(document) {
        operation.security.get_or_insert_with(|| requirements.clone());
    }
}

/// A key's id and the key in two headers; some, if one of them is there and not empty.
pub(super) fn pair(headers: &HeaderMap, id: &str, key: &str) -> Option<Option<Credentials>> {
    let value = |name: &str| {
        let value = headers.get(name).map(|value| value.as_bytes().trim_ascii());
        value.filter(|value| !value.is_empty())
    };
    match (value(id), value(key)) {
        (None, None) => None,
        (id, key) => Some(id.zip(key).and_then(|(id, key)| Credentials::of_pair(id, key))),
    }
}
