//! Properties of the whole language, over filters and events that are made up, tried by [`fuzz`](super::fuzz).

use std::cmp::Ordering;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;
use serde_json::{Value, json};

use super::fuzz::fuzz;
use super::tests::Event;
use super::{Filter, FilterError};
use crate::event::{self, Fields};

const PATHS: [&str; 13] = [
    "id",
    "type",
    "event_type",
    "operation",
    "subject",
    "subject_name",
    "sequence",
    "missing",
    "data",
    "data.a",
    "data.b.0",
    "data.b.1.c",
    "data.c.d",
];
const SIGNS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
const PATTERNS: [&str; 6] = ["", "x", "^x$", r"\w", r"é|\/", "(?i)X Y"];
const TOKENS: [&str; 34] = [
    "a", "data.a", "data.", ".b", "AND", "or", "Or", "null", "true", "FALSE", "=", "!=", "<", "<=", ">",
    ">=", "!", "(", ")", "[", "]", "{", "}", ",", ":", "\"", "\"x\"", "\\", "/", "/x*/", "-1.5e3", "7", "é",
    " ",
];

/// A filter before it is text, evaluated in the plainest way.
#[derive(Debug, Clone)]
enum Model {
    Compare { path: &'static str, sign: &'static str, literal: Value, spaced: bool },
    Search { path: &'static str, sign: &'static str, pattern: &'static str },
    All { parts: Vec<Model>, joiner: &'static str },
    Any { parts: Vec<Model>, joiner: &'static str },
}

impl Model {
    fn text(&self) -> String {
        let join = |parts: &[Model], joiner: &str, part: fn(&Model) -> String| {
            parts.iter().map(part).collect::<Vec<_>>().join(joiner)
        };
        match self {
            Model::Compare { path, sign, literal, spaced: true } => format!("{path} {sign}\t{literal}"),
            Model::Compare { path, sign, literal, spaced: false } => format!("{path}{sign}{literal}"),
            Model::Search { path, sign, pattern } => format!("{path}{sign}/{pattern}/"),
            Model::All { parts, joiner } => join(parts, joiner, |part| match part {
                Model::Any { .. } => format!("({})", part.text()),
                _ => part.text(),
            }),
            Model::Any { parts, joiner } => join(parts, joiner, Model::text),
        }
    }

    fn holds(&self, event: &Value) -> bool {
        match self {
            Model::Compare { path, sign, literal, .. } => compare(&look_up(event, path), sign, literal),
            Model::Search { path, sign, pattern } => {
                let found = look_up(event, path)
                    .as_str()
                    .is_some_and(|text| Regex::new(pattern).unwrap().is_match(text));
                found == (*sign == "=")
            }
            Model::All { parts, .. } => parts.iter().all(|part| part.holds(event)),
            Model::Any { parts, .. } => parts.iter().any(|part| part.holds(event)),
        }
    }
}

fn look_up(event: &Value, path: &str) -> Value {
    let mut words = event["type"].as_str().unwrap().splitn(2, '.');
    let (category, operation) = (words.next(), words.next());
    match path {
        "event_type" => json!(category),
        "operation" => json!(operation),
        "subject_name" => json!(event["subject"].as_str().and_then(|id| Some(id.split_once('/')?.1))),
        _ => event.pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or(Value::Null),
    }
}

fn compare(value: &Value, sign: &str, literal: &Value) -> bool {
    let (value, literal) = (all_doubles(value), all_doubles(literal));
    let order = match (&value, &literal) {
        (Value::Number(one), Value::Number(two)) => one.as_f64().partial_cmp(&two.as_f64()),
        (Value::String(one), Value::String(two)) => Some(one.cmp(two)),
        _ => None,
    };
    match sign {
        "=" => value == literal,
        "!=" => value != literal,
        "<" => order.is_some_and(Ordering::is_lt),
        "<=" => order.is_some_and(Ordering::is_le),
        ">" => order.is_some_and(Ordering::is_gt),
        _ => order.is_some_and(Ordering::is_ge),
    }
}

/// The value with `1` and `1.0` written alike.
fn all_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(elements) => elements.iter().map(all_doubles).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), all_doubles(value))).collect()
        }
        other => other.clone(),
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.0),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("x y"),
        json!("a"),
        json!("b.c"),
        json!("é\"\\/\n𝄞"),
    ])
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            btree_map(select(vec!["a", "b", "c", "d", "0"]), inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

fn event() -> impl Strategy<Value = Event> {
    let event_type = select(vec!["a", "a.b", "a.b.c", "x"]);
    let subject = select(vec![None, Some("x"), Some("x/x y"), Some("/a/x")]);
    (event_type, select(vec!["x", "x y"]), subject, any::<bool>(), 0..2, value(), value(), value()).prop_map(
        |(event_type, id, subject, data, sequence, a, b, c)| {
            let mut event = json!({"type": event_type, "id": id, "subject": subject, "sequence": sequence});
            if data {
                event["data"] = json!({"a": a, "b": [b, {"c": c}], "c": {"d": c}});
            }
            Event(event)
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        8 => (select(&PATHS[..]), select(&SIGNS[..]), value(), any::<bool>())
            .prop_map(|(path, sign, literal, spaced)| Model::Compare { path, sign, literal, spaced }),
        1 => (select(&PATHS[..]), select(&SIGNS[..2]), select(&PATTERNS[..]))
            .prop_map(|(path, sign, pattern)| Model::Search { path, sign, pattern }),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        let parts = vec(inner, 1..4);
        prop_oneof![
            2 => (parts.clone(), select(vec![" AND ", " and ", "\n", " "]))
                .prop_map(|(parts, joiner)| Model::All { parts, joiner }),
            1 => (parts, select(vec![" OR ", "\tor "])).prop_map(|(parts, joiner)| Model::Any { parts, joiner }),
        ]
    })
    .prop_filter("more than four regular expressions", |model| model.text().matches("=/").count() <= 4)
}

/// Parses and evaluates what need not be a filter; an error must point into the text.
fn try_out(source: &str, event: &Event) -> Result<(), TestCaseError> {
    match Filter::parse(source) {
        Ok(filter) => {
            filter.matches(event);
        }
        Err(FilterError { position, message }) => {
            prop_assert!((1..=source.chars().count() + 1).contains(&position) && !message.contains('\n'));
        }
    }
    Ok(())
}

#[test]
fn any_text_is_a_filter_or_an_error_within_it() {
    fuzz(&(any::<String>(), event()), |(source, event)| try_out(&source, &event));
}

#[test]
fn any_row_of_tokens_is_a_filter_or_an_error_within_it() {
    fuzz(&(vec(select(&TOKENS[..]), 0..40), event()), |(tokens, event)| {
        try_out(&tokens.concat(), &event)?;
        try_out(&tokens.join(" "), &event)
    });
}

#[test]
fn a_filter_with_a_slip_is_a_filter_or_an_error_within_it() {
    let slips = (model(), any::<prop::sample::Index>(), select(&TOKENS[..]), event());
    fuzz(&slips, |(model, at, slip, event)| {
        let mut characters: Vec<char> = model.text().chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..=at, slip.chars());
        try_out(&characters.into_iter().collect::<String>(), &event)
    });
}

