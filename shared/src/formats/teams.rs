//! `teams`: a message for a channel of Microsoft Teams, over an incoming webhook or a workflow.
//!
//! <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>:
//! an Adaptive Card 1.2 in an envelope of attachments. Its texts are Markdown, and text from an event is escaped
//! by backslashes. Any 2xx is success, but where the body passes on the error of the service behind it; 400, 404
//! and 413 are for good. Ours: what stands in the message ([`super::notice`]), that every error passed on is
//! judged like an answer of that status (429 is the documented one), and that 410 disables the webhook.

use serde::Serialize;
use time::OffsetDateTime;

use super::fit::{Limit, Unit, fit};
use super::notice::{Notice, Severity};
use super::parts::json_request;
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::{Answer, Outcome, Reason, Verdict};

/// With all facts and a link, the message stays under the service's 28 KB.
const SENTENCE: Limit = Limit { max: 14_000, unit: Unit::JsonBytes };
const VALUE: Limit = Limit { max: 800, unit: Unit::JsonBytes };
/// A longer link is left out, since a link cannot be cut.
const MAX_LINK_BYTES: usize = 2_000;
/// What a 200 says when the service behind it did not take the message; its status follows.
const PASSED_ON: &str = "returned HTTP error ";

pub(super) const RULES: Rules = Rules {
    name: "teams",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::None,
    // 60 in 30 s, by its pages. Beyond 100 an hour it answers as throttled, which the schedule bridges.
    rate_limit: Some(2),
    prepare,
    judge,
};

