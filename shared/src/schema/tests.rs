//! What fits, what does not and how that is told; and schemas that mean harm.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::catalogue;

fn event(data: &Value) -> Event {
    let json = json!({"id": "1", "source": "s", "type": "a.b", "subject": "x", "data": data});
    Event::from_json(&Bytes::from(json.to_string())).unwrap()
}

fn compile(schema: &Value) -> Result<Schema, String> {
    Schema::compile(&schema.to_string()).map_err(|misfit| misfit.to_string())
}

fn of_data(data: &Value) -> Schema {
    compile(&json!({"properties": {"data": data}})).unwrap()
}

#[test]
fn what_does_not_fit_is_named_by_its_path_without_the_value() {
    let tracks = json!({"properties": {"tracks": {"items": {
        "required": ["codec"],
        "properties": {"width": {"type": "integer"}, "codec": {"enum": ["av1", "hevc"]}},
        "additionalProperties": false,
    }}}});
    let schema = of_data(&tracks);
    assert_eq!(schema.check(&event(&json!({"tracks": [{"codec": "av1", "width": 3}], "more": 1}))), Ok(()));
    for (track, told) in [
        (json!({"codec": "av1", "width": "wide"}), r#"`data.tracks[0].width` is not of type "integer""#),
        (json!({"codec": "secret"}), r#"`data.tracks[0].codec` is not one of "av1" or "hevc""#),
        (json!({}), "`data.tracks[0].codec` is missing"),
        (json!({"codec": "av1", "extra": 1}), "`data.tracks[0].extra` is not allowed"),
    ] {
        let misfit = schema.check(&event(&json!({"tracks": [track]}))).unwrap_err();
        assert_eq!(misfit.to_string(), told);
    }
}

#[test]
fn a_schema_may_ask_for_attributes_for_binary_data_and_for_data_at_all() {
    let binary = br#"{"id":"1","source":"s","type":"a.b","data_base64":"/9j/"}"#;
    let binary = Event::from_json(&Bytes::from_static(binary)).unwrap();
    let none = event(&Value::Null);
    for (required, of_binary, of_none) in [
        ("data", Some("`data` is missing"), Some("`data` is missing")),
        ("data_base64", None, Some("`data_base64` is missing")),
        ("subject", Some("`subject` is missing"), None),
    ] {
        let schema = compile(&json!({"required": [required]})).unwrap();
        let told = |event| schema.check(event).err().map(|misfit| misfit.to_string());
        assert_eq!(told(&binary).as_deref(), of_binary, "{required}");
        assert_eq!(told(&none).as_deref(), of_none, "{required}");
    }
}

#[test]
fn an_event_that_cannot_be_taken_apart_fits_no_schema() {
    let schema = compile(&json!({})).unwrap();
    for data in [format!("{}{}", "[".repeat(200), "]".repeat(200)), "1e999".to_owned()] {
        let json = format!(r#"{{"id":"1","source":"s","type":"a.b","data":{data}}}"#);
        let event = Event::from_json(&Bytes::from(json)).unwrap();
        let told = schema.check(&event).unwrap_err().to_string();
        assert!(told.starts_with("`data` cannot be checked: "), "{told}");
    }
}

#[test]
fn every_schema_of_the_catalogue_may_be_in_force_and_its_sample_fits() {
    for entry in catalogue::all() {
        let schema = entry.compiled().unwrap_or_else(|misfit| panic!("{}: {misfit}", entry.name));
        assert!(schema.size.values < 200, "{} has {} values", entry.name, schema.size.values);
        let sample = Event::from_json(&Bytes::from_static(entry.sample.get().as_bytes())).unwrap();
        assert_eq!(schema.check(&sample), Ok(()), "{}", entry.name);
    }
}

#[test]
fn a_schema_that_is_none_is_told_by_its_path() {
    for (schema, told) in [
        (json!(true), "`` must be an object"),
        (json!({"properties": {"data": {"type": "objekt"}}}), "`properties.data.type` "),
        (json!({"pattern": "a(?=b)"}), "`pattern` "),
        (json!({"pattern": "(((a{100}){100}){100})"}), "`pattern` "),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "`$schema` must be "),
    ] {
        let refused = compile(&schema).unwrap_err();
        assert!(refused.starts_with(told), "{schema}: {refused}");
    }
    let refused = Schema::compile(&format!(r#"{{"title":"{}"}}"#, "x".repeat(MAX_SCHEMA_BYTES))).unwrap_err();
    assert_eq!(refused.to_string(), "`` is 65548 bytes, and at most 65536 are accepted");
}

#[test]
fn references_stay_inside_of_the_schema_and_lead_to_no_circle() {
    let definitions = json!({"$id": "https://example.com/a", "$ref": "#/$defs/a", "$defs": {"a": {"required": ["subject"]}}});
    assert_eq!(compile(&definitions).unwrap().check(&event(&json!(1))), Ok(()));
    for reference in
        ["http://127.0.0.1/a", "file:///etc/passwd", "a.json", "#a", "#/%24defs/a", "#/$defs/b", "#"]
    {
        let refused = compile(&json!({"$ref": reference, "$defs": {"a": {}}})).unwrap_err();
        assert!(refused.starts_with("`$ref` is "), "{reference}: {refused}");
    }
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}});
    assert!(compile(&circle).unwrap_err().contains("leads to itself"));
    for keyword in ["$dynamicRef", "$anchor", "$id", "$schema"] {
        let inner =
            json!({"properties": {"data": {keyword: "https://json-schema.org/draft/2020-12/schema"}}});
        assert!(compile(&inner).unwrap_err().starts_with(&format!("`{keyword}` is ")), "{keyword}");
    }
    // Under the name of a schema that is built in, references still lead to places of this one.
    let named = json!({
        "$id": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/a", "$defs": {"a": {"required": ["nothing"]}}
    });
    assert!(compile(&named).unwrap().check(&event(&json!(1))).is_err());
}

#[test]
fn a_small_schema_that_stands_for_endless_work_is_refused_at_once() {
    let doubling: serde_json::Map<_, _> = (0..40)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            (format!("d{n}"), json!({"allOf": [next, next]}))
        })
        .chain([("d40".to_owned(), json!({}))])
        .collect();
    let chain: serde_json::Map<_, _> = (0..500)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d500".to_owned(), json!({}))])
        .collect();
    let deep = (0..60).fold(json!({}), |inner, _| json!({"items": inner}));
    let too_deep = (0..70).fold(json!({}), |inner, _| json!({"items": inner}));
    let unevaluated =
        (0..20).fold(json!({}), |inner, _| json!({"allOf": [inner], "unevaluatedProperties": false}));
    let patterns: Vec<_> = (0..100).map(|n| json!({"pattern": format!("^a{n}")})).collect();
    assert!(compile(&deep).is_ok());
    let started = Instant::now();
    for (schema, told) in [
        (json!({"$ref": "#/$defs/d0", "$defs": doubling}), "more than"),
        (json!({"$ref": "#/$defs/d0", "$defs": chain}), "levels"),
        (too_deep, "levels"),
        (unevaluated, "unevaluated"),
        (json!({"allOf": patterns}), "patterns"),
        (json!({"format": "regex"}), "regex"),
    ] {
        let refused = compile(&schema).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn an_event_of_many_values_is_refused_where_its_schema_is_large_too_and_checked_where_it_is_not() {
    let values = event(&vec![0; 100_000].into());
    let large = of_data(&json!({"items": {"allOf": vec![json!({"type": "integer"}); 400]}}));
    assert_eq!(
        large.check(&values).unwrap_err().to_string(),
        "`data` has too many values to be checked with a schema of this size"
    );
    assert_eq!(of_data(&json!({"items": {"type": "integer"}})).check(&values), Ok(()));
}

#[test]
fn an_event_of_much_text_is_refused_where_its_schema_has_many_patterns_and_checked_where_it_has_few() {
    let text = event(&"ab".repeat(20_000).into());
    let patterns = |count: usize| of_data(&json!({"anyOf": vec![json!({"pattern": "^[ab]+$"}); count]}));
    assert_eq!(
        patterns(16).check(&text).unwrap_err().to_string(),
        "`data` has too much text to be checked with the patterns of this schema"
    );
    assert_eq!(patterns(3).check(&text), Ok(()));
    assert_eq!(of_data(&json!({"maxLength": 50_000})).check(&text), Ok(()));
}

#[test]
fn what_a_check_may_cost_is_told_by_an_events_bytes_and_never_too_low() {
    let binary = br#"{"id":"1","source":"s","type":"a.b","extra":"more","data_base64":"/9j/"}"#;
    let datas = [
        json!(null),
        json!([]),
        json!({}),
        json!([[], {}, [1, 2, [3]]]),
        json!({"a": 1, "b": {"c": "x,[{"}}),
    ];
    let binary = Event::from_json(&Bytes::from_static(binary)).unwrap();
    for event in datas.iter().map(event).chain([binary]) {
        let (weight, guess) = (Weight::of(&serde_json::to_value(&event).unwrap()), Weight::guess(&event));
        assert!((weight.values..weight.values + 2 * ATTRIBUTES).contains(&guess.values), "{event:?}");
        assert!((weight.text..weight.text + 2 * NAMES_BYTES).contains(&guess.text), "{event:?}");
    }
    let (some, many) = (event(&vec![0; 1_000].into()), event(&vec![0; 100_000].into()));
    let schema = of_data(&json!({"items": {"allOf": vec![json!({"pattern": "a"}); 16]}}));
    let pairs = 1_012 * schema.size.values;
    assert!((pairs..pairs + MAX_STEPS).contains(&schema.most_steps(&some)), "{}", schema.most_steps(&some));
    assert!((MAX_STEPS..=2 * MAX_STEPS).contains(&schema.most_steps(&many)));
}

#[test]
fn a_pattern_takes_time_linear_in_the_text() {
    let schema = of_data(&json!({"pattern": "^(a+)+$"}));
    let started = Instant::now();
    assert!(schema.check(&event(&format!("{}!", "a".repeat(100_000)).into())).is_err());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
