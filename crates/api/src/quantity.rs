//! Amounts such as `500m` and `1.5Gi` (QTY-1…QTY-6).

use std::fmt;

/// An amount, exact to nano units, and how it likes to be written.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// Why a text is no amount (QTY-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Wrong characters or order.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The part behind the number.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number.
    #[error("unable to parse numeric part of quantity")]
    Number,
}

const NANO: i128 = 1_000_000_000;
/// The largest magnitude kept: 2^63 − 1 units.
const MAX: i128 = (i64::MAX as i128) * NANO;

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Quantity {
    /// Whole units, rounded up (QTY-6).
    #[must_use]
    pub fn value(self) -> i64 {
        i64::try_from(ceil_div(self.nanos, NANO)).unwrap_or(i64::MAX)
    }

    /// Thousandths, rounded up (QTY-6).
    #[must_use]
    pub fn milli_value(self) -> i64 {
        i64::try_from(ceil_div(self.nanos, NANO / 1000)).unwrap_or(i64::MAX)
    }

    /// Below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Rounded up to thousandths, as resource lists are stored (DEF-1).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nanos: ceil_div(self.nanos, NANO / 1000) * (NANO / 1000), ..self }
    }
}

/// Away from zero, as upstream rounds.
fn ceil_div(value: i128, by: i128) -> i128 {
    let up = i128::from(value % by != 0) * value.signum();
    value / by + up
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let split = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = unsigned.split_at(split.unwrap_or(unsigned.len()));
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
        if number.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        let (scale, format) = scale(suffix).ok_or(QuantityError::Suffix)?;
        let nanos = scaled(number, scale).ok_or(QuantityError::Number)?.min(MAX);
        let format =
            if format == Format::Binary && nanos < NANO { Format::Decimal } else { format };
        Ok(Self { nanos: if text.starts_with('-') { -nanos } else { nanos }, format })
    }
}

/// A power of ten, or of two.
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    let decimal = |power| Some((Scale::Ten(power), Format::Decimal));
    let binary = |power| Some((Scale::Two(power), Format::Binary));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((Scale::Ten(power), Format::Exponent))
        }
    }
}

/// Nano units of an unsigned number, rounded up; saturates.
fn scaled(number: &str, scale: Scale) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.len() > 30 {
        return Some(i128::MAX);
    }
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let fraction_digits = i32::try_from(fraction.len()).ok()?;
    let (two, ten) = match scale {
        Scale::Ten(power) => (0, power),
        Scale::Two(power) => (power, 0),
    };
    let value = mantissa.checked_mul(1i128.checked_shl(two)?).unwrap_or(i128::MAX);
    let ten = ten + 9 - fraction_digits;
    if ten >= 0 {
        let factor = 10i128.checked_pow(ten.unsigned_abs()).unwrap_or(i128::MAX);
        return Some(value.checked_mul(factor).unwrap_or(i128::MAX));
    }
    Some(
        10i128
            .checked_pow(ten.unsigned_abs())
            .map_or(i128::from(value > 0), |by| ceil_div(value, by)),
    )
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.abs();
        let whole = nanos % NANO == 0;
        if self.format == Format::Binary && whole && nanos / NANO >= 1024 {
            let units = nanos / NANO;
            let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut value, mut at) = (units, 0);
            while value % 1024 == 0 && at + 1 < suffixes.len() {
                value /= 1024;
                at += 1;
            }
            return write!(f, "{value}{}", suffixes.get(at).unwrap_or(&""));
        }
        let (mut value, mut power) = (nanos, -9);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        if self.format == Format::Exponent {
            return if power == 0 { write!(f, "{value}") } else { write!(f, "{value}e{power}") };
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_their_canonical_form() {
        // §1.3
        for (text, want) in [
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000M", "1G"),
            (".001Ki", "1024m"),
            (".000000000001Ki", "2n"),
            ("1e9", "1e9"),
            (".001e12", "1e9"),
            ("00", "0"),
            ("0Gi", "0"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("-500m", "-500m"),
            ("0.5Gi", "512Mi"),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["1.1.M", "1+1.0M", "0.1mi", "1i", "aoeu", "-3.01e-", " 1", "1 ", "", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("1000m"), parse("1"));
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!(parse("0.0001").rounded_to_milli().to_string(), "1m");
        assert_eq!((parse("100m").milli_value(), parse("1.2").value()), (100, 2));
    }
}
