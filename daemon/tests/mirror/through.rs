//! Stream-through: right, ranged, wrong and short.

use crate::lab::{Lab, blob_path, noise};
use crate::script::answer;
use crate::table::{Plan, Read, task};

#[tokio::test]
async fn without_space_the_origin_streams_through() {
    let bytes = noise(6 << 20);
    let (whole, at_first_read) = (task(&bytes), task(b"full at the first read"));
    let body = bytes.clone();
    let lab = Lab::new(
        [(whole, Plan::NoSpace), (at_first_read, Plan::Reads(9, vec![Read::NoSpace]))],
        move |head| match head {
            head if head.contains("range: bytes=5-9") => {
                answer("206 X", "Content-Range: bytes 5-9/6291456\r\n", &body[5..10])
            }
            _ => answer("200 OK", "", &body),
        },
    )
    .await;
    let got = lab.get(&blob_path(&whole), "Authorization: Bearer mine\r\n").await;
    assert_eq!((got.status, got.is_complete()), (200, true));
    assert!(got.body == bytes);
    assert!(lab.origin.heads()[0].contains("authorization: bearer mine"));
    assert!(lab.counted("hawker_fallback_total{reason=\"no_space\"} 1"));
    assert_eq!(lab.delivered_from_origin(), 6 << 20);
    let part = lab.get(&blob_path(&whole), "Range: bytes=5-9\r\n").await;
    assert_eq!((part.status, &part.body[..]), (206, &bytes[5..10]));
    assert_eq!(part.header("content-range"), Some("bytes 5-9/6291456"));
    let open_ended = lab.get(&blob_path(&whole), "Range: bytes=0-\r\n").await;
    assert_eq!(
        (open_ended.status, open_ended.header("content-range")),
        (206, Some("bytes 0-6291455/6291456"))
    );
    assert!(open_ended.body == bytes);
    let wrong = lab.get(&blob_path(&at_first_read), "").await;
    assert_eq!((wrong.status, wrong.is_complete()), (200, false), "these are not the digest's bytes");
}

#[tokio::test]
async fn what_streams_through_wrong_is_never_complete() {
    let small = task(b"small");
    let big = task(b"big");
    let plans = || [(small, Plan::Unavailable), (big, Plan::NoSpace)];
    let lab = Lab::new(plans(), move |head| {
        let bytes = if head.contains(&small.to_string()) { noise(1000) } else { noise(9 << 20) };
        answer("200 OK", "", &bytes)
    })
    .await;
    let refused = lab.get(&blob_path(&small), "").await;
    assert_eq!(refused.status, 503, "all of it was held back");
    let cut = lab.get(&blob_path(&big), "").await;
    assert_eq!(cut.status, 200);
    assert!(!cut.body.is_empty() && cut.body.len() <= 5 << 20, "{} bytes of 9 MiB were sent", cut.body.len());
    let manifest = lab.get(&format!("/v2/a/manifests/{small}?ns=reg.test"), "").await;
    assert_eq!(manifest.status, 503);
    let short = Lab::new(plans(), |_| answer("200 OK", "Content-Length: 9000000\r\n", b"abc")).await;
    assert_eq!(short.get(&blob_path(&small), "").await.status, 503);
}
