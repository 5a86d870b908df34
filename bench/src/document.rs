//! Results as JSON files with one element a line, so that a later run shows as a small difference.
//!
//! Invariant: figures are rounded to four digits, which is more than they are worth.

use serde::Serialize;
use serde_json::Value;
use std::io;

/// The whole file.
pub(crate) fn text(bench: &str, parts: &[(&str, Value)]) -> String {
    let parts: Vec<String> =
        parts.iter().map(|(name, part)| format!("\"{name}\": {}", lines(part))).collect();
    format!("{{\n\"bench\": \"{bench}\",\n{}\n}}\n", parts.join(",\n"))
}

/// A part of the file, rounded.
pub(crate) fn value(part: &impl Serialize) -> io::Result<Value> {
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
    fn figures_have_four_digits_and_elements_their_lines() {
        let value = value(&serde_json::json!({ "a": [1.234_567, 12_345.67], "b": 7 })).unwrap();
        assert_eq!(value.to_string(), r#"{"a":[1.235,12350.0],"b":7}"#);
        let text = text("x", &[("cells", serde_json::json!([1, 2]))]);
        assert_eq!(text, "{\n\"bench\": \"x\",\n\"cells\": [\n  1,\n  2\n]\n}\n");
    }
}
