//! Lists pass to the registry: tags, and what refers to a manifest. Only the registry knows all of them, so
//! nothing of them is kept.
//!
//! Invariant: a list is the registry's, whole pages of it, and its next page is asked for by the same way as this one.

use super::Mirror;
use super::refusal::Refusal;
use super::request::Get;
use crate::origin::ListOf;
use axum::response::Response;
use hawker_api::task::TaskId;
use http::{HeaderValue, header};
use url::Url;

/// Parameters of the distribution API's lists.
const PARAMETERS: [&str; 3] = ["n", "last", "artifactType"];
/// Longest parameter passed on, bytes.
const MAX_PARAMETER_BYTES: usize = 512;

/// Which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listing {
    Tags,
    Referrers(TaskId),
}

/// How a list was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The name as the caller has it: maybe with the registry in front.
    pub(super) name: String,
    pub(super) ns: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn new(name: &str, query: Option<&str>) -> Self {
        let mut asked = Self { name: name.to_owned(), ..Self::default() };
        for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if key == "ns" {
                asked.ns.get_or_insert(value.into_owned());
            } else if PARAMETERS.contains(&&*key) && value.len() <= MAX_PARAMETER_BYTES {
                asked.parameters.push((key.into_owned(), value.into_owned()));
            }
        }
        asked
    }
}

impl Mirror {
    pub(super) async fn list(&self, get: &Get, listing: &Listing) -> Result<Response, Refusal> {
        let (list, reference) = match listing {
            Listing::Tags => (ListOf::Tags, "list".to_owned()),
            Listing::Referrers(task) => (ListOf::Referrers, task.to_string()),
        };
        let parameters = get.asked.parameters.clone();
        let mut response = self.pass_as(get, &reference, Some((list, parameters))).await?;
        let link = response.headers_mut().remove(header::LINK);
        let next = link.as_ref().and_then(|link| next_page(link.to_str().ok()?));
        if let Some(query) = next
            && let Ok(value) = HeaderValue::from_str(&here(&get.asked, list, &reference, &query))
        {
            response.headers_mut().insert(header::LINK, value);
        }
        Ok(response)
    }
}

/// The query of `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<Vec<(String, String)>> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.replace([' ', '"'], "").to_ascii_lowercase().contains(";rel=next") {
        return None;
    }
    // The host does not matter: only the query is taken.
    let url = Url::parse("http://registry/").ok()?.join(target).ok()?;
    let query = Asked::new("", url.query()).parameters;
    (!query.is_empty()).then_some(query)
}

/// The next page, at this mirror.
fn here(asked: &Asked, list: ListOf, reference: &str, query: &[(String, String)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query);
    if let Some(ns) = &asked.ns {
        text.append_pair("ns", ns);
    }
    format!("</v2/{}/{}/{reference}?{}>; rel=\"next\"", asked.name, list.path(), text.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_here() {
        let asked = Asked::new("reg.test/a", Some("n=2&ns=reg.test%3A5000&evil=1&last="));
        assert_eq!(asked.parameters, [("n".to_owned(), "2".to_owned()), ("last".to_owned(), String::new())]);
        for link in [
            "</v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            "<https://reg.test:5000/v2/a/tags/list?last=b&n=2&x=y>;rel=next",
        ] {
            let query = next_page(link).unwrap();
            assert_eq!(
                here(&asked, ListOf::Tags, "list", &query),
                "</v2/reg.test/a/tags/list?last=b&n=2&ns=reg.test%3A5000>; rel=\"next\""
            );
        }
        for link in ["", "<x", "</v2/a/tags/list?last=b>; rel=\"prev\"", "</v2/a/tags/list>; rel=\"next\""] {
            assert_eq!(next_page(link), None, "{link}");
        }
    }
}
