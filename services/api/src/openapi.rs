//! The OpenAPI document: made from the handlers, and completed here with what all of them have in common.

use cuewire::catalogue;
use serde_json::json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, ContentBuilder, OpenApi as Document, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use crate::Api;
use crate::error::{FieldError, ProblemBody};

const PROBLEM: &str = "application/problem+json";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cuewire",
        description = "Cuewire delivers events of media platforms to webhooks: signed, retried, accounted for.\n\n\
            Every request but those for this document carries `Authorization: Bearer <key>`, and those of the \
            platforms' dialects (`/platforms/…`) a key in the platform's own form. The operator's key, \
            from the configuration, manages organizations and their keys, publishes events that name their \
            organization, and has the dead letters that belong to no organization, or to one that was deleted; everything else takes an \
            organization's own key, whose role is `viewer` (reads), `editor` (webhooks, events, redrive) or \
            `admin` (keys and secrets too). Another organization's things are 404.\n\n\
            Lists answer `{\"data\":[…],\"next_cursor\":…}`; a page may be short and still have a next. Errors \
            are `application/problem+json` (RFC 9457) with a sentence that says what to do; a dialect's are in \
            the platform's own envelope.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemBody, FieldError)),
    security(("key" = [])),
    modifiers(&Keys),
    tags(
        (name = "Events", description = "Publish events, and see what became of them"),
        (name = "Webhooks", description = "Who gets which events, and how"),
        (name = "Deliveries", description = "One event to one webhook, with its attempts"),
        (name = "Dead letters", description = "What failed for good, or was not understood"),
        (name = "Organizations", description = "The tenants; for the operator"),
        (name = "API keys", description = "Who may do what in an organization"),
    ),
)]
struct Common;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some("An organization's key (`cw_…`), or the operator's".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// These routes, under the document's common head.
pub(crate) fn router(routes: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Common::openapi()).merge(routes)
}

/// What the description of a body that may be left out begins with: the type of the handler's argument does not
/// reach the document.
const OPTIONAL: &str = "May be left out";

/// The type that stands for all others in examples.
const SHOWN_TYPE: &str = "recordings.completed";

/// The errors that every operation may answer.
const ERRORS: [(&str, &str); 4] = [
    ("401", "There is no key, or it is not known"),
    ("403", "The key may not do this"),
    ("503", "The database or the broker is away: try again after `Retry-After`"),
    ("default", "An error, with what to do about it"),
];

/// The body of every error.
#[derive(Debug, Clone)]
pub(crate) struct ErrorBody {
    pub(crate) media_type: &'static str,
    /// The name of its schema.
    pub(crate) schema: String,
}

impl ErrorBody {
    /// RFC 9457's, as the native routes answer.
    pub(crate) fn problem() -> Self {
        Self { media_type: PROBLEM, schema: "Problem".to_owned() }
    }

    fn content(&self) -> Content {
        ContentBuilder::new().schema(Some(Ref::from_schema_name(&self.schema))).build()
    }
}

/// Gives every operation the errors that every operation may answer and all errors their body, and says which
/// bodies of requests may be left out.
pub(crate) fn complete(document: &mut Document, error: &ErrorBody) {
    for operation in operations(document) {
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && body.description.as_ref().is_some_and(|it| it.starts_with(OPTIONAL))
        {
            body.required = Some(Required::False);
        }
        let responses = &mut operation.responses.responses;
        for (status, description) in ERRORS {
            let response = || RefOr::T(ResponseBuilder::new().description(description).build());
            responses.entry(status.to_owned()).or_insert_with(response);
        }
        let is_error = |status: &str| status == "default" || status.starts_with(['4', '5']);
        for (_, response) in responses.iter_mut().filter(|(status, _)| is_error(status)) {
            if let RefOr::T(Response { content, .. }) = response
                && content.is_empty()
            {
                content.insert(error.media_type.to_owned(), RefOr::T(error.content()));
            }
        }
    }
}

/// Shows events and their types by the catalogue, so that the document's examples are what is there.
pub(crate) fn show_samples(document: &mut Document) {
    let Some(entry) = catalogue::find(SHOWN_TYPE) else { return };
    let sample = serde_json::to_value(entry.sample).unwrap_or_default();
    for operation in operations(document) {
        let Some(RefOr::T(body)) = &mut operation.request_body else { continue };
        for (media_type, example) in [
            ("application/cloudevents+json", sample.clone()),
            ("application/cloudevents-batch+json", json!([sample])),
            ("application/json", sample.clone()),
        ] {
            let is_of_events = body.content.contains_key("application/cloudevents+json");
            if let Some(RefOr::T(content)) = body.content.get_mut(media_type).filter(|_| is_of_events) {
                content.example = Some(example);
            }
        }
    }
    let schemas = &mut document.components.get_or_insert_default().schemas;
    if let Some(RefOr::T(Schema::Object(list))) = schemas.get_mut("EventTypes")
        && let Some(RefOr::T(Schema::Array(data))) = list.properties.get_mut("data")
    {
        let mut shown = serde_json::to_value(entry).unwrap_or_default();
        shown["enforced"] = false.into();
        data.example = Some(json!([shown]));
    }
}

