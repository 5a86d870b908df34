//! People who read: what the console and `hawker` ask, all the time.
//!
//! Invariant: the next request of a reader is due at a fixed time; one that is late because the last answer was is
//! measured from when it was due.

use crate::control_report::{Latency, ReadsOutcome};
use anyhow::{Context, Result};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// Each reader asks so often.
const ASK_EVERY: Duration = Duration::from_millis(100);
const SINCE: &str = "since=-";
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct ReadsPlan {
    /// `http://127.0.0.1:8080`
    pub rest: String,
    pub token: String,
    pub readers: usize,
    pub paths: Vec<String>,
    pub window: Duration,
}

/// Asks the paths in turn, every reader beginning with another one. A path that ends in `since=-60` is asked for
/// what was since a minute before.
///
/// # Errors
/// The client cannot be made, or a reader panicked.
pub async fn run(plan: ReadsPlan) -> Result<ReadsOutcome> {
    let until = Instant::now() + plan.window;
    let mut readers = JoinSet::new();
    for number in 0..plan.readers {
        readers.spawn(read(plan.clone(), number, until));
    }
    let mut times = vec![(Vec::new(), 0); plan.paths.len()];
    while let Some(of_reader) = readers.join_next().await {
        for (sum, (of_path, failed)) in times.iter_mut().zip(of_reader.context("a reader")??) {
            sum.0.extend(of_path);
            sum.1 += failed;
        }
    }
    let all: Vec<Duration> = times.iter().flat_map(|(times, _)| times).copied().collect();
    let failed = times.iter().map(|(_, failed)| failed).sum();
    let by_path =
        plan.paths.iter().cloned().zip(times.iter().map(|(times, failed)| Latency::of(times, *failed)));
    Ok(ReadsOutcome { all: Latency::of(&all, failed), by_path: by_path.collect() })
}

fn dated(path: &str) -> String {
    let Some((before, seconds)) = path.split_once(SINCE) else { return path.to_owned() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let since = now.saturating_sub(seconds.parse().unwrap_or(0));
    // As the console does: where a step of ten seconds begins.
    format!("{before}since={}", since / 10 * 10)
}

/// For each path the times, and how many requests failed.
async fn read(plan: ReadsPlan, number: usize, until: Instant) -> Result<Vec<(Vec<Duration>, usize)>> {
    let client =
        reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build().context("make a client")?;
    let mut times = vec![(Vec::new(), 0); plan.paths.len()];
    let (mut next, mut due) = (number, Instant::now() + ASK_EVERY / 4 * u32::try_from(number % 4)?);
    while due < until {
        tokio::time::sleep_until(due.into()).await;
        let which = next % plan.paths.len();
        let answered = ask(&client, &plan, &plan.paths[which]).await;
        times[which].0.push(due.elapsed());
        times[which].1 += usize::from(!answered);
        next += 1;
        due += ASK_EVERY;
    }
    Ok(times)
}

async fn ask(client: &reqwest::Client, plan: &ReadsPlan, path: &str) -> bool {
    let sent = client.get(format!("{}{}", plan.rest, dated(path))).bearer_auth(&plan.token).send().await;
    match sent {
        Ok(answer) if answer.status() == 200 => answer.bytes().await.is_ok(),
        _ => false,
    }
}
