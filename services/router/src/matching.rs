//! Which webhooks of an organization want an event: an index whose cost follows the matches, not the webhooks.
//!
//! Webhooks are found by the event's type, exact or by an anchor of their pattern (its first word, or else its
//! last), and among those that share a pattern, by one equality that their filter demands
//! (`pooluuid = "p1"`). Only what is left is evaluated. What is found is what
//! [`Subscription::wants`] says of each webhook by itself.

use std::collections::HashMap;

use cuewire::event::{Event, Fields};
use cuewire::filter::{Filter, IndexKey, Path};
use cuewire::ids::WebhookId;
use cuewire::webhook::{Pattern, Subscription};

/// A webhook's place in [`Index::webhooks`]: half the size of a pointer, there is one for each pattern.
type Place = u32;

/// The webhooks of one organization, by what they want.
#[derive(Debug, Default)]
pub struct Index {
    webhooks: Vec<Entry>,
    exact: HashMap<Box<str>, Bucket>,
    anchored: HashMap<Anchor, Vec<(Pattern, Bucket)>>,
}

#[derive(Debug)]
struct Entry {
    webhook: WebhookId,
    filter: Option<Filter>,
}

/// A word that every type that matches the pattern has in a certain place.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Anchor {
    First(Box<str>),
    Last(Box<str>),
    Nowhere,
}

impl Anchor {
    fn of(pattern: &str) -> Self {
        let mut words = pattern.split('.');
        match (words.next(), words.next_back()) {
            (Some(first), _) if first != "*" => Self::First(first.into()),
            (_, Some(last)) if last != "*" => Self::Last(last.into()),
            _ => Self::Nowhere,
        }
    }
}

/// Webhooks that share a pattern.
#[derive(Debug, Default)]
struct Bucket {
    /// Those without a filter.
    all: Vec<Place>,
    /// Those whose filter demands that a path has a certain value.
    by_value: HashMap<Path, HashMap<IndexKey<'static>, Vec<Place>>>,
    /// Those whose filter must be evaluated.
    filtered: Vec<Place>,
}

impl Index {
    /// An index of these subscriptions, all of one organization.
    #[must_use]
    pub fn new(subscriptions: Vec<Subscription>) -> Self {
        let mut index = Self::default();
        for Subscription { webhook, event_types, filter, .. } in subscriptions {
            let place =
                Place::try_from(index.webhooks.len()).expect("an organization has fewer than 2^32 webhooks");
            index.webhooks.push(Entry { webhook, filter });
            let filter = index.webhooks[place as usize].filter.clone();
            if event_types.is_empty() {
                index.bucket(&Pattern::any()).add(place, filter.as_ref());
            }
            for pattern in &event_types {
                index.bucket(pattern).add(place, filter.as_ref());
            }
        }
        index
    }

    /// How many webhooks it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.webhooks.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.webhooks.is_empty()
    }

    fn bucket(&mut self, pattern: &Pattern) -> &mut Bucket {
        if pattern.is_exact() {
            return self.exact.entry(pattern.as_str().into()).or_default();
        }
        let patterns = self.anchored.entry(Anchor::of(pattern.as_str())).or_default();
        let at = patterns.iter().position(|(other, _)| other == pattern).unwrap_or_else(|| {
            patterns.push((pattern.clone(), Bucket::default()));
            patterns.len() - 1
        });
        &mut patterns[at].1
    }

    /// The webhooks that want the event, each once, in the order of their creation.
    #[must_use]
    pub fn matches(&self, event: &Event) -> Vec<WebhookId> {
        let event_type = event.event_type.as_str();
        let fields = Fields::new(event);
        let mut places = Vec::new();
        if let Some(bucket) = self.exact.get(event_type) {
            self.collect(bucket, &fields, &mut places);
        }
        let first = event.event_type.category();
        let last = event_type.rsplit('.').next().unwrap_or_default();
        for anchor in [Anchor::First(first.into()), Anchor::Last(last.into()), Anchor::Nowhere] {
            for (pattern, bucket) in self.anchored.get(&anchor).into_iter().flatten() {
                if pattern.matches(event_type) {
                    self.collect(bucket, &fields, &mut places);
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| self.webhooks[place as usize].webhook).collect()
    }

    fn collect(&self, bucket: &Bucket, fields: &Fields<'_>, places: &mut Vec<Place>) {
        places.extend(&bucket.all);
        let by_value = bucket
            .by_value
            .iter()
            .filter_map(|(path, values)| values.get(&path.index_key(fields)?))
            .flatten();
        let wants = |place: &&Place| {
            let filter = &self.webhooks[**place as usize].filter;
            filter.as_ref().is_none_or(|filter| filter.matches(fields))
        };
        places.extend(by_value.chain(&bucket.filtered).filter(wants));
    }
}

impl Bucket {
    fn add(&mut self, place: Place, filter: Option<&Filter>) {
        let Some(filter) = filter else { return self.all.push(place) };
        match filter.required_equality() {
            Some((path, value)) => {
                let values = self.by_value.entry(path.clone()).or_default();
                values.entry(value.into_owned()).or_default().push(place);
            }
            None => self.filtered.push(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cuewire::ids::OrganizationId;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const WORDS: [&str; 4] = ["a", "b", "c", "webhook"];
    const FILTERS: [&str; 6] = [
        "pooluuid = \"p1\"",
        "pooluuid = \"p2\" AND data.size > 1",
        "data.size = 1",
        "data.size > 0",
        "pooluuid = \"p1\" OR data.size = 2",
        "subject = null",
    ];

    fn pattern() -> impl Strategy<Value = Pattern> {
        let word = prop_oneof![3 => select(WORDS.to_vec()), 2 => Just("*")];
        proptest::collection::vec(word, 1..4)
            .prop_filter_map("no pattern", |words| Pattern::parse(&words.join(".")).ok())
    }

    fn subscription() -> impl Strategy<Value = Subscription> {
        let filter = proptest::option::of(select(FILTERS.to_vec()));
        (proptest::collection::vec(pattern(), 0..4), filter).prop_map(|(event_types, filter)| Subscription {
            webhook: WebhookId::new(),
            organization: OrganizationId::default(),
            event_types,
            filter: filter.map(|filter| Filter::parse(filter).unwrap()),
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        let words = proptest::collection::vec(select(WORDS.to_vec()), 2..4);
        (words, select(vec!["p1", "p2", "p3"]), 0..3).prop_map(|(words, pool, size)| {
            let json = serde_json::json!({
                "id": "1", "source": "s", "type": words.join("."), "pooluuid": pool, "data": {"size": size},
            });
            Event::from_json(&Bytes::from(json.to_string())).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_exactly_the_webhooks_that_want_the_event(
            subscriptions in proptest::collection::vec(subscription(), 0..30), event in event(),
        ) {
            let fields = Fields::new(&event);
            let wanted: Vec<_> = subscriptions
                .iter()
                .filter(|subscription| subscription.wants(&event.event_type, &fields))
                .map(|subscription| subscription.webhook)
                .collect();
            prop_assert_eq!(Index::new(subscriptions).matches(&event), wanted);
        }
    }
}