#[test]
fn any_pattern_is_a_regular_expression_or_an_error() {
    fuzz(&(any::<String>(), any::<String>()), |(pattern, text)| {
        try_out(&format!("id=/{pattern}/"), &Event(json!({"id": text})))
    });
}

#[test]
fn a_filter_means_what_its_model_means() {
    fuzz(&(model(), event()), |(model, event)| {
        let source = model.text();
        let filter = Filter::parse(&source);
        let filter = filter.map_err(|error| TestCaseError::fail(format!("{source}: {error}")))?;
        prop_assert_eq!(filter.matches(&event), model.holds(&event.0), "{}", source);
        Ok(())
    });
}

#[test]
fn a_filter_matches_only_what_its_required_equality_finds() {
    let cases = (event(), select(&PATHS[..]), model(), any::<bool>());
    fuzz(&cases, |(event, path, other, other_first)| {
        // Begins with what is true of the event, else hardly any filter would match.
        let literal = look_up(&event.0, path);
        let mut parts = vec![Model::Compare { path, sign: "=", literal, spaced: false }, other];
        if other_first {
            parts.reverse();
        }
        for model in [parts[usize::from(other_first)].clone(), Model::All { parts, joiner: " " }] {
            let filter = Filter::parse(&model.text()).unwrap();
            if let Some((path, key)) = filter.required_equality()
                && filter.matches(&event)
            {
                prop_assert_eq!(path.index_key(&event), Some(key));
            }
        }
        Ok(())
    });
}

