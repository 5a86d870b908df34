//! What the doctor says: findings with their evidence, the canary's result, as text and as JSON.
//!
//! Invariant: the exit code is 1 exactly if there is a fault.

use super::catalog::{Check, Severity};
use serde::Serialize;
use std::fmt;

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The word under which it is documented.
    pub check: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    /// Where that shows: `file:line`, or what was asked and answered.
    pub evidence: String,
    pub fix: &'static str,
}

impl Finding {
    pub(super) fn new(check: &Check, evidence: impl Into<String>) -> Self {
        let Check { id, severity, title, fix } = *check;
        Self { check: id, severity, title, evidence: evidence.into(), fix }
    }

    /// The same, less certain.
    pub(super) fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

/// A pull for proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Canary {
    pub image: String,
    /// The manifest's digest.
    pub digest: String,
    pub bytes: u64,
    /// Where the daemon says the bytes came from.
    pub sources: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at and found good, in words.
    pub good: Vec<String>,
    pub findings: Vec<Finding>,
    pub canary: Option<Canary>,
}

impl Report {
    #[must_use]
    pub fn faults(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Fault).count()
    }

    /// 0: the mirror is used; 1: it is not, or not always.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.faults() > 0)
    }

    /// For programs: `{"ok": …, "good": […], "findings": […], "canary": …}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["ok"] = (self.faults() == 0).into();
        value
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.good.iter().try_for_each(|good| writeln!(f, "ok       {good}"))?;
        if let Some(Canary { image, digest, bytes, sources }) = &self.canary {
            writeln!(f, "ok       canary: {bytes} bytes of {image} through the mirror, digest {digest}")?;
            for (source, bytes) in sources.iter().filter(|(_, bytes)| *bytes > 0) {
                writeln!(f, "         {bytes} bytes from {source}")?;
            }
        }
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for Finding { check, severity, title, evidence, fix } in findings {
            let word = match severity {
                Severity::Fault => "FAULT  ",
                Severity::Warning => "warning",
                Severity::Note => "note   ",
            };
            writeln!(f, "{word}  {check}: {title}\n         {evidence}\n         fix: {fix}")?;
        }
        match self.faults() {
            0 => writeln!(f, "no faults: pulls of mirrored registries go through Hawker"),
            1 => writeln!(f, "1 fault"),
            faults => writeln!(f, "{faults} faults"),
        }
    }
}
