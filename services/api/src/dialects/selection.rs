//! Which events a webhook takes, seen by a dialect: types that are chosen or not, and terms of its filter.
//!
//! A dialect says less than a webhook can hold. What it has no word for it leaves as it is: a change touches
//! the types and terms that the change is about, and those only where they are not so already.

use cuewire::catalogue;
use cuewire::filter::Term;
use cuewire::webhook::{Pattern, Webhook};

use crate::webhooks::WebhookFields;

/// A place in an event, by each of its names; the first is the one to be written.
pub(super) type Place = &'static [&'static str];

/// Types or patterns that a dialect's clients choose together.
pub(super) type Choice = &'static [&'static str];

/// A webhook's types and filter, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    types: Types,
    /// All of these must hold.
    pub(super) terms: Vec<Term>,
    /// What the webhook has, if there is one: what is not changed is not written.
    stored: Option<Stored>,
}

/// What a webhook has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    /// As it has them.
    patterns: Vec<String>,
    filter: Vec<Term>,
    /// As they were taken apart: put together again they might be in another order.
    types: Types,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Types {
    /// Every type but Cuewire's own.
    All,
    /// These, and none of others; there may be none at all.
    Only(Vec<String>),
}

impl Selection {
    /// No events at all.
    pub(super) fn nothing() -> Self {
        Self { types: Types::Only(Vec::new()), terms: Vec::new(), stored: None }
    }

    /// What a webhook takes.
    pub(super) fn of(webhook: &Webhook) -> Self {
        let filter = webhook.filter.as_deref();
        // One that cannot be read (a later version wrote it) stays whole.
        let whole = |filter: &str| vec![Term::nested(filter)];
        let mut terms =
            filter.map_or_else(Vec::new, |filter| Term::all_of(filter).unwrap_or_else(|_| whole(filter)));
        let patterns: Vec<_> =
            webhook.event_types.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        let (stored_patterns, stored_filter) = (patterns.clone(), terms.clone());
        let takes_none = terms.contains(&no_event());
        terms.retain(|term| *term != no_event());
        let types = match patterns.as_slice() {
            _ if takes_none => Types::Only(Vec::new()),
            [] => Types::All,
            _ => Types::Only(patterns),
        };
        let stored = Stored {
            patterns: stored_patterns,
            filter: stored_filter,
            types: types.clone(),
            terms: terms.clone(),
        };
        Self { types, terms, stored: Some(stored) }
    }

    /// Whether it takes events of the choice, or some of them.
    pub(super) fn has(&self, choice: Choice) -> bool {
        match &self.types {
            Types::All => true,
            Types::Only(patterns) => patterns.iter().any(|pattern| overlaps(pattern, choice)),
        }
    }

    /// Whether it takes no events at all.
    pub(super) fn takes_none(&self) -> bool {
        self.types().is_some_and(<[String]>::is_empty)
    }

    /// The types it takes, as they were written; none: every type but Cuewire's own.
    pub(super) fn types(&self) -> Option<&[String]> {
        match &self.types {
            Types::All => None,
            Types::Only(patterns) => Some(patterns),
        }
    }

    /// Takes the events of these types alone; none: every type but Cuewire's own.
    pub(super) fn set_types(&mut self, types: Option<Vec<String>>) {
        self.types = types.map_or(Types::All, Types::Only);
    }

    /// Takes the events of those choices that are set from now on, and no more of those that are unset; none leaves
    /// a choice as it is. The flags are of all choices that the dialect has.
    pub(super) fn choose(&mut self, flags: &[(Choice, Option<bool>)]) {
        let all: Vec<Choice> = flags.iter().map(|(choice, _)| *choice).collect();
        for (choice, flag) in flags {
            match flag {
                Some(true) if !self.has(choice) => self.take(choice),
                Some(false) if self.has(choice) => self.leave(choice, &all),
                _ => {}
            }
        }
    }

    fn take(&mut self, choice: Choice) {
        if let Types::Only(patterns) = &mut self.types {
            patterns.extend(choice.iter().map(|&text| text.to_owned()));
        }
    }

