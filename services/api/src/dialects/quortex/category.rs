//! The filter `category` of Quortex I/O: one category, or an array of several, which is shown as it was given.
//!
//! The categories that events can have become types of the webhook. Where types do not tell the array (one of a single
//! category, one with repeats, one with words that are too long for any type), a term of the filter does, which
//! asks for one of just these words.

use cuewire::filter::Term;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::kinds::{is_category, is_written_as_category};
use super::webhook::{MAX_FILTER_CHARS, bounded};

const CATEGORY: &str = "category";
/// More than there are; with the other filters they are within the comparisons that a filter may have.
const MAX_CATEGORIES: usize = 90;

/// One category, or one of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "text or an array of texts is expected")]
#[schema(as = QuortexCategory)]
pub(super) enum Category {
    One(String),
    Several(Vec<String>),
}

impl Category {
    /// The categories that events can have, each once; none: any.
    pub(super) fn read(&self) -> Result<Option<Vec<String>>, String> {
        let list = match self {
            Self::One(text) if text.is_empty() => return Ok(None),
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(list) => list,
        };
        if list.len() > MAX_CATEGORIES {
            return Err(format!("has {} entries, and at most {MAX_CATEGORIES} are accepted", list.len()));
        }
        for text in list {
            bounded(text, MAX_FILTER_CHARS)?;
            if !is_written_as_category(text) {
                return Err(format!("has {text:?}, which is no category of any event"));
            }
        }
        match self {
            Self::One(text) => Ok(Some(vec![text.clone()])),
            Self::Several(list) => Ok(Some(possible(list))),
        }
    }

    /// The term by which an array is known again that types do not tell.
    pub(super) fn term(&self) -> Option<Term> {
        let Self::Several(list) = self else { return None };
        let told_by_types = list.len() != 1 && possible(list) == *list;
        (!told_by_types).then(|| Term::one_of(CATEGORY, list))
    }

    /// As it was written, by the webhook's categories and the terms of its filter.
    pub(super) fn of(categories: Option<Vec<String>>, terms: &[Term]) -> Option<Self> {
        if let Some(list) = terms.iter().find_map(listed) {
            return Some(Self::Several(list));
        }
        let one_or_several = |categories: Vec<String>| match <[String; 1]>::try_from(categories) {
            Ok([one]) => Self::One(one),
            Err(several) => Self::Several(several),
        };
        categories.map(one_or_several)
    }
}

/// The categories of an array, if the term tells one.
pub(super) fn listed(term: &Term) -> Option<Vec<String>> {
    term.as_one_of(CATEGORY)
}

/// Those that events can have, each once.
fn possible(list: &[String]) -> Vec<String> {
    let mut possible: Vec<String> = Vec::with_capacity(list.len());
    for text in list {
        if is_category(text) && !possible.contains(text) {
            possible.push(text.clone());
        }
    }
    possible
}
