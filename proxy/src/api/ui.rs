//! The web page of the cluster: files that are part of the binary, and the way there from `/` for browsers. What it shows
//! comes from `status/cluster`, which the page asks itself.

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use super::not_found;
use crate::Proxy;

/// The page loads and asks nothing but what this listener serves, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const FILES: [File; 5] = [
    File {
        path: "/ui/cluster",
        content_type: "text/html; charset=utf-8",
        text: include_str!("ui/cluster.html"),
    },
    File {
        path: "/ui/cluster.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("ui/cluster.css"),
    },
    File {
        path: "/ui/cluster.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("ui/cluster.js"),
    },
    File {
        path: "/ui/render.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("ui/render.js"),
    },
    File { path: "/ui/icon.svg", content_type: "image/svg+xml", text: include_str!("ui/icon.svg") },
];

/// The routes, from `/`.
pub(super) fn routes() -> Router<Proxy> {
    let ways = ["/", "/ui", "/ui/"].iter().fold(Router::new(), |router, path| router.route(path, any(home)));
    FILES.into_iter().fold(ways, |router, file| {
        router.route(file.path, get(async move |headers: HeaderMap| file.answer(&headers)))
    })
}

/// Leads browsers to the page. Whoever does not ask for a page gets what any unknown path gets.
async fn home(method: Method, uri: OriginalUri, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !matches!(method, Method::GET | Method::HEAD) || !accepted.contains("text/html") {
        return not_found(uri).await;
    }
    // Relative, so that it holds behind a reverse proxy's prefix too.
    let page = if uri.path().ends_with("/ui/") { "cluster" } else { "ui/cluster" };
    let headers = [(header::LOCATION, page), (header::VARY, "accept"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

impl File {
    /// The file, or that the browser's copy is still good: it asks each time, as another build has other files.
    fn answer(self, asked: &HeaderMap) -> Response {
        let tag = format!("W/\"{:08x}\"", crc32c::crc32c(self.text.as_bytes()));
        let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
        let mut response = match known {
            Some(known) if known.contains(&tag) => StatusCode::NOT_MODIFIED.into_response(),
            _ => self.text.into_response(),
        };
        let headers: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &tag),
        ];
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        FILES.iter().find(|file| file.path == path).map(|file| file.text).unwrap()
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for file in FILES {
            // The name of a language is not fetched.
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{}", file.path);
            assert!(!text.contains("url("), "{}", file.path);
        }
        let page = text("/ui/cluster");
        for (attribute, value) in ["src=\"", "href=\""].iter().flat_map(|attribute| {
            page.split(attribute).skip(1).map(move |rest| (attribute, rest.split('"').next().unwrap()))
        }) {
            let served = FILES.iter().any(|file| file.path == format!("/ui/{value}"));
            assert!(served, "{attribute}{value} is not served");
        }
    }

    #[test]
    fn what_other_processes_say_is_only_ever_text() {
        for path in ["/ui/cluster.js", "/ui/render.js"] {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".href"] {
                assert!(!text(path).contains(word), "{path} has {word}");
            }
        }
        let page = text("/ui/cluster");
        for word in ["style=", "onclick", "<style", "<script>"] {
            assert!(!page.contains(word), "the policy forbids {word}");
        }
    }
}
