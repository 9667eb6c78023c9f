//! Amounts such as `500m` and `1.5Gi` (QTY-1…QTY-6).

use std::{fmt, iter::Sum, ops};

/// An amount, exact to nano units, and how it likes to be written.
///
/// Compared by value: `1000m` equals `1` (QTY-5).
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The family of suffixes that an amount is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, …
    Binary,
    /// `m`, `k`, `M`, …
    Decimal,
    /// `e3`, `e6`, …
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
/// The largest magnitude that binary amounts keep: 2^63 − 1 units (QTY-3).
const BINARY_MAX: i128 = (i64::MAX as i128) * NANO;
/// The largest magnitude of all others: what 27 digits of units hold. Upstream has no limit there.
const MAX: i128 = 999_999_999_999_999_999_999_999_999 * NANO;
/// Digits of a number that are looked at; what is behind them only rounds up.
const DIGITS_MAX: usize = 36;

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
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// So many whole units.
    #[must_use]
    pub fn units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    /// So many thousandths, written as decimals.
    #[must_use]
    pub fn milli(thousandths: i64) -> Self {
        Self { nanos: i128::from(thousandths) * (NANO / 1000), format: Format::Decimal }
    }

    /// Whole units, rounded up (QTY-6).
    #[must_use]
    pub fn value(self) -> i64 {
        clamped(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up (QTY-6).
    #[must_use]
    pub fn milli_value(self) -> i64 {
        clamped(ceil_div(self.nanos, NANO / 1000))
    }

    /// Below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Zero, however it is written.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Without a fraction of a unit, after rounding to thousandths.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.milli_value() % 1000 == 0
    }

    /// Rounded up to thousandths, as resource lists are stored (DEF-1).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nanos: ceil_div(self.nanos, NANO / 1000) * (NANO / 1000), ..self }
    }

    fn with_nanos(self, nanos: i128) -> Self {
        let max = if self.format == Format::Binary { BINARY_MAX } else { MAX };
        Self { nanos: nanos.clamp(-max, max), ..self }
    }
}

// A sum is written as its first amount is; zero takes the other's form, so that sums may begin with it.
impl ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let form = if self.is_zero() { other } else { self };
        form.with_nanos(self.nanos + other.nanos)
    }
}

impl ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, ops::Add::add)
    }
}

fn clamped(value: i128) -> i64 {
    let bounded = value.clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(bounded).expect("clamped to the range of i64")
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
        let nanos = scaled(number, &scale).ok_or(QuantityError::Number)?;
        // Less than one unit has no binary form.
        let format =
            if format == Format::Binary && nanos < NANO { Format::Decimal } else { format };
        let unsigned = Self { nanos: 0, format }.with_nanos(nanos);
        Ok(if text.starts_with('-') { -unsigned } else { unsigned })
    }
}

/// A power of ten, or of two.
enum Scale {
    Ten(i32),
    Two(u32),
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 7] =
    [("", 0), ("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Ten(*power), Format::Decimal));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Two(*power), Format::Binary));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Scale::Ten(power), Format::Exponent))
}

/// Nano units of an unsigned number, rounded up; saturates.
fn scaled(number: &str, scale: &Scale) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let (kept, rest) = digits.split_at(digits.len().min(DIGITS_MAX));
    let mantissa: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    let more = rest.contains(|c| c != '0');
    let (two, ten) = match scale {
        Scale::Ten(power) => (0, *power),
        Scale::Two(power) => (*power, 0),
    };
    let point = i32::try_from(rest.len()).ok()? - i32::try_from(fraction.len()).ok()?;
    let power = ten.checked_add(9)?.checked_add(point)?;
    Some(multiplied(mantissa, two, power, more))
}

