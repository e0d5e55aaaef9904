//! What holds of the chat formats: whatever an event says, its message is one that the service accepts.

use serde_json::Value;

use super::*;

const CHAT: [Format; 3] = [Format::Slack, Format::GoogleChat, Format::Teams];

/// What people write into the names of their streams.
fn hostile_texts() -> Vec<String> {
    let repeated = |text: &str| text.repeat(100_000 / text.len());
    let all: String = (0..=0x2_ffff).filter_map(char::from_u32).collect();
    [
        "",
        " ",
        "\0",
        "a\0b\u{1}\u{7f}\u{9f}",
        "\r\n\r\n# x\n- y",
        "<!channel> <@U1> <https://evil|here> &amp; &lt;",
        "<users/all> <b>x</b> <a href=\"x\">y</a> <script>",
        "**x** _y_ `z` ~w~ [a](javascript:b) {{DATE(x)}} \\",
        "שלום עולם \u{202e}gpj.exe\u{2066}",
        "👩\u{200d}👩\u{200d}👧\u{1f3fd}🇩🇪",
        "\"\\\"\\",
        "null",
        "{\"a\":1}",
        "$(x) {{x}} %s",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x", "<", "&", "\"", "\\", "*", "\0", "👩\u{200d}👧", "ש", "e\u{301}", "a b"].map(repeated))
    .chain([all, "\u{301}".repeat(50_000)])
    .collect()
}

/// An event that has the text wherever text can be.
fn hostile_event(text: &str) -> Event {
    let members =
        ["name", "title", "reason", "status", "type", "quality", "duration", "size", "path", "x", text];
    let mut data: serde_json::Map<String, Value> =
        members.into_iter().map(|member| (member.to_owned(), text.into())).collect();
    data.insert("url".to_owned(), format!("https://example.com/?{text}").into());
    let mut event = with_data("input.status_change", &data.into());
    event.subject = Some(text.to_owned());
    event.source = text.to_owned();
    for name in ["message", "application", "pooluuid"] {
        event.set_extension(name, AttributeValue::Text(text.to_owned()));
    }
    event
}

#[test]
fn hostile_text_breaks_neither_json_nor_a_services_limits() {
    let mut events: Vec<_> = hostile_texts().iter().map(|text| hostile_event(text)).collect();
    // As large as may be: a link and facts at their limits, of what grows most in JSON.
    for link in ["x", "\\", "&"] {
        let mut largest = hostile_event(&"\\".repeat(1_000));
        let data = serde_json::json!({
            "url": format!("https://example.com/?{}", link.repeat(1_980 / if link == "&" { 5 } else { 1 })),
            "a": "\"".repeat(9_000), "b": "\\".repeat(9_000), "c": "_".repeat(9_000), "d": "<".repeat(9_000),
            "e": "&".repeat(9_000), "f": "é".repeat(9_000), "g": "👩".repeat(9_000), "h": "x".repeat(9_000),
        });
        largest.data = Data::Json(data.to_string().into());
        largest.set_extension("message", text(&"\"".repeat(100_000)));
        events.push(largest);
    }
    for event in &events {
        for format in CHAT {
            let body = format.prepare(&outgoing(event)).unwrap().body;
            let json: Value = serde_json::from_slice(&body).unwrap();
            match format {
                Format::Slack => accepted_by_slack(&json),
                Format::GoogleChat => accepted_by_google_chat(&json, body.len()),
                _ => accepted_by_teams(&json, body.len()),
            }
        }
    }
}

/// What holds of any text of an event in any message: one clean line, of which nothing turns the rest around.
fn is_clean(text: &str) {
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_control() || turns(c)), "{text}");
}

/// Whether nothing in it is read as HTML: every `&` begins one of the three escapes.
fn is_escaped_html(text: &str) {
    is_clean(text);
    let escaped = |rest: &str| ["amp;", "lt;", "gt;"].iter().any(|escape| rest.starts_with(escape));
    assert!(!text.contains(['<', '>']) && text.split('&').skip(1).all(escaped), "{text}");
}

/// Whether nothing in it is read as Markdown: what could be has a backslash before it.
fn is_escaped_markdown(text: &str) {
    is_clean(text);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => assert!(chars.next().is_some_and(|next| next.is_ascii_punctuation()), "{text}"),
            _ => assert!(!"`*_~[]{<>&".contains(c), "{c} in {text}"),
        }
    }
}

fn accepted_by_slack(message: &Value) {
    let characters = |text: &Value| {
        let text = text["text"].as_str().unwrap();
        // A field's name stands above its value, and only our own link is one.
        let (label, value) = text.split_once("*\n").unwrap_or(("*", text));
        assert!(!label.is_empty() && label.starts_with('*'), "{text}");
        let link = value.strip_prefix("<https://example.com/").and_then(|rest| rest.strip_suffix("|Open>"));
        is_escaped_html(link.unwrap_or(value));
        text.encode_utf16().count()
    };
    assert!(characters(message) <= 3_000);
    let blocks = message["blocks"].as_array().unwrap();
    assert!((3..=50).contains(&blocks.len()));
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => assert!(block["text"]["type"] == "plain_text" && characters(&block["text"]) <= 150),
            "context" => assert!(characters(&block["elements"][0]) <= 3_000),
            "section" if block["fields"].is_array() => {
                let fields = block["fields"].as_array().unwrap();
                assert!((1..=10).contains(&fields.len()));
                assert!(fields.iter().all(|field| characters(field) <= 2_000));
            }
            "section" => assert!(characters(&block["text"]) <= 3_000),
            other => panic!("a block of the type {other}"),
        }
    }
    let all = message["blocks"].to_string().encode_utf16().count();
    assert!(all <= 13_000, "{all} characters of blocks");
}

