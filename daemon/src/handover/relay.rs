//! Blobs whose source changes while they are read: from this daemon's swarm to its successor's.
//!
//! Invariant: a reader gives each byte once and in order, whoever it comes from; it ends early only where its source
//! would have.

use crate::mirror::blobs::{Blob, BlobReader, BlobRequest, Blobs, OpenError, ReadError};
use crate::swarm::orders::Image;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// Who has the blobs.
#[derive(Clone, Default)]
pub(crate) enum Tenure {
    /// This daemon.
    #[default]
    Here,
    /// Nobody for a moment: they are handed over.
    Between,
    /// The successor, or this process once more.
    There(Arc<dyn Blobs>),
}

/// The swarm of this daemon, as long as it has one.
#[derive(Clone)]
pub(crate) struct Relay {
    here: Arc<dyn Blobs>,
    tenure: watch::Receiver<Tenure>,
}

impl Relay {
    pub(crate) fn new(here: Arc<dyn Blobs>, tenure: watch::Receiver<Tenure>) -> Self {
        Self { here, tenure }
    }

    /// Waits until somebody has them.
    async fn current(&self) -> (Arc<dyn Blobs>, bool) {
        let mut tenure = self.tenure.clone();
        loop {
            let now = tenure.borrow_and_update().clone();
            match now {
                Tenure::Here => return (Arc::clone(&self.here), true),
                Tenure::There(there) => return (there, false),
                Tenure::Between => {}
            }
            if tenure.changed().await.is_err() {
                return (Arc::clone(&self.here), true);
            }
        }
    }

    /// Waits until they are no longer here; at once, if they are not.
    async fn moved(&self) {
        let mut tenure = self.tenure.clone();
        let _ = tenure.wait_for(|tenure| !matches!(tenure, Tenure::Here)).await;
    }

    async fn find(&self, request: &BlobRequest) -> Result<Box<dyn Blob>, OpenError> {
        loop {
            let (blobs, here) = self.current().await;
            match blobs.open(request.clone()).await {
                Err(OpenError::HandedOver) if here => self.moved().await,
                found => return found,
            }
        }
    }
}

impl Blobs for Relay {
    fn open(&self, request: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>> {
        Box::pin(async move {
            let blob = self.find(&request).await?;
            Ok(Box::new(Relayed { relay: self.clone(), request, blob }) as Box<dyn Blob>)
        })
    }

    fn wanted(&self, image: Image) {
        // Later, the successor is told by whoever pulls from it.
        if matches!(*self.tenure.borrow(), Tenure::Here) {
            self.here.wanted(image);
        }
    }

    fn held_size(&self, task: &TaskId) -> Option<u64> {
        matches!(*self.tenure.borrow(), Tenure::Here).then(|| self.here.held_size(task)).flatten()
    }
}

struct Relayed {
    relay: Relay,
    request: BlobRequest,
    blob: Box<dyn Blob>,
}

impl Blob for Relayed {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
        let source = Source { reader: self.blob.read(range.clone()), _blob: None };
        let (relay, request, size) = (self.relay.clone(), self.request.clone(), self.size());
        Box::new(RelayedReader { relay, request, size, left: range, source })
    }
}

struct RelayedReader {
    relay: Relay,
    request: BlobRequest,
    size: u64,
    left: Range<u64>,
    source: Source,
}

/// Where bytes come from now, and the blob that was opened for it.
struct Source {
    reader: Box<dyn BlobReader>,
    _blob: Option<Box<dyn Blob>>,
}

impl RelayedReader {
    async fn step(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            match self.source.reader.next().await {
                Ok(Some(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(ReadError::HandedOver) => self.go_on().await?,
                other => return other,
            }
        }
    }

    /// Opens the blob where it is now, for what is left of it.
    async fn go_on(&mut self) -> Result<(), ReadError> {
        self.relay.moved().await;
        let blob = self.relay.find(&self.request).await.map_err(|error| ReadError::Io(error.to_string()))?;
        if blob.size() != self.size {
            return Err(ReadError::Io(format!("{} bytes here and {} there", self.size, blob.size())));
        }
        tracing::info!(task = %self.request.task, left = self.left.end - self.left.start, "an answer goes on elsewhere");
        self.source = Source { reader: blob.read(self.left.clone()), _blob: Some(blob) };
        Ok(())
    }
}

impl BlobReader for RelayedReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(self.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Credentials, ObjectKind, OriginObject};
    use hawker_api::task::Algorithm;
    use parking_lot::Mutex;

    /// A hundred bytes, ten at a time, up to `until`.
    struct Table {
        until: u64,
    }

    struct Reader(Range<u64>, u64);

    impl Blobs for Table {
        fn open(&self, _: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>> {
            let opened = if self.until == 0 {
                Err(OpenError::HandedOver)
            } else {
                Ok(Box::new(Table { until: self.until }) as Box<dyn Blob>)
            };
            Box::pin(async { opened })
        }

        fn wanted(&self, image: Image) {
            *TOLD.lock() = Some(image.name);
        }
    }

    impl Blob for Table {
        fn size(&self) -> u64 {
            100
        }

        fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
            Box::new(Reader(range, self.until))
        }
    }

    impl BlobReader for Reader {
        fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
            Box::pin(async {
                if self.0.is_empty() {
                    return Ok(None);
                }
                if self.0.start >= self.1 {
                    return Err(ReadError::HandedOver);
                }
                let end = self.0.end.min(self.0.start + 10);
                let bytes: Vec<u8> = (self.0.start..end).map(|at| u8::try_from(at).unwrap()).collect();
                self.0.start = end;
                Ok(Some(bytes.into()))
            })
        }
    }

    fn request() -> BlobRequest {
        BlobRequest {
            task: TaskId::from_digest(Algorithm::Sha256, &[7; 32]).unwrap(),
            object: OriginObject {
                registry: "r".into(),
                repository: "a".into(),
                kind: ObjectKind::Blob,
                version: String::new(),
            },
            credentials: Credentials::none(),
        }
    }

    async fn all(blob: Box<dyn Blob>, range: Range<u64>) -> Vec<u8> {
        let (mut reader, mut bytes) = (blob.read(range), Vec::new());
        while let Some(more) = reader.next().await.unwrap() {
            bytes.extend_from_slice(&more);
        }
        bytes
    }

    static TOLD: Mutex<Option<String>> = Mutex::new(None);

    #[test]
    fn what_is_pulled_is_told_to_the_swarm_while_it_is_here() {
        let image = |name: &str| Image { name: name.into(), manifest: request().task, parts: Vec::new() };
        let (tenure, here) = watch::channel(Tenure::Here);
        let relay = Relay::new(Arc::new(Table { until: 100 }), here);
        relay.wanted(image("a"));
        assert_eq!(TOLD.lock().as_deref(), Some("a"));
        tenure.send_replace(Tenure::Between);
        relay.wanted(image("b"));
        assert_eq!(TOLD.lock().as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_the_blob_went() {
        for until in [0, 30, 100] {
            let (tenure, here) = watch::channel(Tenure::Here);
            let relay = Relay::new(Arc::new(Table { until }), here);
            let reading = tokio::spawn(async move {
                let blob = relay.open(request()).await.unwrap();
                all(blob, 5..97).await
            });
            tokio::task::yield_now().await;
            tenure.send_replace(Tenure::Between);
            tokio::task::yield_now().await;
            tenure.send_replace(Tenure::There(Arc::new(Table { until: 100 })));
            assert_eq!(reading.await.unwrap(), (5..97).collect::<Vec<u8>>(), "{until}");
        }
    }
}
