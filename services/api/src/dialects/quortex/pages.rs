//! Numbered pages: `{"count","next","previous","results"}`, with absolute URLs.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use serde::Serialize;
use url::form_urlencoded::Serializer;
use utoipa::ToSchema;

use super::super::count;
use crate::error::Problem;

/// Larger pages are cut to this.
const MAX_PAGE_SIZE: usize = 1_000;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexPage)]
pub(super) struct Page<T> {
    /// Entries on all pages.
    count: usize,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<T>,
}

/// A page that is being filled: every entry of the list is pushed, and those of the page are kept.
#[derive(Debug)]
pub(super) struct Filling<T> {
    /// From 1.
    number: usize,
    size: usize,
    count: usize,
    results: Vec<T>,
}

/// A page's size as a client wrote it; none where that is no number of entries.
pub(super) fn read_size(text: Option<&str>) -> Option<usize> {
    count(text).map(|size| size.min(MAX_PAGE_SIZE))
}

impl<T> Filling<T> {
    /// The page of this number, as a client wrote it.
    pub(super) fn new(number: Option<&str>, size: usize) -> Result<Self, Problem> {
        let number = number.filter(|text| !text.is_empty()).unwrap_or("1");
        let number = count(Some(number)).ok_or_else(no_page)?;
        Ok(Self { number, size, count: 0, results: Vec::new() })
    }

    /// Takes the next entry of the list.
    pub(super) fn push(&mut self, entry: impl FnOnce() -> T) {
        if self.count / self.size == self.number - 1 {
            self.results.push(entry());
        }
        self.count += 1;
    }

    /// The page, unless the list ends before it. `address` is the list's, with its query but for the page.
    pub(super) fn finish(self, address: &Address) -> Result<Page<T>, Problem> {
        let pages = self.count.div_ceil(self.size).max(1);
        if self.number > pages {
            return Err(no_page());
        }
        Ok(Page {
            count: self.count,
            next: (self.number < pages).then(|| address.of_page(self.number + 1)),
            previous: (self.number > 1).then(|| address.of_page(self.number - 1)),
            results: self.results,
        })
    }
}

fn no_page() -> Problem {
    Problem::no_such("page")
}

/// Where a client finds a list.
#[derive(Debug)]
pub(super) struct Address {
    base: String,
    query: Vec<(&'static str, String)>,
}

impl Address {
    /// Of the list at this path, as the request's client sees it: through a proxy, if that says so.
    pub(super) fn new(path: &str, uri: &Uri, headers: &HeaderMap) -> Self {
        let first = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?.split(',').next()?.trim();
            Some(value).filter(|value| !value.is_empty())
        };
        let scheme = first("x-forwarded-proto").filter(|scheme| ["http", "https"].contains(scheme));
        let host = first("x-forwarded-host").or_else(|| first(header::HOST.as_str()));
        let host = host.or_else(|| uri.authority().map(Authority::as_str));
        // What is no host would lead a client anywhere.
        let host = host.filter(|host| is_host(host));
        let base = host.map(|host| format!("{}://{host}", scheme.unwrap_or("http")));
        Self { base: format!("{}{path}", base.unwrap_or_default()), query: Vec::new() }
    }

    /// With a parameter more, if it has a value.
    pub(super) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    fn of_page(&self, number: usize) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("page", &number.to_string()).extend_pairs(&self.query);
        format!("{}?{}", self.base, query.finish())
    }
}

/// A name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && text.bytes().all(byte) && text.parse::<Authority>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn page(number: &str, size: &str, entries: usize) -> Option<(Page<usize>, usize)> {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("cuewire:8080"))]);
        let size = read_size(Some(size))?;
        let mut filling = Filling::new(Some(number), size).ok()?;
        (0..entries).for_each(|entry| filling.push(|| entry));
        let address = Address::new("/list/", &Uri::from_static("/"), &headers).with("q", Some("ä b"));
        filling.finish(&address).ok().map(|page| (page, size))
    }

    #[test]
    fn pages_are_numbered_from_one_and_lead_to_their_neighbours() {
        let (first, _) = page("", "2", 5).unwrap();
        assert_eq!((first.count, first.results, first.previous), (5, vec![0, 1], None));
        assert_eq!(first.next.as_deref(), Some("http://cuewire:8080/list/?page=2&q=%C3%A4+b"));
        let (last, _) = page("3", "2", 5).unwrap();
        assert_eq!((last.results, last.next), (vec![4], None));
        assert_eq!(last.previous.as_deref(), Some("http://cuewire:8080/list/?page=2&q=%C3%A4+b"));
        let (full, _) = page("2", "2", 4).unwrap();
        assert_eq!((full.results, full.next), (vec![2, 3], None));
        assert_eq!(page("1", "2", 0).unwrap().0.count, 0);
        assert_eq!(page("1", "5000", 1).unwrap().1, MAX_PAGE_SIZE);
        for (number, size) in [("0", "2"), ("4", "2"), ("-1", "2"), ("x", "2"), ("1", "0"), ("1", "x")] {
            assert!(page(number, size, 5).is_none(), "{number} {size}");
        }
    }

    #[test]
    fn addresses_are_those_that_the_client_knows() {
        let address = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            Address::new("/l/", &Uri::from_static("http://authority/x"), &headers.collect()).base
        };
        assert_eq!(address(&[]), "http://authority/l/");
        assert_eq!(address(&[("host", "h")]), "http://h/l/");
        let proxy =
            [("host", "h"), ("x-forwarded-proto", "https, http"), ("x-forwarded-host", "public, inner")];
        assert_eq!(address(&proxy), "https://public/l/");
        assert_eq!(address(&[("host", "h"), ("x-forwarded-proto", "javascript")]), "http://h/l/");
        assert_eq!(address(&[("host", "[::1]:80")]), "http://[::1]:80/l/");
        for hostile in ["ev\"il<x>", "h/elsewhere", "user@h", "h?q"] {
            assert_eq!(address(&[("host", hostile)]), "/l/", "{hostile}");
        }
    }
}
