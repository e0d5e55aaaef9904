//! A webhook's types for a dialect whose clients know no patterns: each stands for the types of the platform that
//! it matches, or for itself where it matches none.

use cuewire::webhook::Pattern;

use super::selection::Selection;

/// The types that a webhook takes, each once; `known` are the platform's.
pub(super) fn shown(selection: &Selection, known: &[&str]) -> Vec<String> {
    let mut types = Vec::new();
    for pattern in patterns(selection) {
        matched(&pattern, known).into_iter().for_each(|it| push_new(&mut types, it));
    }
    types
}

/// Takes these types from now on. A pattern of which they leave nothing out stays as it was written.
pub(super) fn choose(selection: &mut Selection, known: &[&str], types: &[String]) {
    if types == shown(selection, known) {
        return;
    }
    let mut kept = patterns(selection);
    kept.retain(|pattern| matched(pattern, known).iter().all(|it| types.contains(it)));
    let mut chosen = Vec::new();
    for event_type in types {
        let mut covering = kept.iter().filter(|it| matched(it, known).contains(event_type)).peekable();
        if covering.peek().is_none() {
            push_new(&mut chosen, event_type.clone());
        }
        covering.for_each(|pattern| push_new(&mut chosen, pattern.clone()));
    }
    if chosen != patterns(selection) {
        selection.set_types(Some(chosen));
    }
}

/// As they were written; every type but Cuewire's own is `*`.
fn patterns(selection: &Selection) -> Vec<String> {
    selection.types().map_or_else(|| vec![Pattern::any().as_str().to_owned()], <[String]>::to_vec)
}

fn matched(pattern: &str, known: &[&str]) -> Vec<String> {
    let parsed = Pattern::parse(pattern).ok();
    let matches = |event_type: &&&str| parsed.as_ref().is_some_and(|it| it.matches(event_type));
    let types: Vec<_> = known.iter().filter(matches).map(|&it| it.to_owned()).collect();
    if types.is_empty() { vec![pattern.to_owned()] } else { types }
}

fn push_new(types: &mut Vec<String>, event_type: String) {
    if !types.contains(&event_type) {
        types.push(event_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["v.one", "v.two", "v.three"];

    fn owned(types: &[&str]) -> Vec<String> {
        types.iter().map(|&text| text.to_owned()).collect()
    }

    fn taking(types: Option<&[&str]>) -> Selection {
        let mut selection = Selection::nothing();
        selection.set_types(types.map(owned));
        selection
    }

    #[test]
    fn a_pattern_is_shown_as_the_types_that_it_matches() {
        for (types, expected) in [
            (None, &["v.one", "v.two", "v.three"][..]),
            (Some(&[][..]), &[]),
            (Some(&["*.two", "v.two", "my.own", "w.*"]), &["v.two", "my.own", "w.*"]),
            (Some(&["v.two", "v.*"]), &["v.two", "v.one", "v.three"]),
        ] {
            assert_eq!(shown(&taking(types), &KNOWN), owned(expected), "{types:?}");
        }
    }

    type Types = Option<&'static [&'static str]>;

    #[test]
    fn a_pattern_stays_unless_one_of_its_types_is_left_out() {
        let cases: [(Types, &[&str], Types); 10] = [
            (None, &["v.one", "v.two", "v.three"], None),
            (None, &["v.three", "v.two", "v.one"], None),
            (None, &[], Some(&[])),
            (None, &["v.one"], Some(&["v.one"])),
            (Some(&[]), &["b.b", "a.a", "b.b"], Some(&["b.b", "a.a"])),
            (Some(&["a.a"]), &["b.b", "a.a"], Some(&["b.b", "a.a"])),
            (Some(&["w.*", "*.two"]), &["w.*", "v.two"], Some(&["w.*", "*.two"])),
            (Some(&["w.*", "*.two"]), &["v.one", "v.two"], Some(&["v.one", "*.two"])),
            (Some(&["v.*", "a.a"]), &["a.a", "v.two"], Some(&["a.a", "v.two"])),
            (Some(&["*", "v.*"]), &["v.one", "v.two", "v.three", "a.a"], Some(&["*", "v.*", "a.a"])),
        ];
        for (before, chosen, after) in cases {
            let mut selection = taking(before);
            choose(&mut selection, &KNOWN, &owned(chosen));
            assert_eq!(selection.types(), after.map(owned).as_deref(), "{chosen:?} over {before:?}");
        }
    }
}
