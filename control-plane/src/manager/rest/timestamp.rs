//! Points in time as RFC 3339 in UTC, to the second: `2026-11-25T17:00:00Z`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::time::{Duration, UNIX_EPOCH};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// 9999-12-31T23:59:59Z, the last one that RFC 3339 can write.
const LAST: i64 = 253_402_300_799;

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(pub(super) i64);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = u64::try_from(self.0.clamp(0, LAST)).unwrap_or_default();
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        serializer.collect_str(&humantime::format_rfc3339_seconds(time))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused = || {
            let shown: String = text.chars().take(64).collect();
            de::Error::custom(format!("`{shown}` is no time such as 2026-11-25T17:00:00Z"))
        };
        let time = humantime::parse_rfc3339(&text).map_err(|_| refused())?;
        let seconds = time.duration_since(UNIX_EPOCH).map_err(|_| refused())?.as_secs();
        i64::try_from(seconds).map(Self).map_err(|_| refused())
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        let format = Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
        RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(format).into())
    }
}

impl ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn written_and_read_in_utc() {
        assert_eq!(to_value(Timestamp(1_764_090_000)).unwrap(), json!("2025-11-25T17:00:00Z"));
        let back: Timestamp = from_value(json!("2025-11-25T17:00:00.9Z")).unwrap();
        assert_eq!(back, Timestamp(1_764_090_000));
        assert_eq!(to_value(Timestamp(i64::MAX)).unwrap(), json!("9999-12-31T23:59:59Z"));
        assert_eq!(to_value(Timestamp(-1)).unwrap(), json!("1970-01-01T00:00:00Z"));
        for wrong in [json!("yesterday"), json!("2025-11-25"), json!(7), json!("1969-01-01T00:00:00Z")] {
            assert!(from_value::<Timestamp>(wrong).is_err());
        }
    }
}
