//! What is in a linked eBPF object: just enough of ELF to list its programs and maps.
//!
//! Invariant: a file that is cut short or no ELF is an error, never a panic.

use anyhow::{Context, Result, ensure};
use std::fmt::Write;

/// Section and symbol table entries of 64-bit ELF, bytes.
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SYMBOL_TABLE: usize = 2;
const KIND_OBJECT: usize = 1;
const KIND_FUNCTION: usize = 2;

struct Section {
    name: usize,
    kind: usize,
    offset: usize,
    bytes: usize,
    link: usize,
}

/// A line for each program and for the maps.
pub(crate) fn summary(object: &[u8]) -> Result<String> {
    ensure!(object.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let sections = sections(object).context("read the section headers")?;
    let names_at = number::<2>(object, 62).context("read the header")?;
    let names = sections.get(names_at).context("no section of names")?;
    let symbols = sections.iter().find(|section| section.kind == SYMBOL_TABLE).context("no symbols")?;
    let strings = sections.get(symbols.link).context("no names of symbols")?;
    let (mut programs, mut maps) = (String::new(), Vec::new());
    for at in (symbols.offset..symbols.offset.saturating_add(symbols.bytes)).step_by(SYMBOL_BYTES) {
        let symbol = |offset: usize| at + offset;
        let (Some(name), Some(kind), Some(section), Some(bytes)) = (
            number::<4>(object, symbol(0)),
            number::<1>(object, symbol(4)),
            number::<2>(object, symbol(6)),
            number::<8>(object, symbol(16)),
        ) else {
            break;
        };
        let Some(section) = sections.get(section) else { continue };
        let name = string(object, strings.offset.saturating_add(name));
        let section = string(object, names.offset.saturating_add(section.name));
        match kind & 15 {
            KIND_FUNCTION if section != ".text" => {
                writeln!(programs, "program {name}: {section}, {} instructions", bytes / 8)?;
            }
            KIND_OBJECT if section == ".maps" => maps.push(name),
            _ => {}
        }
    }
    Ok(format!("{programs}maps {}\n", maps.join(" ")))
}

fn sections(object: &[u8]) -> Option<Vec<Section>> {
    let (start, count) = (number::<8>(object, 40)?, number::<2>(object, 60)?);
    (0..count)
        .map(|index| {
            let at = start.checked_add(index * SECTION_BYTES)?;
            Some(Section {
                name: number::<4>(object, at)?,
                kind: number::<4>(object, at + 4)?,
                offset: number::<8>(object, at + 24)?,
                bytes: number::<8>(object, at + 32)?,
                link: number::<4>(object, at + 40)?,
            })
        })
        .collect()
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(object: &[u8], at: usize) -> Option<usize> {
    let bytes = object.get(at..at.checked_add(N)?)?;
    usize::try_from(bytes.iter().rev().fold(0u64, |number, byte| (number << 8) | u64::from(*byte))).ok()
}

fn string(object: &[u8], at: usize) -> String {
    let rest = object.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(summary(b"").is_err());
        assert!(summary(b"\x7fELF\x02\x01").is_err());
        let mut cut = vec![0; 64];
        cut[..6].copy_from_slice(b"\x7fELF\x02\x01");
        cut[40] = 0xff;
        cut[60] = 9;
        assert!(summary(&cut).is_err());
    }
}
