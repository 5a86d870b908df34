//! Sizes and rates as people write them in configuration files: `80GiB`, `100Mbps`, `12.5MB/s`.
//!
//! Invariant: a rate is bytes per second and 0 means "no limit"; a number without a unit is bytes
//! (or bytes per second), never guessed otherwise.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Bytes per second; 0 is "no limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// Why a text is no size or rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: write {example}")]
pub struct UnitError {
    given: String,
    what: &'static str,
    example: &'static str,
}

const SIZE_UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

const BIT_RATE_UNITS: &[(&str, f64)] = &[
    ("bps", 0.125),
    ("kbps", 125.0),
    ("Kbps", 125.0),
    ("Mbps", 125e3),
    ("Gbps", 125e6),
    ("bit/s", 0.125),
    ("kbit/s", 125.0),
    ("Mbit/s", 125e3),
    ("Gbit/s", 125e6),
];

/// Largest value taken: 2^53, above which a double is not exact.
const MAX_VALUE: f64 = 9_007_199_254_740_992.0;

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, |unit| lookup(SIZE_UNITS, unit)).map(ByteSize).ok_or_else(|| UnitError {
            given: text.to_owned(),
            what: "size",
            example: "4MiB, 80GiB, 10GB or a number of bytes",
        })
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let factor = |unit: &str| {
            lookup(BIT_RATE_UNITS, unit)
                .or_else(|| lookup(SIZE_UNITS, unit.strip_suffix("/s")?))
                .or_else(|| unit.is_empty().then_some(1.0))
        };
        parse(text, factor).map(Rate).ok_or_else(|| UnitError {
            given: text.to_owned(),
            what: "rate",
            example: "100Mbps, 12.5MB/s, a number of bytes per second, or 0 for no limit",
        })
    }
}

fn lookup(units: &[(&str, f64)], unit: &str) -> Option<f64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

fn parse(text: &str, factor: impl Fn(&str) -> Option<f64>) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let value = number.parse::<f64>().ok()? * factor(unit.trim())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
    (0.0..=MAX_VALUE).contains(&value).then(|| value.ceil() as u64)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s", self.0)
    }
}

/// A YAML scalar: sizes may be written with or without quotes, as text or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

macro_rules! serde_by_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Scalar::deserialize(deserializer)? {
                    Scalar::Number(value) => Ok(Self(value)),
                    Scalar::Text(text) => text.parse().map_err(D::Error::custom),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

serde_by_text!(ByteSize, Rate);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_understood() {
        for (text, bytes) in
            [("4MiB", 4 << 20), ("80 GiB", 80 << 30), ("10GB", 10_000_000_000), ("0", 0), ("7", 7)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, bytes) in
            [("100Mbps", 12_500_000), ("12.5MB/s", 12_500_000), ("1Gbit/s", 125_000_000), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "-1", "4 mib", "1e9", "NaN", "4MiB/s", "99999999999999999999GB", "1.2.3"] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("80GiB"), "{text}: {error}");
        }
        for text in ["fast", "100Mb", "5GB/h"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(bytes in 0u64..1 << 50) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            prop_assert_eq!(Rate(bytes).to_string().parse(), Ok(Rate(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Rate>();
        }
    }
}
