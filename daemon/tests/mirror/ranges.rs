//! The range suite: each clause of RFC 9110 §14 that a runtime relies on, by name, for content that is held and for
//! content that streams through; and clients that go away.

use crate::lab::{Lab, blob_path, no_origin, noise};
use crate::script::{Step, answer};
use crate::table::{Plan, Read, send, task};
use bytes::Bytes;
use hawker_api::task::{Algorithm, TaskId};
use sha2::{Digest, Sha512};
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SIZE: usize = 100_000;

/// Clause, header, and the part of [`SIZE`] bytes it means; `None`: 416.
const CLAUSES: [(&str, &str, Option<Range<usize>>); 12] = [
    ("from the first byte", "bytes=0-", Some(0..SIZE)),
    ("open-ended", "bytes=99990-", Some(99_990..SIZE)),
    ("first and last", "bytes=5-9", Some(5..10)),
    ("a single byte", "bytes=7-7", Some(7..8)),
    ("past the end is cut", "bytes=99990-200000", Some(99_990..SIZE)),
    ("suffix", "bytes=-3", Some(99_997..SIZE)),
    ("suffix longer than all", "bytes=-200000", Some(0..SIZE)),
    ("unit in capitals", "BYTES=5-9", Some(5..10)),
    ("at the end", "bytes=100000-", None),
    ("after the end", "bytes=100001-100009", None),
    ("empty suffix", "bytes=-0", None),
    ("more digits than fit", "bytes=99999999999999999999-", None),
];
/// Headers that mean nothing, so that the whole is sent.
const IGNORED: [&str; 6] = ["bytes=9-5", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", "bytes=", "bytes=+1-2"];

#[tokio::test]
async fn every_clause_for_what_is_held() {
    let bytes = noise(SIZE);
    let path = blob_path(&task(&bytes));
    let lab = Lab::new([(task(&bytes), Plan::Held(bytes.clone()))], no_origin).await;
    for (clause, header, part) in CLAUSES {
        let got = lab.get(&path, &format!("Range: {header}\r\n")).await;
        match part {
            Some(part) => {
                assert_eq!((got.status, &got.body[..]), (206, &bytes[part.clone()]), "{clause}");
                let range = format!("bytes {}-{}/{SIZE}", part.start, part.end - 1);
                assert_eq!(got.header("content-range"), Some(range.as_str()), "{clause}");
                assert!(got.is_complete(), "{clause}");
            }
            None => {
                let range = format!("bytes */{SIZE}");
                assert_eq!(
                    (got.status, got.header("content-range")),
                    (416, Some(range.as_str())),
                    "{clause}"
                );
            }
        }
    }
    for header in IGNORED {
        let got = lab.get(&path, &format!("Range: {header}\r\n")).await;
        assert_eq!((got.status, got.body.len(), got.header("content-range")), (200, SIZE, None), "{header}");
    }
    let twice = lab.get(&path, "Range: bytes=0-1\r\nRange: bytes=5-6\r\n").await;
    assert_eq!((twice.status, twice.body.len()), (200, SIZE));
}

/// An origin that knows ranges.
fn ranged(bytes: Bytes) -> impl Fn(&str) -> Vec<Step> + Send + Sync + 'static {
    move |head| {
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return answer("200 OK", "", &bytes);
        };
        let first: usize = first.parse().unwrap();
        if first >= SIZE {
            return answer("416 X", &format!("Content-Range: bytes */{SIZE}\r\n"), b"");
        }
        let end = last.parse().map_or(SIZE, |last: usize| last.saturating_add(1).min(SIZE));
        answer("206 X", &format!("Content-Range: bytes {first}-{}/{SIZE}\r\n", end - 1), &bytes[first..end])
    }
}

#[tokio::test]
async fn what_streams_through_is_the_part_asked_for_or_the_whole() {
    let bytes = noise(SIZE);
    let path = blob_path(&task(&bytes));
    let lab = Lab::new([(task(&bytes), Plan::NoSpace)], ranged(bytes.clone())).await;
    for (clause, header, part) in CLAUSES {
        let got = lab.get(&path, &format!("Range: {header}\r\n")).await;
        match (got.status, part) {
            (206, Some(part)) => assert_eq!(&got.body[..], &bytes[part], "{clause}"),
            // A range may be ignored: a runtime passes over what it has.
            (200, _) => assert_eq!(&got.body[..], &bytes[..], "{clause}"),
            (status, part) => assert_eq!((status, part), (416, None), "{clause}"),
        }
    }
}

