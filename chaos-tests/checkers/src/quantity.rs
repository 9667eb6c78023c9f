//! Kubernetes' quantities (QTY-1), read in thousandths and rounded up.

use serde_json::Value;

/// Thousandths of the unit; none if it is no quantity.
pub(crate) fn milli(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    // Multiplied by this, and divided by ten to the power of that.
    let (factor, divided): (i128, u32) = match suffix {
        "" => (1, 0),
        "n" => (1, 9),
        "u" => (1, 6),
        "m" => (1, 3),
        "k" => (1_000, 0),
        "M" => (1_000_000, 0),
        "G" => (1_000_000_000, 0),
        "T" => (1_000_000_000_000, 0),
        "P" => (1_000_000_000_000_000, 0),
        "E" => (1_000_000_000_000_000_000, 0),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, exponent.unsigned_abs()) } else { (power, 0) }
        }
    };
    let thousandths = digits.checked_mul(factor)?.checked_mul(1_000)?;
    let divisor = 10_i128.checked_pow(places.checked_add(divided)?)?;
    let (quotient, rest) = (thousandths / divisor, thousandths % divisor);
    Some(if rest > 0 { quotient + 1 } else { quotient })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// QTY-1, QTY-3, QTY-6
    #[test]
    fn quantities_are_read_in_thousandths() {
        for (value, want) in [
            (json!("100m"), Some(100)),
            (json!("1.5"), Some(1_500)),
            (json!(2), Some(2_000)),
            (json!("64Mi"), Some(64 * 1024 * 1024 * 1_000)),
            (json!("1.5Gi"), Some(1_536 * 1024 * 1024 * 1_000)),
            (json!("1e3"), Some(1_000_000)),
            (json!("1E"), Some(1_000_000_000_000_000_000_000)),
            (json!("5e-1"), Some(500)),
            (json!("1u"), Some(1)),
            (json!("0"), Some(0)),
            (json!("0.1mi"), None),
            (json!("aoeu"), None),
            (json!(null), None),
        ] {
            assert_eq!(milli(&value), want, "{value}");
        }
    }
}
