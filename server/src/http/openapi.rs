//! What the OpenAPI document says of every operation. The operations themselves stand at their handlers.

use task_repo_protocol::ErrorCode;
use utoipa::Modify;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Schema, Type,
};

use super::examples;

/// What holds for every operation, said once.
pub(super) struct WhatHoldsForAll;

impl Modify for WhatHoldsForAll {
    fn modify(&self, document: &mut Document) {
        if let Some(components) = document.components.as_mut() {
            let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
            components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
            let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
            components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
            for problem in examples::problems() {
                let example = ExampleBuilder::new().value(serde_json::to_value(&problem).ok());
                components.examples.insert(problem.code.to_string(), RefOr::T(example.build()));
            }
        }
        for (route, item) in &mut document.paths.paths {
            let operations = [
                (item.get.as_mut(), false),
                (item.post.as_mut(), true),
                (item.put.as_mut(), true),
                (item.delete.as_mut(), false),
            ];
            for (operation, has_body) in operations.into_iter().filter_map(|(it, body)| Some((it?, body))) {
                complete(operation, route, has_body);
            }
        }
    }
}

/// A body that need not be there is not one that may be `null`.
fn without_null(body: &mut RequestBody) {
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        let Some(RefOr::T(Schema::OneOf(either))) = &content.schema else { continue };
        if let Some(what) = either.items.iter().find(|it| matches!(it, RefOr::Ref(_))).cloned() {
            content.schema = Some(what);
            body.required = Some(Required::False);
        }
    }
}

fn complete(operation: &mut Operation, route: &str, has_body: bool) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        without_null(body);
    }
    let has_id = route.contains('{');
    let is_public = operation.security.as_ref().is_some_and(|security| security.len() == 1);
    if !is_public {
        // Tenants that begin with `_` are the service's own.
        let tenant = "^[\\x21-\\x5e\\x60-\\x7e][\\x21-\\x7e]*$";
        for (name, max, pattern, what) in [
            (
                "X-Tenant-ID",
                128,
                tenant,
                "Which tenant, with an all-tenant key; else absent or the key's own.",
            ),
            ("X-User-ID", 255, "^[\\x21-\\x7e]+$", "The end user on whose behalf a gateway calls."),
        ] {
            let schema = ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(max))
                .pattern(Some(pattern));
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(what))
                .schema(Some(schema))
                .build();
            operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
        }
    }
    let mut refusals = vec![("400", "A query parameter or header is invalid, or the body is no JSON")];
    if !is_public {
        refusals.push(("401", "No credential, or an unknown one"));
        refusals.push(("403", "The credential does not allow this"));
    }
    if has_id {
        refusals.push(("404", "There is no such thing, or it is not the caller's"));
    }
    if has_body {
        refusals.push(("409", "What it is about stands in the way"));
        refusals.push(("413", "Too large"));
        refusals.push(("415", "The body is not application/json"));
        refusals.push(("422", "The body breaks a rule"));
    } else if has_id {
        refusals.push(("409", "The task's status does not allow this"));
    }
    if has_body && has_id {
        refusals.push(("412", "If-Match does not hold"));
    }
    if is_limited(route, has_body) {
        refusals.push(("429", "A limit is reached"));
    }
    refusals.push(("405", "The route does not have this method"));
    refusals.push(("503", "Not now; the body says whether it may have been applied"));
    for (status, why) in refusals {
        let codes = ErrorCode::ALL.iter().filter(|code| code.status().to_string() == status);
        let examples = codes.filter(|code| may_answer(route, has_body, **code)).map(|code| {
            let example = Ref::new(format!("#/components/examples/{code}"));
            (code.as_str(), RefOr::Ref::<Example>(example))
        });
        let problem = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .examples_from_iter(examples)
            .build();
        let response =
            ResponseBuilder::new().description(why).content("application/problem+json", problem).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

/// Whether a call of that route may be beyond a limit.
fn is_limited(route: &str, has_body: bool) -> bool {
    let ends_in = |ends: &[&str]| ends.iter().any(|end| route.ends_with(end));
    ends_in(&["/stream"]) || has_body && ends_in(&["/tasks", "{task_type}", "/pause"])
}

/// Whether a route may answer with that code, as far as its form tells.
fn may_answer(route: &str, has_body: bool, code: ErrorCode) -> bool {
    let is_about = |what: &str| route.contains(what);
    let ends_in = |verbs: &[&str]| verbs.iter().any(|verb| route.ends_with(verb));
    match code {
        ErrorCode::MalformedJson => has_body,
        ErrorCode::TaskNotFound => is_about("{task_id}") || is_about("{result_id}"),
        ErrorCode::TaskTypeNotFound => is_about("{task_type}"),
        ErrorCode::KeyNotFound => is_about("{key_id}"),
        ErrorCode::NotFound => is_about("{asset}"),
        ErrorCode::TaskNotClaimable => ends_in(&["{task_id}/claim"]),
        ErrorCode::LeaseLost => {
            is_about("{task_id}") && ends_in(&["/heartbeat", "/complete", "/fail", "/release", "/cancel"])
        }
        ErrorCode::InvalidTransition => {
            is_about("/tasks/{task_id}") && ends_in(&["{task_id}", "/status", "/cancel", "/execute"])
        }
        ErrorCode::IdempotencyKeyReused => ends_in(&["/tasks", "/tasks/batch"]),
        // Nothing in this version sends these.
        ErrorCode::TemplateNotFound | ErrorCode::ScheduleNotFound | ErrorCode::Duplicate => false,
        ErrorCode::LimitExceeded => is_limited(route, has_body),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use task_repo_protocol::ErrorCode;

    use super::examples;

    fn document() -> Value {
        serde_json::to_value(crate::http::openapi_document()).expect("a document")
    }

    /// Every operation with what it is called in the failure of a test.
    fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, item)| {
            let operations = item.as_object().expect("operations").iter();
            operations.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
    }

    #[test]
    fn every_response_has_a_description() {
        for (name, operation) in operations(&document()) {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{name} {status} has no description");
            }
        }
    }

    #[test]
    fn no_operation_id_stands_twice() {
        let mut seen = BTreeSet::new();
        for (name, operation) in operations(&document()) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(seen.insert(id.to_owned()), "{name}: {id} stands twice");
        }
    }

    #[test]
    fn tags_come_in_the_order_in_which_they_are_needed_and_each_operation_has_one() {
        let document = document();
        let tags: Vec<_> =
            document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
        assert_eq!(tags, ["tasks", "work", "task types", "keys", "operation", "system"]);
        for (name, operation) in operations(&document) {
            let own = operation["tags"].as_array().expect("tags");
            assert!(own.len() == 1 && tags.contains(&&own[0]), "{name}: {own:?}");
        }
    }

    #[test]
    fn every_code_that_a_route_may_answer_has_an_example() {
        let document = serde_json::to_string(&crate::http::openapi_document()).expect("a document");
        let shown: Vec<_> = examples::problems().into_iter().map(|problem| problem.code).collect();
        for code in ErrorCode::ALL {
            let is_answered = document.contains(&format!("#/components/examples/{code}\""));
            assert!(!is_answered || shown.contains(code), "{code} needs an example in examples.rs");
        }
    }
}
