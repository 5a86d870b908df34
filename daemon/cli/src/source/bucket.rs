//! `s3://`, `gs://` and `az://`: the object stores of the `object_store` library.
//!
//! Keys stay here: the mirror gets signed URLs, whose signatures are no part of what the cluster knows.
//!
//! Invariant: the configuration is the environment's, as the clouds' own tools read it.

use super::{Item, Wanted, at_origin};
use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::Signer;
use reqwest::Method;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long a signed URL is good: longer than a large model takes, shorter than most credentials live.
const SIGNED_FOR: Duration = Duration::from_secs(6 * 3600);

trait Bucket: ObjectStore + Signer {}
impl<T: ObjectStore + Signer> Bucket for T {}

pub(super) fn resolve(url: &Url, wanted: &Wanted) -> Result<Vec<Item>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bucket = open(url).with_context(|| format!("open {url}"))?;
        // Azure's URLs may have the container first, and `abfss` has it as the user.
        let prefix = Path::from_url_path(url.path()).with_context(|| format!("the path of {url}"))?;
        let objects = if wanted.recursive || url.path().ends_with('/') {
            let listed: Vec<_> =
                bucket.list(Some(&prefix)).try_collect().await.with_context(|| format!("list {url}"))?;
            if listed.is_empty() {
                bail!("nothing is below {url}");
            }
            listed.into_iter().map(|object| object.location).collect()
        } else {
            vec![prefix.clone()]
        };
        let mut items = Vec::with_capacity(objects.len());
        for object in objects {
            let signed = bucket.signed_url(Method::GET, &object, SIGNED_FOR).await;
            let signed = signed.with_context(|| format!("sign a URL for {object}"))?;
            items.push(at_origin(&signed, &name(&prefix, &object), None, &[])?);
        }
        Ok(items)
    })
}

fn open(url: &Url) -> Result<Arc<dyn Bucket>> {
    Ok(match url.scheme() {
        "s3" | "s3a" => Arc::new(AmazonS3Builder::from_env().with_url(url.as_str()).build()?),
        "gs" => Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).build()?),
        _ => Arc::new(MicrosoftAzureBuilder::from_env().with_url(url.as_str()).build()?),
    })
}

/// What is left of the object's path below the prefix; of a single object its last element.
fn name(prefix: &Path, object: &Path) -> String {
    let below: Vec<_> =
        object.prefix_match(prefix).into_iter().flatten().map(|part| part.as_ref().to_owned()).collect();
    if below.is_empty() { object.filename().unwrap_or_default().to_owned() } else { below.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_the_prefix() {
        let name = |prefix: &str, object: &str| name(&Path::from(prefix), &Path::from(object));
        assert_eq!(name("a/b", "a/b"), "b");
        assert_eq!(name("a/b", "a/b/c/d"), "c/d");
        assert_eq!(name("", "a/b"), "a/b");
    }
}