#[tokio::test]
async fn head_and_get_say_the_same() {
    let bytes = noise(SIZE);
    let (held, empty, elsewhere) = (task(&bytes), task(b""), task(b"elsewhere"));
    let lab = Lab::new([(held, Plan::Held(bytes)), (empty, Plan::Held(Bytes::new()))], |head| {
        let headers = "Content-Length: 9\r\nContent-Type: application/x-registrys-own\r\n";
        answer("200 OK", headers, if head.starts_with("head") { b"" } else { b"elsewhere" })
    })
    .await;
    for path in [blob_path(&held), blob_path(&empty), blob_path(&elsewhere)] {
        let (head, get) = (lab.send("HEAD", &path, "").await, lab.get(&path, "").await);
        assert_eq!((head.status, get.status, head.body.len()), (200, 200, 0), "{path}");
        for name in [
            "content-length",
            "content-type",
            "docker-content-digest",
            "etag",
            "accept-ranges",
            "oci-namespace",
            "content-encoding",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert!(get.is_complete(), "{path}");
    }
}

#[tokio::test]
async fn sha512_is_a_digest_like_any_other() {
    let bytes = noise(3000);
    let digest = TaskId::from_digest(Algorithm::Sha512, &Sha512::digest(&bytes)).unwrap();
    let held = Lab::new([(digest, Plan::Held(bytes.clone()))], no_origin).await;
    let got = held.get(&blob_path(&digest), "").await;
    assert_eq!((got.status, &got.body[..]), (200, &bytes[..]));
    assert_eq!(got.header("docker-content-digest"), Some(digest.to_string().as_str()));
    let (right, wrong) = (bytes.clone(), noise(3001));
    for (sent, status) in [(right, 200), (wrong, 503)] {
        let lab = Lab::new([(digest, Plan::NoSpace)], move |_| answer("200 OK", "", &sent)).await;
        assert_eq!(lab.get(&blob_path(&digest), "").await.status, status, "checked on its way through");
    }
}

#[tokio::test]
async fn clients_that_go_away_leave_nothing_behind() {
    let bytes = noise(4 << 20);
    let task = task(&bytes);
    let slow = vec![
        Read::Bytes(bytes.slice(..1 << 20)),
        Read::Slow(Duration::from_millis(20)),
        Read::Bytes(bytes.slice(1 << 20..)),
    ];
    // One request at a time: one that is not given back would refuse the next.
    let lab = Lab::with_requests([(task, Plan::Reads(4 << 20, slow))], no_origin, 1).await;
    for _ in 0..20 {
        // As parallel layer fetch does it: open-ended, read a chunk, hang up.
        let mut stream = TcpStream::connect(lab.mirror.addr()).await.unwrap();
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n", blob_path(&task));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut chunk = vec![0; 10_000];
        stream.read_exact(&mut chunk).await.unwrap();
        drop(stream);
        let free = async {
            while lab.get(&blob_path(&task), "").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), free).await.expect("the request was given back");
    }
    let answer = send(lab.mirror.addr(), "GET", &blob_path(&task), "").await;
    assert!(answer.status == 200 && answer.body == bytes);
}

#[tokio::test]
async fn a_body_that_stops_is_cut_for_the_runtime_to_go_on_elsewhere() {
    let bytes = noise(SIZE);
    let stops = |head: &str| {
        let mut steps = answer("200 OK", &format!("Content-Length: {SIZE}\r\n"), &noise(SIZE)[..50_000]);
        steps.push(Step::Pause(Duration::from_secs(60)));
        if head.starts_with("head") { answer("200 OK", "", b"") } else { steps }
    };
    let lab = Lab::new([(task(&bytes), Plan::NoSpace)], stops).await;
    let started = std::time::Instant::now();
    let got = lab.get(&blob_path(&task(&bytes)), "").await;
    // All of it was held back for the digest, so there is still another answer; a larger one is cut.
    assert!(got.status == 503 || !got.is_complete(), "{}", got.status);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}