    /// A pattern that spans several choices becomes what it has of those that stay, and never more; what else "all" was
    /// the dialect cannot say.
    fn leave(&mut self, choice: Choice, all: &[Choice]) {
        let patterns = match std::mem::replace(&mut self.types, Types::All) {
            Types::All => all.iter().copied().flatten().map(|&text| text.to_owned()).collect(),
            Types::Only(patterns) => patterns,
        };
        let (taken, mut kept): (Vec<_>, Vec<_>) =
            patterns.into_iter().partition(|pattern| overlaps(pattern, choice));
        for other in all.iter().filter(|other| **other != choice) {
            let spanning = taken.iter().filter(|pattern| overlaps(pattern, other));
            for both in
                spanning.flat_map(|pattern| other.iter().filter_map(move |text| common(pattern, text)))
            {
                if !kept.contains(&both) {
                    kept.push(both);
                }
            }
        }
        self.types = Types::Only(kept);
    }

    /// The text that events must have in a place, if that is a term of its own.
    pub(super) fn value(&self, place: Place) -> Option<String> {
        self.terms.iter().find_map(|term| value_in(term, place))
    }

    /// Takes only events that have this text in a place; none: whatever they have there.
    pub(super) fn set_value(&mut self, place: Place, value: Option<&str>) {
        if self.value(place).as_deref() != value {
            let term = value.map(|text| Term::equals(place[0], text));
            self.replace(|term| value_in(term, place).is_some(), term);
        }
    }

    /// Puts `term` in the place of the first that `is_old` knows, or behind all others; none takes it away.
    pub(super) fn replace(&mut self, is_old: impl Fn(&Term) -> bool, term: Option<Term>) {
        let at = self.terms.iter().position(is_old);
        match (at, term) {
            (Some(at), Some(term)) => self.terms[at] = term,
            (Some(at), None) => drop(self.terms.remove(at)),
            (None, Some(term)) => self.terms.push(term),
            (None, None) => {}
        }
    }

    /// As changes of a webhook's fields.
    pub(super) fn write_to(self, fields: &mut WebhookFields) {
        let stored = self.stored.as_ref();
        if stored.is_some_and(|stored| stored.types == self.types && stored.terms == self.terms) {
            return;
        }
        let mut terms = self.terms;
        let types = match self.types {
            Types::All => Vec::new(),
            Types::Only(patterns) => {
                if patterns.is_empty() {
                    terms.push(no_event());
                }
                patterns
            }
        };
        let stored = self.stored.as_ref();
        if stored.is_none_or(|stored| stored.filter != terms) {
            fields.filter = Some(Term::join(&terms));
        }
        if stored.is_none_or(|stored| stored.patterns != types) {
            fields.event_types = Some(Some(types));
        }
    }
}

/// The text that the term asks for in a place.
pub(super) fn value_in(term: &Term, place: Place) -> Option<String> {
    place.iter().find_map(|name| term.as_equal(name))
}

/// What no event fulfils: for a webhook that selects nothing, since an empty list of types selects all.
fn no_event() -> Term {
    Term::is_null("id")
}

/// Whether a pattern and a choice have types in common, as far as the words and the catalogue tell: that
/// `*.deleted` and `media.*` have, neither says of the other.
fn overlaps(pattern: &str, choice: Choice) -> bool {
    choice.iter().any(|text| covers(pattern, text) || covers(text, pattern)) || shares_a_type(pattern, choice)
}

/// Whether one takes all that the other does, so far as the words tell: only a `*` takes a `*`.
fn covers(one: &str, other: &str) -> bool {
    Pattern::parse(one).is_ok_and(|pattern| pattern.matches(other))
}

/// The types that a pattern and one of a choice have in common, as a pattern; none if they have none. (Of `*.media.x`
/// and `media.*` it leaves out `media.x`: fewer, never more.)
fn common(pattern: &str, text: &str) -> Option<String> {
    if covers(pattern, text) {
        return Some(text.to_owned());
    }
    if covers(text, pattern) {
        return Some(pattern.to_owned());
    }
    // `*.deleted` of `media.*`: `media.*.deleted`, since a `*` may stand for no word.
    let category = text.strip_suffix(".*").filter(|_| pattern.starts_with('*'))?;
    Some(format!("{category}.{pattern}")).filter(|both| Pattern::parse(both).is_ok())
}

