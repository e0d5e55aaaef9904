//! Upstreams with a broker user and an exchange of their own, and what each may publish.
//!
//! The exchange tells the router who has published an event, and nobody can forge it; the router holds the event's
//! type and organization against the grant. Routing keys prove nothing, since a `CC` header walks around bindings.

use std::collections::BTreeSet;

use crate::event::is_word_byte;

/// Prefix of the publishers' exchanges.
pub const PUBLISHER_PREFIX: &str = "events.in.";

/// An upstream with a broker user of its own, and what it may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherGrant {
    /// Its name; its exchange is `events.in.<name>`.
    pub name: String,
    /// The categories it may publish.
    pub categories: BTreeSet<String>,
    /// The organizations, by id or external id, that it may publish for; empty: all.
    pub organizations: BTreeSet<String>,
}

impl PublisherGrant {
    /// The exchange that its broker user may write to.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{PUBLISHER_PREFIX}{}", self.name)
    }

    /// Reads `CUEWIRE_PUBLISHERS`: `<name>=<category>,…[@<organization>,…]`, separated by semicolons.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let mut grants: Vec<Self> = Vec::new();
        for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let grant = Self::parse(entry).ok_or_else(|| {
                format!(
                    "has {entry:?}, and a publisher is <name>=<category>,<category>@<organization>,<organization>"
                )
            })?;
            if grants.iter().any(|other| other.name == grant.name) {
                return Err(format!("names the publisher {:?} twice", grant.name));
            }
            grants.push(grant);
        }
        Ok(grants)
    }

    fn parse(entry: &str) -> Option<Self> {
        let (name, rest) = entry.split_once('=')?;
        let (categories, organizations) = rest.split_once('@').unwrap_or((rest, ""));
        let list = |text: &str| -> BTreeSet<String> {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(is_word_byte);
        let grant = Self {
            name: name.trim().to_owned(),
            categories: list(categories),
            organizations: list(organizations),
        };
        let valid = is_word(&grant.name)
            && !grant.categories.is_empty()
            && grant.categories.iter().all(|c| is_word(c));
        valid.then_some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_are_read_with_their_categories_and_organizations() {
        let grants = PublisherGrant::parse_all("dolby=feeds,media@acme; other = encoding").unwrap();
        assert_eq!(grants[0].exchange(), "events.in.dolby");
        assert!(grants[0].categories.contains("media") && grants[0].organizations.contains("acme"));
        assert!(grants[1].organizations.is_empty());
        for text in ["dolby", "dolby=", "=feeds", "a b=feeds", "dolby=feeds.x"] {
            assert!(PublisherGrant::parse_all(text).unwrap_err().contains("a publisher is"), "{text}");
        }
        assert!(PublisherGrant::parse_all("a=b;a=c").unwrap_err().contains("twice"));
    }
}