fn accepted_by_google_chat(message: &Value, bytes: usize) {
    assert!(bytes <= 32_000, "{bytes} bytes");
    // Here an escape would be shown, and a name in angle brackets would call somebody.
    let text = message["text"].as_str().unwrap();
    assert!(!text.contains(['<', '>', '&', '\0']), "{text}");
    let widgets = message["cardsV2"][0]["card"]["sections"][0]["widgets"].as_array().unwrap();
    assert!((2..=100).contains(&widgets.len()));
    for widget in widgets {
        let paragraph = widget["textParagraph"]["text"].as_str().map(|text| {
            text.strip_prefix("<i>").and_then(|footer| footer.strip_suffix("</i>")).unwrap_or(text)
        });
        match (paragraph.or(widget["decoratedText"]["text"].as_str()), &widget["buttonList"]) {
            (Some(text), _) => is_escaped_html(text),
            (None, buttons) => {
                let url = buttons["buttons"][0]["onClick"]["openLink"]["url"].as_str().unwrap();
                assert!(url.starts_with("https://example.com/"), "{url}");
            }
        }
    }
}

fn accepted_by_teams(message: &Value, bytes: usize) {
    assert!(bytes <= 28 * 1_024, "{bytes} bytes");
    let attachment = &message["attachments"][0];
    assert_eq!((&message["type"], &attachment["contentUrl"]), (&"message".into(), &Value::Null));
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.2".into()));
    assert_eq!(card["$schema"], "http://adaptivecards.io/schemas/adaptive-card.json");
    for element in card["body"].as_array().unwrap() {
        match element["type"].as_str().unwrap() {
            "TextBlock" => is_escaped_markdown(element["text"].as_str().unwrap()),
            "FactSet" => {
                let facts = element["facts"].as_array().unwrap();
                assert!((1..=6).contains(&facts.len()));
                for fact in facts {
                    is_escaped_markdown(fact["title"].as_str().unwrap());
                    is_escaped_markdown(fact["value"].as_str().unwrap());
                }
            }
            "ActionSet" => assert!(element["actions"][0]["url"].as_str().unwrap().starts_with("http")),
            other => panic!("an element of the type {other}"),
        }
    }
}

/// A service's limit of a sentence, in its own unit, and what stands for an `&` there.
fn sentences_limit(format: Format) -> (usize, fn(&str) -> usize, &'static str) {
    let characters: fn(&str) -> usize = |text| text.encode_utf16().count();
    let bytes: fn(&str) -> usize = |text| serde_json::to_string(text).unwrap().len() - 2;
    match format {
        Format::Slack => (3_000, characters, "&amp;"),
        Format::GoogleChat => (16_000, bytes, "&amp;"),
        Format::Teams => (14_000, bytes, "\\&"),
        other => panic!("{other:?} is no chat"),
    }
}

/// The sentence of a message of this text.
fn sentence_of(format: Format, said: &str) -> String {
    let mut event = sample("input.status_change");
    event.set_extension("message", text(said));
    let body = format.prepare(&outgoing(&event)).unwrap().body;
    let message: Value = serde_json::from_slice(&body).unwrap();
    let place = match format {
        Format::Slack => "/blocks/1/text/text",
        Format::GoogleChat => "/cardsV2/0/card/sections/0/widgets/0/textParagraph/text",
        _ => "/attachments/0/content/body/1/text",
    };
    message.pointer(place).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_sentence_of_exactly_a_services_limit_is_whole_and_one_more_is_cut_between_characters() {
    // Letters, an escape, a surrogate pair, a family of three that is one character, right-to-left, an accent of
    // its own, and what JSON writes with a backslash.
    let family = "👩\u{200d}👩\u{200d}👧";
    for format in CHAT {
        let (limit, measure, ampersand) = sentences_limit(format);
        for said in ["x", "&", "🔥", family, "ש", "e\u{301}", "\""] {
            let shown = if said == "&" { ampersand } else { said };
            let (fit, rest) = (limit / measure(shown), limit % measure(shown));
            let whole = sentence_of(format, &(said.repeat(fit) + &"x".repeat(rest)));
            assert_eq!(measure(&whole), limit, "{format:?} {said}");
            assert!(whole == shown.repeat(fit) + &"x".repeat(rest), "{format:?} {said}: not as it was");

            let cut = sentence_of(format, &said.repeat(fit + 1));
            let kept = cut.strip_suffix('…').unwrap_or_else(|| panic!("{format:?} {said}: no ellipsis"));
            let count = kept.len() / shown.len();
            assert!(kept == shown.repeat(count), "{format:?} {said}: cut within a character");
            let free = limit - measure(&cut);
            assert!(free < measure(shown), "{format:?} {said}: {free} more would have fit");
        }
    }
}
