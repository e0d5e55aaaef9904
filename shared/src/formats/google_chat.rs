//! `google_chat`: a message for a space of Google Chat, over an incoming webhook.
//!
//! <https://developers.google.com/workspace/chat/quickstart/webhooks>: `text`, and a card of `cardsV2`. Text from an
//! event stands in the card alone, where HTML's escapes hold; in `text` nothing could keep `<users/all>` from
//! calling everybody, and so it has only the title, whose characters are harmless. 400, 403 and 404 are for good.
//! Ours: what stands in the message ([`super::notice`]), that any 2xx is success, and that 410 disables the webhook.

use serde::Serialize;
use time::OffsetDateTime;

use super::fit::{Limit, Unit, as_html, fit};
use super::notice::Notice;
use super::parts::json_request;
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::{Outcome, Reason, Verdict};

/// With all facts and a link, the message stays under the service's 32,000 bytes.
const SENTENCE: Limit = Limit { max: 16_000, unit: Unit::JsonBytes };
const VALUE: Limit = Limit { max: 800, unit: Unit::JsonBytes };
/// A longer link is left out, since a link cannot be cut.
const MAX_LINK_BYTES: usize = 2_000;

pub(super) const RULES: Rules = Rules {
    name: "google_chat",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::None,
    // One a second and space, by its pages.
    rate_limit: Some(1),
    prepare,
    judge,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    text: String,
    cards_v2: [CardWithId; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CardWithId {
    card_id: &'static str,
    card: Card,
}

#[derive(Serialize)]
struct Card {
    sections: [Section; 1],
}

#[derive(Serialize)]
struct Section {
    widgets: Vec<Widget>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Widget {
    TextParagraph {
        text: String,
    },
    #[serde(rename_all = "camelCase")]
    DecoratedText {
        top_label: String,
        text: String,
        wrap_text: bool,
    },
    ButtonList {
        buttons: [Button; 1],
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Button {
    text: &'static str,
    on_click: OnClick,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnClick {
    open_link: OpenLink,
}

#[derive(Serialize)]
struct OpenLink {
    url: String,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let notice = Notice::of(outgoing.event);
    let mut widgets = vec![Widget::TextParagraph { text: fit(&notice.sentence, SENTENCE, as_html) }];
    widgets.extend(notice.facts.into_iter().map(|fact| Widget::DecoratedText {
        top_label: fact.label,
        text: fit(&fact.value, VALUE, as_html),
        wrap_text: true,
    }));
    let link = notice.link.map(String::from).filter(|url| url.len() <= MAX_LINK_BYTES);
    widgets.extend(link.map(|url| Widget::ButtonList {
        buttons: [Button { text: "Open", on_click: OnClick { open_link: OpenLink { url } } }],
    }));
    widgets.push(Widget::TextParagraph { text: format!("<i>{}</i>", notice.footer) });
    let card = Card { sections: [Section { widgets }] };
    Ok(json_request(&Message {
        text: format!("{} *{}*", notice.severity.icon(), notice.title),
        cards_v2: [CardWithId { card_id: "event", card }],
    }))
}

fn judge(outcome: &Outcome, now: OffsetDateTime) -> Verdict {
    match outcome {
        Outcome::Answered(answer) => match answer.status {
            200..=299 => Verdict::Success,
            400 | 403 | 404 => Verdict::Permanent(Reason::Refused),
            410 => Verdict::Permanent(Reason::Gone),
            _ => Verdict::Retry(answer.retry_after(now)),
        },
        Outcome::Failed { kind, .. } => Verdict::unanswered(*kind),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::conformance::{NOW, answered};
    use super::*;

    #[test]
    fn answers_are_judged_as_the_service_means_them() {
        let refused = Verdict::Permanent(Reason::Refused);
        for (status, retry_after, expected) in [
            (200, None, Verdict::Success),
            (400, None, refused),
            (403, None, refused),
            (404, None, refused),
            (410, None, Verdict::Permanent(Reason::Gone)),
            (429, None, Verdict::Retry(None)),
            (429, Some("60"), Verdict::Retry(Some(Duration::from_secs(60)))),
            (500, None, Verdict::Retry(None)),
        ] {
            assert_eq!(judge(&answered(status, "", retry_after), NOW), expected, "{status}");
        }
    }
}
