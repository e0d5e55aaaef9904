//! The filter `category` of Quortex I/O: one category, or an array of several, each of which is shown once.

use cuewire::filter::Term;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::kinds::{is_category, is_written_as_category};
use super::webhook::{MAX_FILTER_CHARS, bounded};

const CATEGORY: &str = "category";
/// More than there are.
const MAX_CATEGORIES: usize = 100;

/// One category, or one of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "text or an array of texts is expected")]
#[schema(as = QuortexCategory)]
pub(super) enum Category {
    One(String),
    Several(Vec<String>),
}

impl Category {
    /// The categories; none: any.
    pub(super) fn read(&self) -> Result<Option<Vec<String>>, String> {
        let list = match self {
            Self::One(text) if text.is_empty() => return Ok(None),
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(list) => list,
        };
        if list.len() > MAX_CATEGORIES {
            return Err(format!("has {} entries, and at most {MAX_CATEGORIES} are accepted", list.len()));
        }
        if let [one] = list {
            bounded(one, MAX_FILTER_CHARS)?;
        }
        // Of several each must be a type's, since a term of the filter holds but one.
        let fits = if list.len() == 1 { is_written_as_category } else { is_category };
        if let Some(other) = list.iter().find(|text| !fits(text)) {
            return Err(format!("has {other:?}, which is no category of any event"));
        }
        Ok(Some(once(list)))
    }

    /// What tells an array of one category from a single one: the same again, as a term in parentheses.
    pub(super) fn mark(&self) -> Option<Term> {
        let Self::Several(list) = self else { return None };
        match once(list).as_slice() {
            [one] => Some(mark(one)),
            _ => None,
        }
    }

    /// As it was written, by the webhook's categories and the terms of its filter.
    pub(super) fn of(categories: Vec<String>, terms: &[Term]) -> Self {
        match <[String; 1]>::try_from(categories) {
            Ok([one]) if !terms.contains(&mark(&one)) => Self::One(one),
            Ok(one) => Self::Several(one.into()),
            Err(several) => Self::Several(several),
        }
    }
}

/// The mark of an array of this category alone.
pub(super) fn mark(category: &str) -> Term {
    Term::nested(Term::equals(CATEGORY, category).as_str())
}

/// Each of them once.
fn once(list: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(list.len());
    for text in list {
        if !once.contains(text) {
            once.push(text.clone());
        }
    }
    once
}
