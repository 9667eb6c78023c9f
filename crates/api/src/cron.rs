//! Times at which a CronJob runs: `*/5 * * * *` in a time zone (CJ-1, CJ-6).

use jiff::{
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};
use std::{fmt, num::IntErrorKind, str::FromStr};

/// How many days ahead a next time is looked for: two leap years apart, over the turn of a century.
const DAYS_AHEAD: i32 = 9 * 366;

/// A time zone by its IANA name. The rules are part of the program, so that every replica and every
/// machine has the same.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// Such as `Europe/Berlin`; `None` for a name that is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        jiff::tz::TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    /// Where a CronJob without a zone runs.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }
}

/// A parsed schedule: five fields, or a name such as `@daily`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Times);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Times {
    Fields {
        minutes: Field,
        hours: Field,
        days: Field,
        months: Field,
        weekdays: Field,
    },
    /// So many seconds after the last one.
    Every(i64),
}

/// A set of numbers, one bit each, and whether a `*` made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|n| self.bits.checked_shr(n).is_some_and(|b| b & 1 == 1))
    }
}

/// Why a text is no schedule, in the words of the library that upstream reads it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError(String);

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScheduleError {}

/// What a field may say.
struct Bounds {
    min: u32,
    max: u32,
    /// Names of the numbers from `min` on.
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds =
    Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Names for whole schedules.
const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = match text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            None => text,
            Some(rest) => {
                let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                if Zone::named(zone).is_none() {
                    let wrong = format!("provided bad location {zone}: unknown time zone {zone}");
                    return Err(ScheduleError(wrong));
                }
                rest.trim()
            }
        };
        if text.starts_with('@') {
            if let Some(every) = text.strip_prefix("@every ") {
                return every_seconds(every)
                    .map(|seconds| Self(Times::Every(seconds)))
                    .ok_or_else(|| ScheduleError(format!("failed to parse duration {text}")));
            }
            return match DESCRIPTORS.iter().find(|(name, _)| *name == text) {
                Some((_, fields)) => fields.parse(),
                None => Err(ScheduleError(format!("unrecognized descriptor: {text}"))),
            };
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            let (count, all) = (fields.len(), fields.join(" "));
            let wrong = format!("expected exactly 5 fields, found {count}: [{all}]");
            return Err(ScheduleError(wrong));
        };
        Ok(Self(Times::Fields {
            minutes: field(minutes, &MINUTES)?,
            hours: field(hours, &HOURS)?,
            days: field(days, &DAYS)?,
            months: field(months, &MONTHS)?,
            weekdays: field(weekdays, &WEEKDAYS)?,
        }))
    }
}

/// Whole seconds, at least one, of a duration such as `1h30m`.
fn every_seconds(text: &str) -> Option<i64> {
    let mut seconds: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let (scale, after) = [("h", 3600), ("m", 60), ("s", 1)]
            .into_iter()
            .find_map(|(unit_name, scale)| Some((scale, unit.strip_prefix(unit_name)?)))?;
        seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(scale)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(seconds.max(1))
}

/// A list of ranges such as `1-5,*/10`.
fn field(text: &str, bounds: &Bounds) -> Result<Field, ScheduleError> {
    let mut all = Field { bits: 0, any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let part = range(part, bounds).map_err(ScheduleError)?;
        all = Field { bits: all.bits | part.bits, any: all.any || part.any };
    }
    Ok(all)
}

