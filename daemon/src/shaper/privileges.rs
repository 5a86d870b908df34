//! Whether this process may and this kernel can: asked before trying, so that a refusal has a reason people can act on.
//!
//! Invariant: nothing is changed here.

/// What the programs were measured to need; any one less and a load or an attach is refused.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Includes the three.
const CAP_SYS_ADMIN: u32 = 21;
/// The oldest kernel that has all the programs use (atomic instructions that return the old value).
const OLDEST: (u32, u32) = (5, 12);

/// Why eBPF cannot be had here; `None`: it is worth trying.
pub(super) fn missing() -> Option<String> {
    match kernel_version() {
        Some(version) if version < OLDEST => {
            return Some(format!(
                "Linux {}.{} is older than {}.{}",
                version.0, version.1, OLDEST.0, OLDEST.1
            ));
        }
        _ => {}
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    lacking(effective(&status)?)
}

/// Major and minor version of the running kernel.
pub(super) fn kernel_version() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    version(&release)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-']);
    Some((parts.next()?.trim().parse().ok()?, parts.next()?.trim().parse().ok()?))
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lacking(effective: u64) -> Option<String> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) && has(NEEDED[0].0) {
        return None;
    }
    let lacking: Vec<&str> = NEEDED.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect();
    (!lacking.is_empty()).then(|| format!("the process lacks {}", lacking.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        assert_eq!(lacking(all), None);
        assert_eq!(lacking(all & !(1 << 38)), Some("the process lacks CAP_PERFMON".to_owned()));
        assert!(lacking(0).is_some_and(|text| text.contains("CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF")));
        assert_eq!(lacking(1 << 21 | 1 << 12), None);
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("nothing"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version("5.10\n"), Some((5, 10)));
        assert_eq!(version("six"), None);
        assert!((5, 9) < OLDEST);
    }
}