/// Whether a type of the catalogue is of both. Only a pattern with a leading `*` can be of any category.
fn shares_a_type(pattern: &str, choice: Choice) -> bool {
    let Some(Ok(pattern)) = pattern.starts_with('*').then(|| Pattern::parse(pattern)) else { return false };
    let choice: Vec<_> = choice.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
    catalogue::all()
        .iter()
        .any(|entry| pattern.matches(&entry.name) && choice.iter().any(|it| it.matches(&entry.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Choice = &["a.*"];
    const B: Choice = &["b.*", "bb.*"];
    const C: Choice = &["c.x"];
    const ALL: [Choice; 3] = [A, B, C];

    fn only(types: &[&str]) -> Selection {
        let types = types.iter().map(|&text| text.to_owned()).collect();
        Selection { types: Types::Only(types), ..Selection::nothing() }
    }

    #[test]
    fn a_choice_is_made_and_unmade_and_the_rest_stays() {
        for (before, chosen, on, after) in [
            (only(&[]), A, true, &["a.*"][..]),
            (only(&["a.*"]), A, true, &["a.*"]),
            (only(&["a.one", "z.*"]), A, true, &["a.one", "z.*"]),
            (only(&["a.one", "z.*"]), A, false, &["z.*"]),
            (only(&["bb.*"]), B, false, &[]),
            (only(&["*"]), A, false, &["b.*", "bb.*", "c.x"]),
            (only(&["*.x", "a.*"]), C, false, &["a.*"]),
            (only(&["*.one.*"]), A, false, &["*.one.*"]),
            (Selection { types: Types::All, ..Selection::nothing() }, B, false, &["a.*", "c.x"]),
        ] {
            let mut selection = before.clone();
            selection.choose(&ALL.map(|choice| (choice, (choice == chosen).then_some(on))));
            assert_eq!(
                selection.types(),
                Some(&after.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()[..]),
                "{before:?}"
            );
        }
    }

    #[test]
    fn a_choice_that_is_unmade_widens_nothing() {
        let choices: [Choice; 4] =
            [&["media.*"], &["recordings.*", "recording.*"], &["transcoder.*"], &["file.received"]];
        let types = [
            "media.deleted",
            "media.completed",
            "recordings.deleted",
            "recordings.a.deleted",
            "recording.started",
            "recordings.deleted.x",
            "transcoder.DELETED",
            "transcoder.ACTIVE",
            "file.received",
            "feeds.started",
        ];
        for patterns in [
            &["*.deleted"][..],
            &["*.deleted", "*.DELETED"],
            &["*.deleted.*"],
            &["*.*"],
            &["*"],
            &["*.a.*", "media.*", "recordings.deleted"],
            &["*.received", "*.started", "file.*"],
            &["media.deleted", "*.ACTIVE"],
        ] {
            for off in choices {
                let before = only(patterns);
                let mut after = before.clone();
                after.choose(&choices.map(|choice| (choice, (choice == off).then_some(false))));
                assert!(!after.has(off), "{patterns:?} without {off:?}");
                for event_type in types.into_iter().filter(|it| takes(&after, it)) {
                    assert!(takes(&before, event_type), "{patterns:?} without {off:?} takes {event_type}");
                }
                for choice in choices.into_iter().filter(|choice| *choice != off) {
                    assert_eq!(
                        after.has(choice),
                        before.has(choice),
                        "{patterns:?} without {off:?}: {choice:?}"
                    );
                }
            }
        }
    }

    fn takes(selection: &Selection, event_type: &str) -> bool {
        let takes = |pattern: &String| Pattern::parse(pattern).unwrap().matches(event_type);
        selection.types().unwrap().iter().any(takes)
    }

    #[test]
    fn a_webhook_that_takes_nothing_has_a_filter_that_says_so() {
        let mut fields = WebhookFields::default();
        Selection::nothing().write_to(&mut fields);
        assert_eq!(fields.event_types, Some(Some(Vec::new())));
        assert_eq!(fields.filter, Some(Some("id = null".to_owned())));
    }
}
