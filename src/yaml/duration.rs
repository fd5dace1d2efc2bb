//! Durations as compose writes them: Go's, with days and weeks beside them (compose-go, str2duration).

use std::time::Duration;

/// Digits behind the point that count; those after them are less than a nanosecond of the longest unit.
const FRACTION: usize = 18;

/// `1m30s`, `1.5h`, `500ms`, `1d`; a zero needs no unit. `None` for anything else.
pub fn parse(written: &str) -> Option<Duration> {
    if written == "0" {
        return Some(Duration::ZERO);
    }
    if written.is_empty() {
        return None;
    }
    let of_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = written;
    let mut total = 0u128;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c| !of_number(c))?);
        let (unit, next) = behind.split_at(behind.find(of_number).unwrap_or(behind.len()));
        total = total.checked_add(nanoseconds(number, unit)?)?;
        rest = next;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    let below = u32::try_from(total % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, below))
}

/// In whole numbers, so that what was written is what is meant however long it is.
fn nanoseconds(number: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        // The sign for micro, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        "w" => 604_800 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = format!("{:0<FRACTION$}", &fraction[..fraction.len().min(FRACTION)]);
    let fraction: u64 = digits.parse().ok()?;
    let one = 10u128.pow(u32::try_from(FRACTION).ok()?);
    Some(u128::from(whole) * unit + (u128::from(fraction) * unit + one / 2) / one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (written, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.1234567896s", 123_456_790),
            ("7us", 7_000),
            ("7\u{b5}s7\u{3bc}s", 14_000),
            ("1h1ns", 3_600_000_000_001),
            ("1d", 86_400_000_000_000),
            ("2w", 1_209_600_000_000_000),
            ("1s1s", 2_000_000_000),
        ] {
            assert_eq!(parse(written).unwrap().as_nanos(), nanoseconds, "{written}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let wrong = [
            "",
            "10",
            "s",
            ".s",
            "1x",
            "-1s",
            "+1s",
            "1s2",
            "1.2.3s",
            "1 s",
            "1S",
            "1e3s",
            "99999999999999999999s",
        ];
        for written in wrong {
            assert_eq!(parse(written), None, "{written}");
        }
        assert_eq!(parse("18446744073709551615s1s"), None, "no overflow either");
    }
}
