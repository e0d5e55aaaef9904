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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_shown_as_they_were_given_and_are_types_where_they_can_be() {
        let long = "x".repeat(128);
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        for (given, types, is_term) in [
            (&[][..], &[][..], false),
            (&["pool"], &["pool"], true),
            (&["pool", "input"], &["pool", "input"], false),
            (&["pool", "pool"], &["pool"], true),
            (&["pool", "input", "pool"], &["pool", "input"], true),
            (&["pool", &long], &["pool"], true),
            (&[&long, &long[1..]], &[], true),
        ] {
            let category = Category::Several(owned(given));
            assert_eq!(category.read(), Ok(Some(owned(types))));
            let terms: Vec<_> = category.term().into_iter().collect();
            assert_eq!(terms.len(), usize::from(is_term), "{given:?}");
            assert_eq!(Category::of(Some(owned(types)), &terms), Some(category));
        }
        let one = Category::One("pool".to_owned());
        assert_eq!((one.read(), one.term()), (Ok(Some(owned(&["pool"]))), None));
        assert_eq!(Category::of(Some(owned(&["pool"])), &[]), Some(one));
        for refused in [&["pool", "a b"][..], &[""], &[&"x".repeat(129)], &["a"; MAX_CATEGORIES + 1]] {
            assert!(Category::Several(owned(refused)).read().is_err(), "{refused:?}");
        }
    }
}
