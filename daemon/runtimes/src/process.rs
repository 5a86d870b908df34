//! The runtimes' and the daemon's running processes, as `/proc` shows them: since when, with which arguments and
//! which proxy variables.
//!
//! Invariant: only processes in our own network namespace count: others have another loopback, and with it
//! another mirror.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// `/proc` counts in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;
/// Field of `/proc/PID/stat` with the start, counted behind the name's closing parenthesis.
const START_FIELD: usize = 19;

#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) started: SystemTime,
    pub(crate) arguments: Vec<String>,
    /// Variables about proxies, as set.
    pub(crate) proxy: Vec<(String, String)>,
}

impl Process {
    /// The value of `--name VALUE`, `--name=VALUE` or a short form.
    pub(crate) fn option(&self, names: &[&str]) -> Option<&str> {
        let mut arguments = self.arguments.iter().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.split_once('=') {
                Some((name, value)) if names.contains(&name) => return Some(value),
                None if names.contains(&argument.as_str()) => return arguments.next().map(String::as_str),
                _ => {}
            }
        }
        None
    }

    /// The proxy it uses for HTTPS, which is how registries are reached.
    pub(crate) fn https_proxy(&self) -> Option<&(String, String)> {
        self.proxy.iter().find(|(name, value)| name.eq_ignore_ascii_case("https_proxy") && !value.is_empty())
    }

    pub(crate) fn http_proxy(&self) -> Option<&(String, String)> {
        self.proxy.iter().find(|(name, value)| name.eq_ignore_ascii_case("http_proxy") && !value.is_empty())
    }

    pub(crate) fn no_proxy(&self) -> Vec<&str> {
        let set = self.proxy.iter().filter(|(name, _)| name.eq_ignore_ascii_case("no_proxy"));
        set.flat_map(|(_, value)| value.split(',')).map(str::trim).collect()
    }
}

/// Those with one of these names.
pub(crate) fn running(names: &[&str]) -> Vec<Process> {
    let namespace = fs::read_link("/proc/thread-self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok() == namespace;
    let mut found: Vec<Process> = pids.filter(ours).filter_map(|pid| read(pid, names)).collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn read(pid: u32, names: &[&str]) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let name = fs::read_to_string(dir.join("comm")).ok()?.trim().to_owned();
    if !names.contains(&name.as_str()) {
        return None;
    }
    let words = |file: &str| -> Vec<String> {
        let bytes = fs::read(dir.join(file)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let proxy = words("environ").into_iter().filter_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        name.to_ascii_lowercase().ends_with("_proxy").then(|| (name.to_owned(), value.to_owned()))
    });
    Some(Process { name, pid, started: started(&stat)?, arguments: words("cmdline"), proxy: proxy.collect() })
}

fn started(stat: &str) -> Option<SystemTime> {
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(START_FIELD)?.parse().ok()?;
    let after_boot = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
    SystemTime::now().checked_sub(uptime)?.checked_add(after_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_process_that_began_lately() {
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        let found = running(&[comm.trim()]);
        let own = found.iter().find(|process| process.pid == std::process::id()).unwrap();
        let age = SystemTime::now().duration_since(own.started).unwrap_or_default();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(!own.arguments.is_empty());
    }

    #[test]
    fn options_in_both_forms() {
        let process = |words: &str| Process {
            name: String::new(),
            pid: 1,
            started: SystemTime::UNIX_EPOCH,
            arguments: words.split(' ').map(str::to_owned).collect(),
            proxy: vec![("NO_PROXY".to_owned(), "10.0.0.0/8, .corp".to_owned())],
        };
        for words in
            ["containerd --log-level debug --config /x", "containerd -c /x", "containerd --config=/x"]
        {
            assert_eq!(process(words).option(&["--config", "-c"]), Some("/x"), "{words}");
        }
        assert_eq!(process("containerd").option(&["--config"]), None);
        assert_eq!(process("x").no_proxy(), ["10.0.0.0/8", ".corp"]);
        assert!(process("x").https_proxy().is_none());
    }
}
