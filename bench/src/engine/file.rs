//! The results as files: JSON with one cell a line, so that a later run shows as a small difference, and the
//! chart beside it.
//!
//! Invariant: figures are rounded to four digits, which is more than they are worth.

use super::{EngineReport, chart};
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::path::Path;

impl EngineReport {
    /// Writes `engine.json` and `engine.svg` into `dir`.
    ///
    /// # Errors
    /// A file cannot be written, or the chart not be drawn.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("engine.json"), self.text()?)?;
        std::fs::write(dir.join("engine.svg"), chart::draw(self).map_err(io::Error::other)?)
    }

    fn text(&self) -> io::Result<String> {
        let parts = [
            ("machine", value(&self.machine)?),
            ("conditions", value(&self.conditions)?),
            ("errors", value(&self.errors)?),
            ("scenarios", value(&self.scenarios)?),
            ("cells", value(&self.cells)?),
        ];
        let parts: Vec<String> =
            parts.iter().map(|(name, part)| format!("\"{name}\": {}", lines(part))).collect();
        Ok(format!("{{\n\"bench\": \"engine\",\n{}\n}}\n", parts.join(",\n")))
    }
}

fn value(part: &impl Serialize) -> io::Result<Value> {
    let mut value = serde_json::to_value(part)?;
    round(&mut value);
    Ok(value)
}

/// Elements of an array on lines of their own.
fn lines(part: &Value) -> String {
    match part {
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(|element| format!("  {element}")).collect();
            format!("[\n{}\n]", elements.join(",\n"))
        }
        other => other.to_string(),
    }
}

fn round(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().and_then(|exact| format!("{exact:.3e}").parse::<f64>().ok());
            *value = rounded.map_or(Value::Null, Value::from);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits() {
        let value = value(&serde_json::json!({ "a": [1.234_567, 12_345.67], "b": 7 })).unwrap();
        assert_eq!(value.to_string(), r#"{"a":[1.235,12350.0],"b":7}"#);
    }
}
