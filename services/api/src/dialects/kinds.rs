//! Which kinds of events a webhook takes, for dialects that name a category and an operation and no types.
//!
//! They become types of the webhook (`assets.update`, `assets.*`) where types can say them, and terms of its
//! filter where not: an operation of any category, or text that no type can hold.

use cuewire::event::EventType;

use super::selection::{Place, Selection};

const CATEGORY: Place = &["category", "event_type"];
const OPERATION: Place = &["operation"];
/// In bytes: of a longer text each part is short enough for a type.
const HALF_OF_A_TYPE: usize = 64;

/// Categories and an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kinds {
    /// One of these; none: any category.
    pub(super) categories: Option<Vec<String>>,
    /// None: any operation.
    pub(super) operation: Option<String>,
}

impl Kinds {
    /// The places that a selection may name them in, besides its types.
    pub(super) const PLACES: [Place; 2] = [CATEGORY, OPERATION];

    /// What a webhook takes, as closely as it can be said.
    pub(super) fn of(selection: &Selection) -> Self {
        let pairs = selection.types().map(|types| types.iter().map(|text| halves(text)).collect::<Vec<_>>());
        let of_types = pairs.as_deref().map_or((None, None), common);
        let category = selection.value(CATEGORY).map(|category| vec![category]);
        Self {
            categories: category.or(of_types.0),
            operation: selection.value(OPERATION).or_else(|| of_types.1.map(str::to_owned)),
        }
    }

    /// Takes these from now on; what is so already is left as it is written.
    pub(super) fn write_to(&self, selection: &mut Selection) {
        if *self == Self::of(selection) {
            return;
        }
        let mut operation = self.operation.as_deref();
        for place in Self::PLACES {
            selection.set_value(place, None);
        }
        let types = self.categories.as_deref().and_then(|categories| {
            let of_both = patterns(categories, operation).filter(|_| operation.is_some());
            if of_both.as_ref().is_some_and(|patterns| !patterns.is_empty()) {
                operation = None;
                return of_both;
            }
            patterns(categories, None)
        });
        if let (None, Some([category])) = (&types, self.categories.as_deref()) {
            selection.set_value(CATEGORY, Some(category));
        }
        selection.set_value(OPERATION, operation);
        selection.set_types(types);
    }
}

/// Category and operation of a type or pattern; `*` alone is both.
fn halves(text: &str) -> (&str, &str) {
    text.split_once('.').unwrap_or((text, text))
}

/// The categories, unless one is any, and the operation, if all have the same.
fn common<'a>(pairs: &[(&str, &'a str)]) -> (Option<Vec<String>>, Option<&'a str>) {
    let mut categories: Vec<String> = Vec::new();
    for (category, _) in pairs {
        if !categories.iter().any(|known| known == category) {
            categories.push((*category).to_owned());
        }
    }
    let operation = pairs.first().map(|(_, operation)| *operation);
    let same = |operation: &&str| pairs.iter().all(|(_, other)| other == operation);
    (
        Some(categories).filter(|categories| !categories.iter().any(|category| category == "*")),
        operation.filter(|operation| !operation.contains('*')).filter(same),
    )
}

/// The patterns of these categories with an operation, or with any; none if a type cannot hold one of them.
fn patterns(categories: &[String], operation: Option<&str>) -> Option<Vec<String>> {
    let pattern = |category: &String| {
        let example = EventType::parse(&format!("{category}.{}", operation.unwrap_or("x"))).ok()?;
        let fits = example.category() == category;
        fits.then(|| format!("{category}.{}", operation.unwrap_or("*")))
    };
    categories.iter().map(pattern).collect()
}

/// Whether a type can hold this category with an operation.
pub(super) fn is_category(text: &str) -> bool {
    patterns(&[text.to_owned()], None).is_some()
}

/// Whether it is written as categories are, though it may be a little too long for any type: it matches nothing then.
pub(super) fn is_written_as_category(text: &str) -> bool {
    match text.split_at_checked(HALF_OF_A_TYPE) {
        Some((head, tail)) if !tail.is_empty() => is_category(head) && is_category(tail),
        _ => is_category(text),
    }
}

/// The same for operations, which may have several words.
pub(super) fn is_written_as_operation(text: &str) -> bool {
    text.split('.').all(is_written_as_category)
}