/// JSON as somebody writes it who means harm: what is the same again and again, deep, wide, long or large.
fn hostile_json() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "1e308",
        "-1e308",
        "1e309",
        "1e999999",
        "5e-324",
        "1e-999",
        "-0",
        "-0.0",
        "0.1",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551616.0",
        "null",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "[]",
        "{}",
        "{\"\":1}",
        "{\"a.b\":1}",
        "{\"0\":1}",
        "{\"a\":1,\"a\":2}",
        "nul",
        "",
    ]);
    let around = |open: &'static str, middle: &'static str, close: &'static str| {
        move |times: usize| format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    prop_oneof![
        6 => odd.prop_map(str::to_owned),
        1 => (0..300_usize).prop_map(around("[", "1", "]")),
        1 => (0..300_usize).prop_map(around("{\"a\":", "1", "}")),
        1 => (0..20_000_usize).prop_map(around("[", "", "")),
        1 => (0..5_000_usize).prop_map(|times| format!("[{}0]", "0,".repeat(times))),
        1 => (0..2_000_usize).prop_map(|times| {
            format!("{{{}}}", (0..times).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(","))
        }),
        1 => (1..500_usize).prop_map(|digits| "9".repeat(digits)),
        1 => (1..500_usize).prop_map(|digits| format!("0.{}1", "0".repeat(digits))),
        1 => (0..30_000_usize).prop_map(|length| format!("\"{}\"", "x y".repeat(length))),
    ]
}

#[test]
fn whatever_an_event_holds_a_filter_answers_and_its_comparisons_agree() {
    let cases = (hostile_json(), hostile_json(), hostile_json(), hostile_json(), select(&PATHS[..]), model());
    fuzz(&cases, |(a, b, c, literal, path, model)| {
        let text = format!(
            r#"{{"id":"x","source":"s","type":"a.b","subject":{a},"sequence":{b},"data":{{"a":{a},"b":[{b},{{"c":{c}}}],"c":{{"d":{c}}}}}}}"#
        );
        // As it comes over the wire, and without the attributes, where these are none.
        let plain = text.replacen(&format!(r#""subject":{a},"sequence":{b},"#), "", 1);
        for text in [text, plain] {
            let Ok(event) = event::Event::from_json(&Bytes::from(text)) else { continue };
            let event = Fields::new(&event);
            if let Ok(filter) = Filter::parse(&model.text()) {
                filter.matches(&event);
            }
            let holds =
                |sign: &str| Some(Filter::parse(&format!("{path}{sign}{literal}")).ok()?.matches(&event));
            let Some(all) = SIGNS.iter().map(|sign| holds(sign)).collect::<Option<Vec<bool>>>() else {
                continue;
            };
            let [equal, unequal, less, less_or_equal, greater, greater_or_equal] = all[..] else {
                unreachable!()
            };
            prop_assert!(equal != unequal, "{path} {literal}");
            prop_assert!(!(less && greater) && !(equal && (less || greater)), "{path} {literal}");
            prop_assert!(!less || less_or_equal, "{path} {literal}");
            prop_assert!(!greater || greater_or_equal, "{path} {literal}");
            // Of two that have an order, one is below, above, or equal.
            prop_assert_eq!(less_or_equal || greater_or_equal, less || greater || (equal && less_or_equal));
        }
        Ok(())
    });
}
