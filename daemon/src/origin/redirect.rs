//! Which redirects of a registry are followed: a few hops, never from https to http.
//!
//! Credentials stay behind when the host changes: reqwest drops `Authorization` there itself.

use reqwest::redirect::Policy;

/// Registries redirect to object storage once, sometimes through a front end.
const MAX_HOPS: usize = 5;

pub(super) fn policy() -> Policy {
    Policy::custom(|attempt| {
        let downgrade = attempt.url().scheme() != "https"
            && attempt.previous().last().is_some_and(|before| before.scheme() == "https");
        if attempt.previous().len() > MAX_HOPS {
            attempt.error(format!("more than {MAX_HOPS} redirects"))
        } else if downgrade {
            let refused = format!("redirect from https to {}", attempt.url());
            attempt.error(refused)
        } else {
            attempt.follow()
        }
    })
}
