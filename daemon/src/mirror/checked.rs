//! A body that must have a digest which only the caller names.
//!
//! Invariant: the last bytes go out only after the whole matched; else the body is cut.

use super::blobs::ReadError;
use crate::digest::WholeDigest;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use hawker_api::task::TaskId;

/// Checks a whole answer on its way; a part of something cannot be checked, and passes.
pub(super) fn whole(response: Response, digest: TaskId) -> Response {
    if response.status() != http::StatusCode::OK {
        return response;
    }
    let (head, body) = response.into_parts();
    let checked = Checked {
        body: body.into_data_stream().boxed(),
        hash: Some(WholeDigest::new(&digest)),
        held: None,
        digest,
    };
    let chunks = stream::try_unfold(checked, |mut checked| async move {
        Ok::<_, axum::BoxError>(checked.next().await?.map(|bytes| (bytes, checked)))
    });
    Response::from_parts(head, Body::from_stream(chunks))
}

struct Checked {
    body: stream::BoxStream<'static, Result<Bytes, axum::Error>>,
    /// Until the end.
    hash: Option<WholeDigest>,
    held: Option<Bytes>,
    digest: TaskId,
}

impl Checked {
    async fn next(&mut self) -> Result<Option<Bytes>, axum::BoxError> {
        loop {
            match self.body.next().await.transpose()? {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(&bytes);
                    }
                    if let Some(held) = self.held.replace(bytes) {
                        return Ok(Some(held));
                    }
                }
                None => {
                    if self.hash.take().is_some_and(|hash| !hash.matches(&self.digest)) {
                        return Err(ReadError::Mismatch.into());
                    }
                    return Ok(self.held.take());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_api::task::Algorithm;
    use sha2::{Digest, Sha256};

    async fn checked(sent: &'static [&'static str], digest_of: &str) -> Result<Bytes, axum::Error> {
        let digest = TaskId::from_digest(Algorithm::Sha256, &Sha256::digest(digest_of)).unwrap();
        let chunks =
            stream::iter(sent.iter().map(|text| Ok::<_, axum::Error>(Bytes::from_static(text.as_bytes()))));
        let response = whole(Response::new(Body::from_stream(chunks)), digest);
        axum::body::to_bytes(response.into_body(), 100).await
    }

    #[tokio::test]
    async fn only_the_right_bytes_come_to_an_end() {
        assert_eq!(checked(&["ab", "", "c"], "abc").await.unwrap(), "abc");
        assert_eq!(checked(&[], "").await.unwrap(), "");
        assert!(checked(&["ab", "c"], "abd").await.is_err());
        assert!(checked(&["ab"], "abc").await.is_err());
        assert!(checked(&[], "abc").await.is_err());
    }
}
