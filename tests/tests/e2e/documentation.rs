//! The API's documentation, which renders where there is no internet.

use cuewire_tests::system::test;
use reqwest::Method;
use url::Url;

/// What a page or a stylesheet names that a browser would load.
fn references(text: &str) -> Vec<String> {
    let after = |mark: &str, end: char| {
        let parts = text.split(mark).skip(1).filter_map(move |rest| rest.split(end).next());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    let quoted = [after("src=\"", '"'), after("href=\"", '"'), after("@import \"", '"')].concat();
    let all = quoted.into_iter().chain(after("url(", ')'));
    all.filter(|it| !it.trim_start_matches(['"', '\'']).starts_with("data:")).collect()
}

#[test]
fn the_documentation_loads_nothing_from_elsewhere_and_a_policy_forbids_it() {
    test(async |system| {
        let api = system.operator().with_key(None);
        let page = Url::parse(&format!("{}/docs/", api.base())).unwrap();
        let reply = api.get("/docs/").await;
        assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        let policy = reply.headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
        let scripts = policy.split(';').find(|rule| rule.trim().starts_with("script-src")).unwrap();
        assert_eq!(scripts.trim(), "script-src 'self'");
        assert!(!reply.text.contains("<script>"), "the policy forbids scripts in the page itself");

        let references = references(&reply.text);
        assert!(references.len() >= 5, "{references:?}");
        for reference in references {
            let url = page.join(&reference).unwrap();
            assert_eq!(url.origin(), page.origin(), "{reference}");
            let reply = api.get(url.path()).await;
            assert_eq!(reply.status, 200, "{reference}");
            let content_type = reply.headers["content-type"].to_str().unwrap();
            let expected = match reference.rsplit_once('.').unwrap().1 {
                "js" => "text/javascript",
                "css" => "text/css",
                "png" => "image/png",
                other => panic!("teach this test what {other:?} is"),
            };
            assert!(content_type.starts_with(expected), "{reference}: {content_type}");
            if expected == "text/css" {
                assert_eq!(self::references(&reply.text), [""; 0], "{reference}");
            }
        }
        let start = api.get("/docs/swagger-initializer.js").await.text;
        assert!(start.contains("\"/openapi.json\"") && !start.contains("http"), "{start}");
        let document = api.get("/openapi.json").await.expect(200);
        assert_eq!(document["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
        let root = api.send(api.request(Method::GET, "/")).await;
        assert!(root.text.contains("swagger-ui"), "the root leads there");
    });
}
