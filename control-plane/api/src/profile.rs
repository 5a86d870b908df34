//! What the CPU is busy with: stacks sampled for some seconds, in the format that `go tool pprof` and flame graph viewers read
//! (profile.proto of google/pprof).
//!
//! Invariant: one profile at a time, and none longer than [`MAX_SECONDS`].

use pprof::{ProfilerGuardBuilder, Report};
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest profile.
pub const MAX_SECONDS: u64 = 60;
/// Profile where no length is asked for.
pub const DEFAULT_SECONDS: u64 = 10;
/// Samples per second of CPU time. Not a divisor of anything that ticks by itself.
const FREQUENCY: i32 = 99;
/// Libraries in which a stack is not walked: the walker itself and the loader, whose locks it may need, and the vDSO, which it cannot walk.
/// libc is not among them, or time in the kernel would not be seen: it finds the tables without a lock since 2.35 (`_dl_find_object`).
const NOT_INSIDE: [&str; 3] = ["libgcc", "ld-linux", "vdso"];

static RUNNING: AtomicBool = AtomicBool::new(false);

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("seconds: `{asked}`: must be 1 to {MAX_SECONDS}")]
    Length { asked: u64 },
    #[error("another profile is being taken")]
    Busy,
    #[error("take a profile: {0}")]
    Failed(#[from] pprof::Error),
    #[error("encode a profile: {0}")]
    Encode(#[from] prost::EncodeError),
}

/// Takes a profile of this process. Blocks for so many seconds.
///
/// # Errors
/// [`ProfileError`]
pub fn take(seconds: u64) -> Result<Vec<u8>, ProfileError> {
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(ProfileError::Length { asked: seconds });
    }
    if RUNNING.swap(true, Ordering::AcqRel) {
        return Err(ProfileError::Busy);
    }
    let taken = sample(Duration::from_secs(seconds));
    RUNNING.store(false, Ordering::Release);
    taken
}

fn sample(span: Duration) -> Result<Vec<u8>, ProfileError> {
    let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&NOT_INSIDE).build()?;
    std::thread::sleep(span);
    let report = guard.report().build()?;
    drop(guard);
    let mut bytes = Vec::new();
    profile(&report, span).encode(&mut bytes)?;
    Ok(bytes)
}

fn profile(report: &Report, span: Duration) -> Profile {
    let mut tables = Tables::new();
    let period = 1_000_000_000 / i64::from(FREQUENCY);
    let mut samples = Vec::with_capacity(report.data.len());
    for (stack, count) in &report.data {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let mut location_ids: Vec<u64> = stack
            .frames
            .iter()
            .skip_while(|frame| walks(frame))
            .flatten()
            .map(|symbol| tables.location(symbol))
            .collect();
        // Innermost first; the thread is the outermost.
        location_ids.push(tables.named(&stack.thread_name, "", 0));
        samples.push(Sample { location_ids, values: vec![count, count.saturating_mul(period)] });
    }
    let kind = |tables: &mut Tables, kind: &str, unit: &str| ValueType {
        kind: tables.string(kind),
        unit: tables.string(unit),
    };
    let sample_types = vec![kind(&mut tables, "samples", "count"), kind(&mut tables, "cpu", "nanoseconds")];
    let period_type = Some(kind(&mut tables, "cpu", "nanoseconds"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Profile {
        sample_types,
        samples,
        locations: tables.locations,
        functions: tables.functions,
        strings: tables.strings,
        time_nanoseconds: nanoseconds(since) - nanoseconds(span),
        duration_nanoseconds: nanoseconds(span),
        period_type,
        period,
    }
}

/// Whether a frame is the sampler's own: it is on top of every stack it takes.
fn walks(frame: &[pprof::Symbol]) -> bool {
    let ours = |symbol: &pprof::Symbol| {
        let file = symbol.filename.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default();
        file.split('/').any(|folder| folder.starts_with("backtrace-") || folder.starts_with("pprof-"))
    };
    frame.iter().any(ours)
}

/// What is named once and referred to by number.
struct Tables {
    strings: Vec<String>,
    known: HashMap<String, i64>,
    locations: Vec<Location>,
    functions: Vec<Function>,
    places: HashMap<(i64, i64, i64), u64>,
}

impl Tables {
    fn new() -> Self {
        // The format wants the empty string first.
        Self {
            strings: vec![String::new()],
            known: HashMap::from([(String::new(), 0)]),
            locations: Vec::new(),
            functions: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        let number = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.push(text.to_owned());
        self.known.insert(text.to_owned(), number);
        number
    }

    fn location(&mut self, symbol: &pprof::Symbol) -> u64 {
        let file = symbol.filename.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        self.named(&symbol.name(), &file, i64::from(symbol.lineno.unwrap_or(0)))
    }

    fn named(&mut self, name: &str, file: &str, line: i64) -> u64 {
        let (name, file) = (self.string(name), self.string(file));
        if let Some(id) = self.places.get(&(name, file, line)) {
            return *id;
        }
        // Ids begin at 1: 0 means none.
        let id = self.locations.len() as u64 + 1;
        self.functions.push(Function { id, name, system_name: name, file });
        self.locations.push(Location { id, lines: vec![Line { function_id: id, line }] });
        self.places.insert((name, file, line), id);
        id
    }
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanoseconds: i64,
    #[prost(int64, tag = "10")]
    duration_nanoseconds: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_ids: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    file: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn burns_cpu(until: &AtomicBool) -> u64 {
        let mut sum = 0u64;
        while !until.load(Ordering::Relaxed) {
            sum = (0..1000).fold(sum, |sum, next| std::hint::black_box(sum ^ next));
        }
        sum
    }

    #[test]
    fn a_profile_names_what_is_busy_and_there_is_one_at_a_time() {
        let done = AtomicBool::new(false);
        let bytes = std::thread::scope(|scope| {
            scope.spawn(|| burns_cpu(&done));
            let first = scope.spawn(|| take(2));
            std::thread::sleep(Duration::from_millis(500));
            assert!(matches!(take(1), Err(ProfileError::Busy)));
            let bytes = first.join().unwrap().unwrap();
            done.store(true, Ordering::Relaxed);
            bytes
        });
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        assert_eq!(profile.strings[0], "");
        let name = |function: &Function| &profile.strings[usize::try_from(function.name).unwrap()];
        let names: Vec<_> = profile.functions.iter().map(name).collect();
        assert!(names.iter().any(|name| name.contains("burns_cpu")), "{names:?}");
        let cpu: i64 = profile.samples.iter().map(|sample| sample.values[1]).sum();
        assert!(cpu > 200_000_000, "{cpu} ns of CPU in 2 s");
        for sample in &profile.samples {
            let known = |id: &u64| (1..=profile.locations.len() as u64).contains(id);
            assert!(!sample.location_ids.is_empty() && sample.location_ids.iter().all(known));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for asked in [0, MAX_SECONDS + 1, u64::MAX] {
            assert!(matches!(take(asked), Err(ProfileError::Length { .. })), "{asked}");
        }
    }
}
