//! `GET /api/v1/openapi.json`: the API described, from the table of routes itself.
//!
//! Invariant: what is served is described, with who may call it; there is no second list.

use super::cookie;
use super::problem::{self, ProblemView};
use super::route::{Guard, Route};
use super::routes;
use crate::manager::rights::Permission;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::LazyLock;
use utoipa::openapi::path::{HttpMethod, Parameter, ParameterBuilder, ParameterIn, PathsBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required,
    Response, ResponseBuilder, SecurityRequirement,
};
use utoipa::{PartialSchema, ToSchema};

const DESCRIPTION: &str = "Clusters, hosts, jobs and the people who look after them. Lists come in pages \
    (`page`, `per_page`); refusals are `application/problem+json`; what changes something with a session's \
    cookie needs the header `X-CSRF-Token`.";

/// The OpenAPI document of this manager.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1")))]
pub(super) async fn document() -> impl IntoResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| build(routes()).to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

pub(super) fn build(routes: Vec<Route>) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new()
        .security_scheme(
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        )
        .security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(cookie::SESSION))))
        .schema(ProblemView::name(), ProblemView::schema())
        .response("Refused", refused());
    for route in routes {
        let (path, method) = (route.info.path.to_string(), method(&route));
        for (name, schema) in route.schemas.clone() {
            components = components.schema(name, schema);
        }
        paths = paths.path(path, PathItem::new(method, described(route)));
    }
    let info =
        InfoBuilder::new().title("Hawker").version(env!("CARGO_PKG_VERSION")).description(Some(DESCRIPTION));
    OpenApiBuilder::new().info(info.build()).paths(paths.build()).components(Some(components.build())).build()
}

fn method(route: &Route) -> HttpMethod {
    match route.info.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// The handler's own description, with what the frame adds: its name, who may call it, and how it refuses.
fn described(route: Route) -> utoipa::openapi::path::Operation {
    let (info, mut operation) = (route.info, route.operation);
    operation.operation_id = Some(info.name.to_owned());
    operation.tags = info.name.split_once('.').map(|(area, _)| vec![area.to_owned()]);
    let told = operation.description.take().unwrap_or_default();
    operation.description = Some(format!("{told}\n\n{}", needs(route.guard)).trim_start().to_owned());
    operation
        .responses
        .responses
        .insert("default".to_owned(), RefOr::Ref(Ref::from_response_name("Refused")));
    if route.guard == Guard::Anyone {
        operation.security = Some(vec![SecurityRequirement::default()]);
    } else {
        let none: [&str; 0] = [];
        operation.security =
            Some(["bearer", "cookie"].map(|scheme| SecurityRequirement::new(scheme, none)).to_vec());
        if info.method != axum::http::Method::GET {
            operation.parameters.get_or_insert_default().push(csrf());
        }
    }
    operation
}

fn needs(guard: Guard) -> String {
    match guard {
        Guard::Anyone => "Open to anyone.".to_owned(),
        Guard::SignedIn => "For whoever is signed in.".to_owned(),
        Guard::Session => "For whoever signed in; personal access tokens are refused.".to_owned(),
        Guard::May(permission) => may(permission),
        Guard::InCluster(permission) => format!("{} The account must be for the cluster.", may(permission)),
    }
}

fn may(permission: Permission) -> String {
    format!("Needs `{permission}`, which a {} has.", permission.least_role())
}

fn csrf() -> Parameter {
    ParameterBuilder::new()
        .name("X-CSRF-Token")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Needed with the cookie: the `csrf_token` of the session."))
        .schema(Some(String::schema()))
        .build()
}

fn refused() -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemView::name()))).build();
    ResponseBuilder::new().description("Refused, and why").content(problem::MEDIA_TYPE, body).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn operations() -> Vec<(String, String, Value)> {
        let document = serde_json::to_value(build(routes())).unwrap();
        let paths = document["paths"].as_object().unwrap().clone();
        let each = paths.into_iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().clone().into_iter();
            methods.map(move |(method, operation)| (path.clone(), method, operation))
        });
        each.collect()
    }

    #[test]
    fn every_route_is_described_once_and_completely() {
        let operations = operations();
        assert_eq!(operations.len(), routes().len());
        let names: BTreeSet<_> = operations.iter().map(|(.., it)| it["operationId"].to_string()).collect();
        assert_eq!(names.len(), operations.len(), "an operation id is used twice");
        for (path, method, operation) in &operations {
            let what = format!("{method} {path}");
            assert!(path.starts_with("/api/v1/") || path == "/healthz", "{what}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}: no summary");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with(['2', '3'])), "{what}: no answer");
            assert!(answers.contains_key("default"), "{what}");
            let declared: BTreeSet<_> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap_or_default().to_owned())
                .collect();
            let wanted: BTreeSet<_> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert!(wanted.iter().all(|name| declared.contains(*name)), "{what}: {wanted:?} {declared:?}");
        }
    }

    /// References that lead nowhere make generators of clients fail.
    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(build(routes())).unwrap();
        let mut open = vec![&document];
        let mut found = 0;
        while let Some(value) = open.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        found += 1;
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    open.extend(fields.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        assert!(found > 10, "{found}");
    }
}
