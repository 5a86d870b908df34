//! What traffic costs, as a cluster's `config.prices` says.
//!
//! Invariant: an amount is a whole number of millionths: sums are exact, and never overflow for any price accepted.

use crate::policy::PolicyError;
use serde_json::{Map, Value};

/// Highest price of a gigabyte: far above any, and far from where sums overflow.
pub const MAX_PER_GB: f64 = 1_000.0;
/// Of currency codes (ISO 4217: EUR, USD, CNY) and whatever people count in.
pub const MAX_CURRENCY_BYTES: usize = 8;
const MILLION: f64 = 1_000_000.0;
const GB: u128 = 1_000_000_000;

/// Prices of a decimal gigabyte, in millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    pub currency: String,
    /// What comes from origins: egress of the registry, NAT gateways.
    pub origin_per_gb: u64,
    /// What peers send to another zone.
    pub cross_zone_per_gb: u64,
}

impl Prices {
    /// # Errors
    /// An unknown key, no currency, or a price that is none; by its key.
    pub fn read(config: &Map<String, Value>) -> Result<Self, PolicyError> {
        let refuse =
            |name: &str, problem: String| Err(PolicyError { key: format!("prices.{name}"), problem });
        let (mut currency, mut origin, mut cross_zone) = (String::new(), 0, 0);
        for (name, value) in config {
            let price = || match value.as_f64() {
                Some(price) if (0.0..=MAX_PER_GB).contains(&price) => {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10^9")]
                    let millionths = (price * MILLION).round() as u64;
                    Ok(millionths)
                }
                _ => Err(shown(value)),
            };
            let wrong = |shown: String| format!("`{shown}` is no price of a gigabyte: 0 to {MAX_PER_GB}");
            match name.as_str() {
                "currency" => match value.as_str() {
                    Some(text) if is_currency(text) => text.clone_into(&mut currency),
                    _ => {
                        let shown = shown(value);
                        return refuse(name, format!("`{shown}` is no currency, for example EUR"));
                    }
                },
                "originPerGB" => match price() {
                    Ok(price) => origin = price,
                    Err(shown) => return refuse(name, wrong(shown)),
                },
                "crossZonePerGB" => match price() {
                    Ok(price) => cross_zone = price,
                    Err(shown) => return refuse(name, wrong(shown)),
                },
                _ => return refuse(name, "is no key: currency, originPerGB, crossZonePerGB".to_owned()),
            }
        }
        if currency.is_empty() {
            return refuse("currency", "is needed where there are prices, for example EUR".to_owned());
        }
        Ok(Self { currency, origin_per_gb: origin, cross_zone_per_gb: cross_zone })
    }

    /// What it saved that `avoided` bytes did not come from origins, less what `cross_zone` bytes between zones cost, in
    /// millionths.
    #[must_use]
    pub fn saved(&self, avoided: u64, cross_zone: u64) -> i64 {
        let cost = |bytes: u64, per_gb: u64| {
            i64::try_from(u128::from(bytes) * u128::from(per_gb) / GB).unwrap_or(i64::MAX)
        };
        cost(avoided, self.origin_per_gb).saturating_sub(cost(cross_zone, self.cross_zone_per_gb))
    }
}

fn is_currency(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CURRENCY_BYTES && text.chars().all(char::is_alphanumeric)
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: &Value) -> Result<Prices, String> {
        Prices::read(config.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn money_is_what_the_origin_would_have_cost_less_what_zones_cost() {
        let prices = read(&json!({"currency": "EUR", "originPerGB": 0.09, "crossZonePerGB": 0.01})).unwrap();
        assert_eq!((prices.origin_per_gb, prices.cross_zone_per_gb), (90_000, 10_000));
        assert_eq!(prices.saved(100_000_000_000, 50_000_000_000), 9_000_000 - 500_000);
        assert_eq!(prices.saved(0, 1_000_000_000), -10_000);
        let most = Prices { origin_per_gb: 1_000_000_000, ..prices };
        assert_eq!(most.saved(u64::MAX, 0), i64::MAX);
    }

    #[test]
    fn nonsense_is_named_by_its_key() {
        for (config, says) in [
            (json!({"originPerGB": 1}), "prices.currency: is needed"),
            (json!({"currency": ""}), "prices.currency: `\"\"`"),
            (json!({"currency": "<b>"}), "prices.currency: `\"<b>\"`"),
            (json!({"currency": "EUR", "originPerGB": -1}), "prices.originPerGB: `-1`"),
            (json!({"currency": "EUR", "originPerGB": "1"}), "prices.originPerGB: `\"1\"`"),
            (json!({"currency": "EUR", "crossZonePerGB": 1e9}), "prices.crossZonePerGB: `1000000000.0`"),
            (json!({"currency": "EUR", "originPerTB": 1}), "prices.originPerTB: is no key"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.starts_with(says), "{config}: {error}");
        }
    }
}