/// `*`, `3`, `mon-fri`, each with a step or without.
fn range(text: &str, bounds: &Bounds) -> Result<Field, String> {
    let (numbers, step) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [numbers] => (*numbers, None),
        [numbers, step] => (*numbers, Some(unsigned(step)?)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let limits: Vec<&str> = numbers.split('-').collect();
    let (from, mut to, is_one, mut any) = match limits.as_slice() {
        ["*" | "?", ..] => (bounds.min, bounds.max, limits.len() == 1, true),
        [one] => {
            let one = named(one, bounds)?;
            (one, one, true, false)
        }
        [from, to] => (named(from, bounds)?, named(to, bounds)?, false, false),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    if let Some(step) = step {
        // A number with a step goes on to the end.
        if is_one {
            to = bounds.max;
        }
        any &= step <= 1;
    }
    let step = step.unwrap_or(1);
    if from < bounds.min {
        return Err(format!("beginning of range ({from}) below minimum ({}): {text}", bounds.min));
    }
    if to > bounds.max {
        return Err(format!("end of range ({to}) above maximum ({}): {text}", bounds.max));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let mut bits = 0;
    let mut at = from;
    while at <= to {
        bits |= 1_u64 << at;
        at = at.saturating_add(step);
    }
    Ok(Field { bits, any })
}

fn named(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(bounds.min + u32::try_from(at).unwrap_or_default()),
        None => unsigned(text),
    }
}

fn unsigned(text: &str) -> Result<u32, String> {
    if let Some(number) = text.strip_prefix('-').and_then(|digits| digits.parse::<u32>().ok()) {
        return Err(format!("negative number (-{number}) not allowed: {text}"));
    }
    text.parse().map_err(|error: std::num::ParseIntError| {
        let too_large = *error.kind() == IntErrorKind::PosOverflow;
        let why = if too_large { "value out of range" } else { "invalid syntax" };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}")
    })
}

impl Schedule {
    /// The first time after `after`, both in seconds since the Unix epoch; `None` if there is none, as
    /// of 30 February.
    ///
    /// A time that the clock skips is not made up for. One that it shows twice counts once, the first
    /// time: a schedule that names it means one run.
    #[must_use]
    pub fn next(&self, after: i64, zone: &Zone) -> Option<i64> {
        let (minutes, hours, days, months, weekdays) = match &self.0 {
            Times::Every(seconds) => return after.checked_add(*seconds),
            Times::Fields { minutes, hours, days, months, weekdays } => {
                (minutes, hours, days, months, weekdays)
            }
        };
        let start = jiff::Timestamp::from_second(after).ok()?.to_zoned(zone.0.clone()).datetime();
        let mut date = start.date();
        for _ in 0..DAYS_AHEAD {
            if months.has(date.month()) && day_is_in(date, *days, *weekdays) {
                for hour in (0..24).filter(|hour| hours.has(*hour)) {
                    for minute in (0..60).filter(|minute| minutes.has(*minute)) {
                        let at = DateTime::from_parts(date, Time::new(hour, minute, 0, 0).ok()?);
                        if let Some(found) = instant(at, zone).filter(|found| *found > after) {
                            return Some(found);
                        }
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

/// If both a day of the month and a day of the week are said, either will do.
fn day_is_in(date: Date, days: Field, weekdays: Field) -> bool {
    let day = days.has(date.day());
    let weekday = weekdays.has(date.weekday().to_sunday_zero_offset());
    if days.any || weekdays.any { day && weekday } else { day || weekday }
}

/// The first moment at which clocks show this; `None` if they skip it.
fn instant(at: DateTime, zone: &Zone) -> Option<i64> {
    let ambiguous = zone.0.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        jiff::tz::AmbiguousOffset::Gap { .. } => None,
        jiff::tz::AmbiguousOffset::Unambiguous { .. } | jiff::tz::AmbiguousOffset::Fold { .. } => {
            ambiguous.earlier().ok().map(jiff::Timestamp::as_second)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{parse_time, time};

    #[test]
    fn schedules_are_refused_with_upstreams_words() {
        // CJ-1
        for (text, want) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("", "expected exactly 5 fields, found 0: []"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "failed to parse duration @every x"),
            (
                "TZ=Mars/Base * * * * *",
                "provided bad location Mars/Base: unknown time zone Mars/Base",
            ),
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert_eq!(error.to_string(), want, "{text}");
        }
        for text in
            ["*/5 0-6,22 1 JAN-mar Mon", "@hourly", "@every 1h30m", "? ? ? ? ?", "0/15 * * * *"]
        {
            assert!(text.parse::<Schedule>().is_ok(), "{text}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_that_all_fields_allow() {
        // CJ-2
        for (schedule, zone, after, want) in [
            ("* * * * *", "UTC", "2026-01-01T00:00:00Z", Some("2026-01-01T00:01:00Z")),
            ("*/15 * * * *", "UTC", "2026-01-01T00:15:01Z", Some("2026-01-01T00:30:00Z")),
            ("0/20 * * * *", "UTC", "2026-01-01T00:41:00Z", Some("2026-01-01T01:00:00Z")),
            ("30 4 * * *", "UTC", "2026-12-31T04:30:00Z", Some("2027-01-01T04:30:00Z")),
            ("0 0 1 * *", "Europe/Berlin", "2026-01-15T00:00:00Z", Some("2026-01-31T23:00:00Z")),
            // The 13th, or a Friday.
            ("0 0 13 * fri", "UTC", "2026-01-01T00:00:00Z", Some("2026-01-02T00:00:00Z")),
            // Fridays only.
            ("0 0 * * fri", "UTC", "2026-01-03T00:00:00Z", Some("2026-01-09T00:00:00Z")),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", Some("2028-02-29T00:00:00Z")),
            ("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", None),
            ("@every 90s", "UTC", "2026-01-01T00:00:00Z", Some("2026-01-01T00:01:30Z")),
        ] {
            let zone = Zone::named(zone).unwrap();
            let next =
                schedule.parse::<Schedule>().unwrap().next(parse_time(after).unwrap(), &zone);
            assert_eq!(next.map(time).as_deref(), want, "{schedule}");
        }
    }

    #[test]
    fn a_skipped_time_is_skipped_and_a_repeated_one_runs_once() {
        // CJ-6: clocks in Berlin go from 02:00 to 03:00 on 29 March, and back on 25 October.
        let zone = Zone::named("Europe/Berlin").unwrap();
        let daily: Schedule = "30 2 * * *".parse().unwrap();
        let next = |after: &str| daily.next(parse_time(after).unwrap(), &zone).map(time).unwrap();
        assert_eq!(next("2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next("2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    }
}