/// Every operation of the document.
pub(crate) fn operations(document: &mut Document) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        let by_method = [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete];
        by_method.into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The document, and with it every native operation: its path, its method, and what is said of it.
    fn document() -> (Value, Vec<(String, Value)>) {
        let (_, mut document) = router(crate::routes::all()).split_for_parts();
        show_samples(&mut document);
        complete(&mut document, &ErrorBody::problem());
        let document = serde_json::to_value(document).unwrap();
        let operations = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(|(method, told)| (format!("{method} {path}"), told.clone())).collect::<Vec<_>>()
        };
        let operations = document["paths"].as_object().unwrap().iter().flat_map(operations).collect();
        (document, operations)
    }

    /// Whether a schema says by example how all of it looks.
    fn is_exemplified(document: &Value, schema: &Value) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            return is_exemplified(document, document.pointer(&reference[1..]).unwrap());
        }
        if ["example", "examples", "enum"].iter().any(|name| schema.get(name).is_some()) {
            return true;
        }
        let mut parts =
            ["allOf", "oneOf"].iter().filter_map(|name| schema[name].as_array()).flatten().peekable();
        if parts.peek().is_some() {
            return parts.all(|part| is_exemplified(document, part));
        }
        match schema.get("items") {
            Some(items) => is_exemplified(document, items),
            None => {
                let members = schema["properties"].as_object();
                schema["type"] == "object"
                    && members.into_iter().flatten().all(|(_, member)| is_exemplified(document, member))
            }
        }
    }

    #[test]
    fn every_operation_shows_by_example_what_it_takes_and_what_it_answers() {
        let (document, operations) = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        assert!(operations.len() >= 35, "{} operations", operations.len());
        for (name, operation) in operations {
            let shows = |content: &Value| {
                let content = content.as_object().into_iter().flatten();
                content.filter(|(media_type, _)| *media_type != "*/*").all(|(_, content)| {
                    is_exemplified(&document, content) || is_exemplified(&document, &content["schema"])
                })
            };
            assert!(shows(&operation["requestBody"]["content"]), "{name} shows no body");
            let answers = operation["responses"].as_object().unwrap().iter();
            for (status, answer) in answers.filter(|(status, _)| status.starts_with('2')) {
                assert!(shows(&answer["content"]), "{name} shows no answer {status}");
            }
        }
    }

    #[test]
    fn events_and_their_types_are_shown_by_the_catalogues_sample() {
        let (_, mut document) = router(crate::routes::all()).split_for_parts();
        show_samples(&mut document);
        let document = serde_json::to_value(document).unwrap();
        let entry = catalogue::find(SHOWN_TYPE).unwrap();
        let sample: serde_json::Value = serde_json::from_str(entry.sample.get()).unwrap();
        let contents = &document["paths"]["/v1/events"]["post"]["requestBody"]["content"];
        assert_eq!(contents["application/cloudevents+json"]["example"], sample);
        assert_eq!(contents["application/cloudevents-batch+json"]["example"], json!([sample]));
        assert_eq!(contents["application/json"]["example"], sample);
        let listed = &document["components"]["schemas"]["EventTypes"]["properties"]["data"]["example"][0];
        assert_eq!((&listed["sample"], &listed["type"]), (&sample, &json!(SHOWN_TYPE)));
    }

    #[test]
    fn bodies_that_may_be_left_out_are_not_required_and_all_others_are() {
        let mut optional = Vec::new();
        for (name, operation) in document().1 {
            match &operation["requestBody"] {
                body if body.is_null() || body["required"] == true => {}
                body => {
                    assert_eq!(body["required"], false, "{name}");
                    optional.push(name);
                }
            }
        }
        optional.sort_unstable();
        let expected = [
            "post /v1/dead-letters/{id}/redrive",
            "post /v1/webhooks/{id}/secret/rotate",
            "post /v1/webhooks/{id}/test",
        ];
        assert_eq!(optional, expected);
    }
}
