//! Who calls, and what they may do.
//!
//! Handlers ask for the role they need by the type of an argument: [`Operator`], [`Admin`], [`Editor`],
//! [`Viewer`], or [`Caller`] where both kinds of key have a meaning. The operator's key manages organizations
//! and their keys, publishes events that name their organization, and has the dead letters that belong to
//! nobody; what belongs to an organization it does not reach, and makes itself a key of that organization
//! instead, which is on record.

mod keys;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use cuewire::db::api_keys::{KeyHolder, Role};
use cuewire::ids::{ApiKeyId, OrganizationId};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Api;
use crate::error::Problem;

pub(crate) use keys::{Keys, NewKey};

/// What a caller shows. A dialect, whose clients show it in another form, puts it into the request's
/// extensions; else it is the bearer key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials {
    key_sha256: [u8; 32],
    /// Whether it has the form of an organization's key; else none needs to be looked for.
    well_formed: bool,
    /// The key's id, where the client must know that too.
    id: Option<ApiKeyId>,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Whoever runs Cuewire.
    Operator,
    /// An organization.
    Member(KeyHolder),
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Operator;

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) KeyHolder);

        impl FromRequestParts<Api> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
                Caller::from_request_parts(parts, api).await?.member(Role::$name).map(Self)
            }
        }
    };
}

role! {
    /// An organization's key that may read.
    Viewer
}
role! {
    /// An organization's key that may change webhooks, publish and send again.
    Editor
}
role! {
    /// An organization's key that may see secrets and make keys.
    Admin
}

impl Caller {
    /// The holder of an organization's key, if the key may do what `role` may.
    pub(crate) fn member(self, role: Role) -> Result<KeyHolder, Problem> {
        match self {
            Self::Operator => Err(Problem::forbidden(
                "this belongs to an organization: use a key of its own, which the operator makes with \
                 POST /v1/organizations/{id}/api-keys",
            )),
            Self::Member(holder) if holder.role < role => Err(Problem::forbidden(format!(
                "this needs a key of the role {}, and yours is {}",
                role.as_str(),
                holder.role.as_str()
            ))),
            Self::Member(holder) => Ok(holder),
        }
    }

    /// Whose things the caller works on, where `role` may: none are those that belong to nobody, which the
    /// operator has.
    pub(crate) fn scope(self, role: Role) -> Result<Option<OrganizationId>, Problem> {
        match self {
            Self::Operator => Ok(None),
            member @ Self::Member(_) => Ok(Some(member.member(role)?.organization)),
        }
    }
}

impl Credentials {
    /// A key alone.
    pub(crate) fn of_key(key: &[u8]) -> Self {
        let key_sha256 = Sha256::digest(key).into();
        Self { key_sha256, well_formed: keys::is_well_formed(key), id: None }
    }

    /// An organization's key of which only the SHA-256 is at hand.
    pub(crate) fn of_hash(key_sha256: [u8; 32]) -> Self {
        Self { key_sha256, well_formed: true, id: None }
    }

    /// A key with its id.
    pub(crate) fn of_pair(id: &[u8], key: &[u8]) -> Option<Self> {
        let id = std::str::from_utf8(id).ok()?.trim().parse().ok()?;
        Some(Self { id: Some(id), ..Self::of_key(key.trim_ascii()) })
    }

    /// What both say together, if they are of one and the same key.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let same_id = self.id.zip(other.id).is_none_or(|(one, other)| one == other);
        let same_key = bool::from(self.key_sha256.ct_eq(&other.key_sha256));
        (same_id && same_key).then_some(Self { id: self.id.or(other.id), ..self })
    }

    /// The bearer key.
    pub(crate) fn bearer(headers: &HeaderMap) -> Option<Self> {
        bearer(headers).map(Self::of_key)
    }

    /// The key's SHA-256, by which it is known again.
    pub(crate) fn key_sha256(&self) -> &[u8; 32] {
        &self.key_sha256
    }

    /// Whose they are; none: nobody's.
    pub(crate) async fn caller(&self, api: &Api) -> Result<Option<Caller>, Problem> {
        if bool::from(self.key_sha256.ct_eq(&api.operator_key_sha256)) {
            return Ok(Some(Caller::Operator));
        }
        let holder = if self.well_formed { api.keys.holder(&self.key_sha256).await? } else { None };
        let holder = holder.filter(|holder| self.id.is_none_or(|id| id == holder.key));
        Ok(holder.map(Caller::Member))
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let shown = parts.extensions.get::<Option<Credentials>>().copied();
        let shown = shown.unwrap_or_else(|| Credentials::bearer(&parts.headers));
        let shown = shown.ok_or_else(|| unauthorized("send a key as `Authorization: Bearer <key>`"))?;
        let caller = shown.caller(api).await?;
        let caller = caller.ok_or_else(|| unauthorized("there is no such key, or it was deleted"))?;
        if let Self::Member(holder) = &caller {
            tracing::Span::current().record("organization", tracing::field::display(holder.organization));
        }
        Ok(caller)
    }
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, api).await? {
            Caller::Operator => Ok(Self),
            Caller::Member(_) => Err(Problem::forbidden("this needs the operator's key")),
        }
    }
}

/// The key of `Authorization: Bearer <key>`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}
