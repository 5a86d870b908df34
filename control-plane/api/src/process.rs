//! What the kernel says of this process, for its metrics, under the names that every Prometheus client uses.
//!
//! Invariant: read when scraped; what cannot be read is left out.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::fs;

/// Fields of `/proc/self/stat` after the command's name (proc(5)), counted from the state as 0.
const UTIME: usize = 11;
const STIME: usize = 12;
/// Clock ticks per second: `USER_HZ`, which is 100 on every architecture Hawker runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory and file descriptors of this process.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat))
        {
            let help = "User and system CPU time";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|status| resident(&status))
        {
            let help = "Resident memory, shared pages of files included";
            let name = "process_resident_memory_bytes";
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(metric)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let help = "Open file descriptors";
            let metric = encoder.encode_descriptor("process_open_fds", help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name may hold anything, a parenthesis too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u32>().ok();
    Some((f64::from(ticks(UTIME)?) + f64::from(ticks(STIME)?)) / TICKS_PER_SECOND)
}

fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn figures_are_read_from_where_the_kernel_puts_them() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 1 0 99 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!((cpu_seconds("7 (a) S"), resident("VmRSS: x")), (None, None));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
    }
}
