//! `slack`: a message for a channel of Slack, over an incoming webhook.
//!
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>: `blocks`, and `text` for where these
//! cannot be shown. Text from an event is escaped (`&`, `<`, `>`), so that it can neither mention anybody nor
//! hide a link. Success is the answer `ok`; 400, 403 and 404 are for good, and 410 says that the channel is
//! archived. Ours: what stands in the message ([`super::notice`]), and that an empty answer of 2xx is success.

use serde::Serialize;
use time::OffsetDateTime;

use super::fit::{Limit, Unit, as_html, fit};
use super::notice::{Fact, Notice};
use super::parts::json_request;
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::{Answer, Outcome, Reason, Verdict};

/// A section's text, as the service limits it.
const SENTENCE: Limit = Limit { max: 3_000, unit: Unit::Characters };
/// A field may have 2,000; these leave room in the 13,000 of all blocks, when JSON doubles every
/// character.
const VALUE: Limit = Limit { max: 200, unit: Unit::Characters };
/// A longer link is left out, since a link cannot be cut.
const LINK: Limit = Limit { max: 2_000, unit: Unit::Characters };

pub(super) const RULES: Rules = Rules {
    name: "slack",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::None,
    // One a second, by its pages; short bursts are not counted on.
    rate_limit: Some(1),
    prepare,
    judge,
};

#[derive(Serialize)]
struct Message {
    text: String,
    blocks: Vec<Block>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Header { text: Text },
    Section(Section),
    Context { elements: [Text; 1] },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Section {
    Text(Text),
    Fields(Vec<Text>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Text {
    /// Shown as it is, but for the escapes.
    PlainText { text: String, emoji: bool },
    /// With the service's formatting; `verbatim` leaves names and addresses in it alone.
    Mrkdwn { text: String, verbatim: bool },
}

impl Text {
    fn plain(text: String) -> Self {
        Self::PlainText { text, emoji: false }
    }

    fn formatted(text: String) -> Self {
        Self::Mrkdwn { text, verbatim: true }
    }
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let notice = Notice::of(outgoing.event);
    let title = format!("{} {}", notice.severity.icon(), notice.title);
    let fallback = format!("{title}: {}", notice.sentence);
    let mut blocks = vec![
        Block::Header { text: Text::plain(title) },
        Block::Section(Section::Text(Text::plain(fit(&notice.sentence, SENTENCE, as_html)))),
    ];
    if !notice.facts.is_empty() {
        blocks.push(Block::Section(Section::Fields(notice.facts.iter().map(field).collect())));
    }
    let link = notice.link.and_then(|link| link_text(link.as_str()));
    blocks.extend(link.map(|text| Block::Section(Section::Text(Text::formatted(text)))));
    blocks.push(Block::Context { elements: [Text::plain(notice.footer)] });
    Ok(json_request(&Message { text: fit(&fallback, SENTENCE, as_html), blocks }))
}

fn field(fact: &Fact) -> Text {
    Text::formatted(format!("*{}*\n{}", fact.label, fit(&fact.value, VALUE, as_html)))
}

/// A link in the service's own notation, in which `|` ends the address.
fn link_text(url: &str) -> Option<String> {
    let url = url.replace('|', "%7C");
    let escaped = fit(&url, LINK, as_html);
    (!escaped.ends_with('…')).then(|| format!("<{escaped}|Open>"))
}

fn judge(outcome: &Outcome, now: OffsetDateTime) -> Verdict {
    match outcome {
        Outcome::Answered(answer) => match answer.status {
            200..=299 if says_ok(answer) => Verdict::Success,
            // A page that is no webhook answers so to anything: the message is not in the channel.
            200..=299 => Verdict::Retry(None),
            400 | 403 | 404 => Verdict::Permanent(Reason::Refused),
            410 => Verdict::Permanent(Reason::Gone),
            _ => Verdict::Retry(answer.retry_after(now)),
        },
        Outcome::Failed { kind, .. } => Verdict::unanswered(*kind),
    }
}

fn says_ok(answer: &Answer) -> bool {
    let body = answer.body.trim_ascii();
    body.is_empty() || body.eq_ignore_ascii_case(b"ok")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::conformance::{NOW, answered};
    use super::*;

    #[test]
    fn answers_are_judged_as_the_service_means_them() {
        let refused = Verdict::Permanent(Reason::Refused);
        for (status, body, expected) in [
            (200, "ok", Verdict::Success),
            (200, "", Verdict::Success),
            (200, "<!doctype html>", Verdict::Retry(None)),
            (302, "", Verdict::Retry(None)),
            (400, "invalid_payload", refused),
            (403, "action_prohibited", refused),
            (404, "no_service", refused),
            (410, "channel_is_archived", Verdict::Permanent(Reason::Gone)),
            (500, "rollup_error", Verdict::Retry(None)),
        ] {
            assert_eq!(judge(&answered(status, body, None), NOW), expected, "{status} {body}");
        }
        let throttled = judge(&answered(429, "rate_limited", Some("30")), NOW);
        assert_eq!(throttled, Verdict::Retry(Some(Duration::from_secs(30))));
    }

    #[test]
    fn a_link_is_escaped_and_one_that_is_too_long_left_out() {
        assert_eq!(
            link_text("https://example.com/a|b?c=1&d=2").as_deref(),
            Some("<https://example.com/a%7Cb?c=1&amp;d=2|Open>")
        );
        let long = |bytes: usize| format!("https://example.com/{}", "x".repeat(bytes - 20));
        assert!(link_text(&long(2_000)).is_some());
        assert!(link_text(&long(2_001)).is_none());
    }
}
