//! The HTTP server: all routes, and what surrounds every request.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use cuewire::metrics::Counted;
use tokio::net::TcpListener;
use tower::Layer;
use tower::util::MapRequestLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::Api;
use crate::error::Problem;
use crate::extract::MAX_BODY_BYTES;
use crate::openapi::ErrorBody;
use crate::{connections, dialects, openapi, routes};

/// Until the head of the answer. The slowest are a body of 30 s with its publishing, and a test call of 35 s;
/// it ends before the grace for stopping does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(42);

/// What an answer may load when a browser shows it: nothing, and the documentation what is in the binary. Swagger UI
/// sets styles on elements, and has its icons as `data:` URLs.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The longest is a list's filters, percent-encoded, with a cursor.
const MAX_URI_BYTES: usize = 24 * 1024;
/// An event in binary mode has up to 71 attributes, and text in them three bytes for each that is
/// percent-encoded; proxies add a few.
const MAX_HEADERS: usize = 128;
const MAX_HEADERS_BYTES: usize = 256 * 1024;

/// Serves until the service stops, and then finishes the requests in flight.
pub(crate) async fn serve(listener: TcpListener, api: Api) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "the API is served");
    let shutdown = api.shutdown.clone();
    connections::serve(listener, router(api), shutdown).await;
    Ok(())
}

fn router(api: Api) -> Router {
    let (native, mut document) = openapi::router(routes::all()).split_for_parts();
    openapi::complete(&mut document, &ErrorBody::problem());
    openapi::show_samples(&mut document);
    let (dialects, document) = dialects::mount(&api, document);
    let native = native.route("/", get(|| async { Redirect::to("/docs/") })).merge(documentation(document));
    let native = bounded(native, "there is no such route; /docs lists them");
    let native = observed(&api, native);
    let router = native.merge(dialects).with_state(api);
    // Before a route is looked for: a layer on the router would come after.
    Router::new().fallback_service(MapRequestLayer::new(dialects::without_last_slash).layer(router))
}

/// What bounds every request of these routes: limits, time, and an answer whatever happens. `no_route` is what
/// is said of a path that is none of theirs.
pub(crate) fn bounded(routes: Router<Api>, no_route: &'static str) -> Router<Api> {
    routes
        .fallback(move || async move { Problem::new(StatusCode::NOT_FOUND, no_route) })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route does not take this method; the `Allow` header lists those it takes",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(bound))
}

/// Every request of these routes, and the answer as it goes out, counted and logged: it comes around all other
/// layers.
pub(crate) fn observed(api: &Api, routes: Router<Api>) -> Router<Api> {
    routes.layer(from_fn_with_state(api.clone(), observe))
}

/// The document, and a page that renders it. All of it is in the binary; the validator that the page would
/// otherwise ask is on the internet.
fn documentation(document: utoipa::openapi::OpenApi) -> SwaggerUi {
    let config = Config::default().validator_url("none");
    SwaggerUi::new("/docs").config(config).url("/openapi.json", document)
}

/// Counts, times and logs every request.
async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let in_flight = Counted::new(&api.metrics.in_flight, 1);
    let method = known_method(request.method());
    // Never the path itself: its ids would make a time series each.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::debug_span!(
        "request",
        method,
        path = request.uri().path(),
        organization = tracing::field::Empty
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static(if route.starts_with("/docs") { DOCS_POLICY } else { POLICY });
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    if !route.starts_with("/docs") {
        // Answers hold secrets and keys, and are true only now.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    let (status, elapsed) = (response.status(), started.elapsed());
    drop(in_flight);
    api.metrics.requests.with_label_values(&[route.as_str(), method, status.as_str()]).inc();
    api.metrics.duration.with_label_values(&[route.as_str(), method]).observe(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ?elapsed, "answered"));
    response
}

/// Refuses a head that is too long, and gives up what takes too long.
async fn bound(request: Request, next: Next) -> Response {
    if let Some(problem) = too_long(&request) {
        return problem.into_response();
    }
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::unavailable("the request took too long; try again").into_response())
}

/// Why the request's head is more than is read. What is far more, hyper refuses by itself, without a body.
fn too_long(request: &Request) -> Option<Problem> {
    let uri = request.uri().path_and_query().map_or(0, |it| it.as_str().len());
    if uri > MAX_URI_BYTES {
        let detail = format!("the path and query are {uri} bytes, and at most {MAX_URI_BYTES} are accepted");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, detail));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (headers.len() > MAX_HEADERS || bytes > MAX_HEADERS_BYTES).then(|| {
        let detail = format!(
            "the request has {} headers of {bytes} bytes, and at most {MAX_HEADERS} of {MAX_HEADERS_BYTES} bytes \
             are accepted",
            headers.len()
        );
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
    })
}

/// The method, where it is one of HTTP's own: a client may invent any, and each would be a time series.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    Problem::internal().into_response()
}