#[cfg(test)]
mod tests {
    use cuewire::filter::Term;

    use super::*;
    use crate::webhooks::WebhookFields;

    fn selection(types: Option<&[&str]>, filter: &str) -> Selection {
        let mut selection = Selection::nothing();
        selection.set_types(types.map(|types| types.iter().map(|&text| text.to_owned()).collect()));
        selection.terms = Term::all_of(filter).unwrap();
        selection
    }

    fn kinds(categories: Option<&[&str]>, operation: Option<&str>) -> Kinds {
        let categories = categories.map(|list| list.iter().map(|&text| text.to_owned()).collect());
        Kinds { categories, operation: operation.map(str::to_owned) }
    }

    #[test]
    fn kinds_are_read_from_types_and_terms_as_closely_as_can_be() {
        for (types, filter, categories, operation) in [
            (None, "", None, None),
            (Some(&[][..]), "", Some(&[][..]), None),
            (Some(&["a.*"]), "", Some(&["a"]), None),
            (Some(&["a.b"]), "", Some(&["a"]), Some("b")),
            (Some(&["a.b.c"]), "", Some(&["a"]), Some("b.c")),
            (Some(&["a.b", "c.b"]), "", Some(&["a", "c"]), Some("b")),
            (Some(&["a.b", "a.c"]), "", Some(&["a"]), None),
            (Some(&["a.b.*"]), "", Some(&["a"]), None),
            (Some(&["*"]), "", None, None),
            (Some(&["*.b", "a.b"]), "", None, Some("b")),
            (None, "operation=\"b\" x=1", None, Some("b")),
            (None, "event_type=\"a\" AND operation=\"b\"", Some(&["a"]), Some("b")),
            (Some(&["a.*"]), "operation=\"b\"", Some(&["a"]), Some("b")),
        ] {
            let read = Kinds::of(&selection(types, filter));
            assert_eq!(read, kinds(categories, operation), "{types:?} {filter}");
        }
    }

    #[test]
    fn kinds_come_back_as_they_were_written_and_leave_the_rest() {
        let long = "x".repeat(128);
        for (categories, operation, types, filter) in [
            (None, None, &[][..], "x=1".to_owned()),
            (None, Some("b"), &[], "x=1 AND operation = \"b\"".to_owned()),
            (Some(&["a"][..]), None, &["a.*"], "x=1".to_owned()),
            (Some(&["a"]), Some("b"), &["a.b"], "x=1".to_owned()),
            (Some(&["a", "c"]), Some("b"), &["a.b", "c.b"], "x=1".to_owned()),
            (Some(&["a"]), Some("b c"), &["a.*"], "x=1 AND operation = \"b c\"".to_owned()),
            (Some(&["a"]), Some("b.*"), &["a.*"], "x=1 AND operation = \"b.*\"".to_owned()),
            (Some(&["a"]), Some(&long), &["a.*"], format!("x=1 AND operation = \"{long}\"")),
            (Some(&["a.b"]), None, &[], "x=1 AND category = \"a.b\"".to_owned()),
            (Some(&["ä"]), Some("b"), &[], "x=1 AND category = \"ä\" AND operation = \"b\"".to_owned()),
            (Some(&[]), Some("b"), &[], "x=1 AND operation = \"b\" AND id = null".to_owned()),
        ] {
            let wanted = kinds(categories, operation);
            let start = [(None, "x=1"), (Some(&["q.r", "s.*"][..]), "category=\"q\" x=1 operation=\"r\"")];
            for mut selection in start.map(|(types, filter)| selection(types, filter)) {
                wanted.write_to(&mut selection);
                assert_eq!(Kinds::of(&selection), wanted);
                let mut fields = WebhookFields::default();
                selection.write_to(&mut fields);
                assert_eq!(fields.event_types.flatten().unwrap(), types, "{wanted:?}");
                assert_eq!(fields.filter.flatten(), Some(filter.clone()), "{wanted:?}");
            }
        }
    }

    #[test]
    fn what_is_so_already_is_left_as_it_is_written() {
        let mut selection = selection(Some(&["a.b", "a.c.*", "d.*"]), "x=1");
        let before = selection.clone();
        Kinds::of(&selection).write_to(&mut selection);
        assert_eq!(selection, before);
    }
}
