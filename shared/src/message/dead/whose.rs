//! Whose a dead letter is that is no delivery's: the organization that its message names, as far as whoever
//! published the message may speak for it. Else a publisher could put letters before other organizations.

use serde::Deserialize;

use super::DeadMessage;
use crate::amqp::topology::{DELIVERIES, EVENTS, Topology};
use crate::event::{Event, is_structured};
use crate::message::event::recorded_attribute;

const ORGANIZATION: &str = "organization";

/// The organization that a message names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its id or external id.
    pub organization: String,
    /// The ids and external ids that the publisher may name; none: all.
    pub among: Option<Vec<String>>,
}

impl DeadMessage {
    /// The organization that the message names, if its publisher may name any. `event` is the event in it,
    /// where that can be read; where it cannot, the one attribute may be readable still.
    #[must_use]
    pub fn claim(&self, event: Option<&Event>, topology: &Topology) -> Option<Claim> {
        let (exchange, _) = &self.first;
        let among = match topology.grant_of(exchange) {
            Some(grant) if grant.organizations.is_empty() => None,
            Some(grant) => Some(grant.organizations.iter().cloned().collect()),
            // Where only we and the operator's own publishers may write.
            None if exchange == EVENTS || exchange == DELIVERIES => None,
            None => return None,
        };
        let organization = match event {
            Some(event) => event.extension(ORGANIZATION)?.to_owned(),
            None => self.named_organization()?,
        };
        Some(Claim { organization, among })
    }

    fn named_organization(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            organization: Option<String>,
        }
        let in_headers = || {
            let headers = serde_json::from_str(self.first_headers.as_deref()?).ok()?;
            recorded_attribute(&headers, ORGANIZATION).map(str::to_owned)
        };
        let in_body = || {
            // serde would take an array for an object, its elements for the fields in their order.
            let is_object = self.body.trim_ascii_start().first() == Some(&b'{');
            is_object.then(|| serde_json::from_slice::<Named>(&self.body).ok()?.organization)?
        };
        let is_structured = self.content_type.as_deref().is_some_and(is_structured);
        let named = if is_structured { in_body() } else { in_headers().or_else(in_body) };
        named.filter(|name| !name.chars().any(char::is_control))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::amqp::grants::PublisherGrant;
    use crate::delivery::Reason;
    use crate::ids::DeadLetterId;

    fn topology() -> Topology {
        let publishers = PublisherGrant::parse_all("encoder=encodes; billing=payments@acme,other").unwrap();
        Topology { publishers, ..Topology::default() }
    }

    fn message(exchange: &str, body: &'static str, headers: Option<&str>) -> DeadMessage {
        DeadMessage {
            id: DeadLetterId::new(),
            reason: Reason::Poison,
            detail: String::new(),
            category: "unknown".to_owned(),
            delivery: None,
            body: Bytes::from_static(body.as_bytes()),
            content_type: Some("application/json".to_owned()),
            first: (exchange.to_owned(), "a.b".to_owned()),
            first_headers: headers.map(str::to_owned),
            died_at: None,
            redrive_unasked: false,
        }
    }

    #[test]
    fn the_organization_is_found_in_what_is_no_event() {
        let found = |body, headers| {
            message(EVENTS, body, headers).claim(None, &topology()).map(|claim| claim.organization)
        };
        let acme = || Some("acme".to_owned());
        assert_eq!(found(r#"{"organization":"acme","realm":{},"time":7}"#, None), acme());
        assert_eq!(found("{}", Some(r#"{"ce-organization":"acme","ce-time":7}"#)), acme());
        assert_eq!(
            found(r#"{"organization":"other"}"#, Some(r#"{"cloudEvents:organization":"acme"}"#)),
            acme()
        );
        for body in [
            r#"{"organization":7}"#,
            r#"{"organization":"acme","organization":"other"}"#,
            r#"{"organization":"a\u0000"}"#,
            r#"["acme"]"#,
            r#"{"organization":"acme""#,
            "",
        ] {
            assert_eq!(found(body, None), None, "{body}");
        }
        let mut structured = message(EVENTS, "{}", Some(r#"{"ce-organization":"acme"}"#));
        structured.content_type = Some("application/cloudevents+json".to_owned());
        assert_eq!(structured.claim(None, &topology()), None);
    }

    #[test]
    fn a_publisher_speaks_for_its_organizations_alone_and_a_stranger_for_none() {
        let among = |exchange: &str| {
            let claim = message(exchange, r#"{"organization":"acme"}"#, None).claim(None, &topology());
            claim.map(|claim| claim.among)
        };
        assert_eq!(among(EVENTS), Some(None));
        assert_eq!(among("events.in.encoder"), Some(None));
        assert_eq!(among("events.in.billing"), Some(Some(vec!["acme".to_owned(), "other".to_owned()])));
        for stranger in ["events.in.gone", "", "amq.topic"] {
            assert_eq!(among(stranger), None, "{stranger:?}");
        }
    }
}