/// `mantissa · 2^two · 10^ten`, rounded up, also for what `more` says was cut off; saturates.
fn multiplied(mantissa: i128, two: u32, ten: i32, more: bool) -> i128 {
    if mantissa == 0 {
        return i128::from(more);
    }
    let by = 10i128.checked_pow(ten.unsigned_abs());
    if ten >= 0 {
        let scaled = by.and_then(|by| mantissa.checked_mul(by));
        return scaled.and_then(|v| v.checked_mul(1 << two)).unwrap_or(i128::MAX);
    }
    let Some(by) = by else { return 1 };
    // Whole and rest apart: their product with 2^60 does not fit at once.
    let (whole, rest) = (mantissa / by, mantissa % by);
    let Some(whole) = whole.checked_mul(1 << two) else { return i128::MAX };
    // `rest` is below 10^36; so much of it as fits is exact to far less than one nano unit.
    let mut rest = rest;
    let mut by = by;
    let mut cut = more;
    for _ in 0..two {
        if rest > i128::MAX / 2 {
            cut |= rest % 2 != 0;
            rest /= 2;
            by /= 2;
        }
        rest *= 2;
    }
    whole + rest / by + i128::from(rest % by != 0 || cut)
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
        if self.format == Format::Binary && nanos % NANO == 0 && nanos >= 1024 * NANO {
            let units = nanos / NANO;
            let largest = BINARY.iter().rev().find(|(_, power)| units % (1 << power) == 0);
            let (suffix, power) = largest.expect("the first power is 0, which divides all");
            return write!(f, "{}{suffix}", units >> power);
        }
        let (mut value, mut power) = (nanos, -9);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        if self.format == Format::Exponent {
            return if power == 0 { write!(f, "{value}") } else { write!(f, "{value}e{power}") };
        }
        let suffix = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

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
            ("-0", "0"),
            ("0.00001", "10u"),
            ("1025", "1025"),
            ("1025Ki", "1025Ki"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("1E-3", "1e-3"),
            ("100", "100"),
            ("1.", "1"),
            (".5", "500m"),
            ("+5k", "5k"),
            ("-5k", "-5k"),
            ("0.5Ki", "512"),
            ("0.5Gi", "512Mi"),
            ("1.1Ki", "1126400m"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("1.0000000000000000000000000000000000000001", "1000000001n"),
            ("1.00000000000000000000000000000000000000000000", "1"),
            ("0.00000000000000000000000000000000000000000001E", "1n"),
            ("1e-40", "1e-9"),
            ("100E", "100E"),
            ("8Ei", "9223372036854775807"),
            ("7.5Ei", "7680Pi"),
            ("12e1", "120"),
            ("120e4", "1200e3"),
            ("1.0000001Ei", "1152921619898997436684697600n"),
            ("1152921619898997436684697600n", "1152921619898997436684697600n"),
            ("10000000000000000000000000000000000000000e-40", "1"),
        ] {
            assert_eq!(parsed(text).to_string(), want, "{text}");
        }
        assert_eq!(parsed("0.0001").rounded_to_milli().to_string(), "1m", "DEF-1");
        assert_eq!(parsed("-0.0001").rounded_to_milli().to_string(), "-1m", "away from zero");
    }

    #[test]
    fn sums_keep_the_form_of_their_first_amount() {
        // §1.3: 1024 + 1 is not 1Ki any more
        assert_eq!((parsed("1Ki") + Quantity::units(1, Format::Decimal)).to_string(), "1025");
        assert_eq!((parsed("1023Ki") + parsed("1Ki")).to_string(), "1Mi");
        assert_eq!((parsed("1") - parsed("1500m")).to_string(), "-500m");
        assert_eq!([parsed("1Gi"), parsed("1Gi")].into_iter().sum::<Quantity>().to_string(), "2Gi");
        assert_eq!(Quantity::milli(1500).to_string(), "1500m");
        assert_eq!((parsed("7Ei") + parsed("7Ei")).value(), i64::MAX, "QTY-3");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        // QTY-2
        use QuantityError::{Format, Number, Suffix};
        for (text, want) in [
            ("1.1.M", Number),
            ("1+1.0M", Format),
            ("0.1mi", Suffix),
            ("1i", Suffix),
            ("aoeu", Format),
            ("-3.01e-", Suffix),
            (" 1", Format),
            ("1 ", Format),
            ("", Format),
            ("-", Format),
            (".", Number),
            ("1K", Suffix),
            ("1KI", Format),
            ("1e3.5", Format),
            ("1e99999999999", Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(want), "{text:?}");
        }
    }

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        // QTY-1, QTY-5, QTY-6
        for (a, b) in [("1000m", "1"), ("1Ki", "1024"), ("1e3", "1k"), ("1E", "1e18"), ("0", "0Ki")]
        {
            assert_eq!(parsed(a), parsed(b), "{a} {b}");
        }
        assert_eq!((parsed("1.5").value(), parsed("1.5").milli_value()), (2, 1500));
        assert_eq!((parsed("0.0001").value(), parsed("0.0001").milli_value()), (1, 1));
        assert!(parsed("1e100").value() == i64::MAX && parsed("-1e100").value() == i64::MIN);
    }

    fn amount() -> impl Strategy<Value = String> {
        let suffix = proptest::sample::select(vec![
            "n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
            "e0", "e3", "E-3", "e9", "e+1",
        ]);
        ("[+-]?", "[0-9]{1,9}", "(\\.[0-9]{0,12})?", suffix)
            .prop_map(|(sign, whole, fraction, suffix)| format!("{sign}{whole}{fraction}{suffix}"))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_amount_and_is_final(text in amount()) {
            let quantity = parsed(&text);
            let written = quantity.to_string();
            prop_assert_eq!(parsed(&written), quantity);
            prop_assert_eq!(parsed(&written).to_string(), written);
        }

        #[test]
        fn order_is_that_of_the_numbers(a in amount(), b in -1_000_000i64..1_000_000) {
            let a = parsed(&a);
            let whole = Quantity::units(b, Format::Decimal);
            prop_assert_eq!(a > whole, (a - whole) > Quantity::ZERO);
            prop_assert_eq!(a <= whole, a - whole <= Quantity::ZERO);
            if whole >= a {
                prop_assert!(a.value() <= b, "rounding up stays below a whole number above");
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+.0-9eEinumkKMGTP ]{0,60}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