#[derive(Serialize)]
struct Message {
    r#type: &'static str,
    attachments: [Attachment; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    content_type: &'static str,
    content_url: (),
    content: Card,
}

#[derive(Serialize)]
struct Card {
    #[serde(rename = "$schema")]
    schema: &'static str,
    r#type: &'static str,
    version: &'static str,
    body: Vec<Element>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Element {
    TextBlock(TextBlock),
    FactSet { facts: Vec<CardFact> },
    ActionSet { actions: [OpenUrl; 1] },
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TextBlock {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_subtle: bool,
    wrap: bool,
}

#[derive(Serialize)]
struct CardFact {
    title: String,
    value: String,
}

#[derive(Serialize)]
struct OpenUrl {
    r#type: &'static str,
    title: &'static str,
    url: String,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let card = Card {
        schema: "http://adaptivecards.io/schemas/adaptive-card.json",
        r#type: "AdaptiveCard",
        version: "1.2",
        body: body(Notice::of(outgoing.event)),
    };
    let content_type = "application/vnd.microsoft.card.adaptive";
    let attachment = Attachment { content_type, content_url: (), content: card };
    Ok(json_request(&Message { r#type: "message", attachments: [attachment] }))
}

fn body(notice: Notice) -> Vec<Element> {
    let title = TextBlock {
        text: format!("{} {}", notice.severity.icon(), notice.title),
        size: Some("Medium"),
        weight: Some("Bolder"),
        color: Some(color(notice.severity)),
        wrap: true,
        ..TextBlock::default()
    };
    let sentence = fit(&notice.sentence, SENTENCE, escape);
    let mut body = vec![
        Element::TextBlock(title),
        Element::TextBlock(TextBlock { text: sentence, wrap: true, ..TextBlock::default() }),
    ];
    if !notice.facts.is_empty() {
        let facts = notice.facts.into_iter();
        let facts = facts.map(|fact| CardFact { title: fact.label, value: fit(&fact.value, VALUE, escape) });
        body.push(Element::FactSet { facts: facts.collect() });
    }
    let link = notice.link.map(String::from).filter(|url| url.len() <= MAX_LINK_BYTES);
    body.extend(link.map(|url| Element::ActionSet {
        actions: [OpenUrl { r#type: "Action.OpenUrl", title: "Open", url }],
    }));
    let footer = fit(&notice.footer, VALUE, escape);
    let footer =
        TextBlock { text: footer, size: Some("Small"), is_subtle: true, wrap: true, ..TextBlock::default() };
    body.push(Element::TextBlock(footer));
    body
}

fn color(severity: Severity) -> &'static str {
    match severity {
        Severity::Neutral => "Accent",
        Severity::Good => "Good",
        Severity::Warning => "Warning",
        Severity::Error => "Attention",
    }
}

/// Markdown's own characters and the beginning of a list or heading, by backslashes; `{{` would be a date.
fn escape(before: &str, c: char) -> Option<&'static str> {
    let after_number = || !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_digit());
    match c {
        '\\' => Some("\\\\"),
        '`' => Some("\\`"),
        '*' => Some("\\*"),
        '_' => Some("\\_"),
        '~' => Some("\\~"),
        '[' => Some("\\["),
        ']' => Some("\\]"),
        '{' => Some("\\{"),
        '<' => Some("\\<"),
        '>' => Some("\\>"),
        '&' => Some("\\&"),
        '#' if before.is_empty() => Some("\\#"),
        '-' if before.is_empty() => Some("\\-"),
        '+' if before.is_empty() => Some("\\+"),
        '.' if after_number() => Some("\\."),
        ')' if after_number() => Some("\\)"),
        _ => None,
    }
}

fn judge(outcome: &Outcome, now: OffsetDateTime) -> Verdict {
    match outcome {
        Outcome::Answered(answer) => match status_behind(answer) {
            200..=299 => Verdict::Success,
            400 | 404 | 413 => Verdict::Permanent(Reason::Refused),
            410 => Verdict::Permanent(Reason::Gone),
            _ => Verdict::Retry(answer.retry_after(now)),
        },
        Outcome::Failed { kind, .. } => Verdict::unanswered(*kind),
    }
}

/// The answer's status, or that which a success passes on from the service behind it.
fn status_behind(answer: &Answer) -> u16 {
    let passed_on = || {
        let body = String::from_utf8_lossy(&answer.body);
        body.split_once(PASSED_ON)?.1.get(..3)?.parse().ok()
    };
    match answer.status {
        200..=299 => passed_on().unwrap_or(answer.status),
        status => status,
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
        let passed_on = |status: &str| {
            format!(
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {status} with ContextId x"
            )
        };
        for (status, body, expected) in [
            (200, "1".to_owned(), Verdict::Success),
            (202, String::new(), Verdict::Success),
            (200, passed_on("429"), Verdict::Retry(None)),
            (200, passed_on("413"), refused),
            (200, passed_on("404"), refused),
            (200, passed_on("500"), Verdict::Retry(None)),
            (400, String::new(), refused),
            (404, String::new(), refused),
            (413, String::new(), refused),
            (410, String::new(), Verdict::Permanent(Reason::Gone)),
            (403, String::new(), Verdict::Retry(None)),
            (500, passed_on("200"), Verdict::Retry(None)),
        ] {
            assert_eq!(judge(&answered(status, &body, None), NOW), expected, "{status} {body}");
        }
        let throttled = judge(&answered(429, "", Some("12")), NOW);
        assert_eq!(throttled, Verdict::Retry(Some(Duration::from_secs(12))));
    }

    #[test]
    fn markdown_is_escaped() {
        let escaped = |text| fit(text, VALUE, escape);
        for (text, expected) in [
            ("test_webhooks *x* [a](b)", "test\\_webhooks \\*x\\* \\[a\\](b)"),
            ("<at>all</at> &lt;", "\\<at\\>all\\</at\\> \\&lt;"),
            ("{{DATE(2026-01-31T00:00:00Z)}}", "\\{\\{DATE(2026-01-31T00:00:00Z)}}"),
            ("- item", "\\- item"),
            ("12. item", "12\\. item"),
            ("1.5 of 2.5", "1\\.5 of 2.5"),
            ("# head", "\\# head"),
            ("a - b # c", "a - b # c"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
