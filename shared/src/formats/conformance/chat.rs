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

fn accepted_by_slack(message: &Value) {
    let characters = |text: &Value| {
        let text = text["text"].as_str().unwrap();
        assert!(!text.contains('\0') && !text.contains("<!") && !text.contains("<@"), "{text}");
        assert!(!text.is_empty());
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
    let text = message["text"].as_str().unwrap();
    assert!(!text.contains(['<', '\0']), "{text}");
    let widgets = message["cardsV2"][0]["card"]["sections"][0]["widgets"].as_array().unwrap();
    assert!(widgets.len() <= 100);
    for text in widgets.iter().filter_map(|widget| widget["decoratedText"]["text"].as_str()) {
        assert!(!text.is_empty() && !text.contains(['<', '>', '\0']), "{text}");
    }
}

fn accepted_by_teams(message: &Value, bytes: usize) {
    assert!(bytes <= 28 * 1_024, "{bytes} bytes");
    let card = &message["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.2".into()));
    for element in card["body"].as_array().unwrap() {
        match element["type"].as_str().unwrap() {
            "TextBlock" => assert!(!element["text"].as_str().unwrap().is_empty()),
            "FactSet" => assert!((1..=6).contains(&element["facts"].as_array().unwrap().len())),
            "ActionSet" => assert!(element["actions"][0]["url"].as_str().unwrap().starts_with("http")),
            other => panic!("an element of the type {other}"),
        }
    }
}

#[test]
fn a_sentence_of_exactly_a_services_limit_is_whole_and_one_more_is_cut() {
    for (format, limit, cut) in
        [(Format::Slack, 3_000, 2_999), (Format::GoogleChat, 16_000, 15_997), (Format::Teams, 14_000, 13_997)]
    {
        let body = |length: usize| {
            let mut event = sample("input.status_change");
            event.set_extension("message", text(&"x".repeat(length)));
            String::from_utf8(format.prepare(&outgoing(&event)).unwrap().body.to_vec()).unwrap()
        };
        let quoted = |length: usize, end: &str| format!("\"{}{end}\"", "x".repeat(length));
        assert!(body(limit).contains(&quoted(limit, "")), "{}", format.as_str());
        assert!(body(limit + 1).contains(&quoted(cut, "…")), "{}", format.as_str());
    }
}
