//! The proleptic Gregorian calendar in UTC, for the date functions.

/// A moment as year, month, day and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// 0 is Sunday.
    pub(crate) weekday: u32,
    /// 1 to 366.
    pub(crate) day_of_year: u32,
}

const SECONDS_PER_DAY: i128 = 86_400;

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

/// How many days a month has.
pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Seconds from the first moment that Go's calendar knows to 1970.
const FIRST_S: i128 = 9_223_372_028_741_760_000;

/// The calendar's view of a sample's value. What is no 64-bit integer, NaN among it, is the least one, as on the
/// machines that Prometheus runs on; and moments before the first one that Go knows come out at the other end of time.
pub(crate) fn civil_of_value(value: f64) -> Civil {
    let fits = value >= i64::MIN as f64 && value < i64::MAX as f64;
    let unix_s = i128::from(if fits { value as i64 } else { i64::MIN });
    civil_of(if unix_s < -FIRST_S { unix_s + (1 << 64) } else { unix_s })
}

/// The calendar's view of a Unix time in seconds.
pub(crate) fn civil(unix_s: i64) -> Civil {
    civil_of(i128::from(unix_s))
}

fn civil_of(unix_s: i128) -> Civil {
    let days = unix_s.div_euclid(SECONDS_PER_DAY) as i64;
    let second_of_day = unix_s.rem_euclid(SECONDS_PER_DAY) as u32;
    // Days are counted from 1 March of year 0 in eras of 400 years, so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_from_march + 2) / 153;
    let day = (day_from_march - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let day_of_year = (1..month).map(|m| days_in_month(year, m)).sum::<u32>() + day;
    Civil {
        year,
        month,
        day,
        hour: second_of_day / 3600,
        minute: second_of_day / 60 % 60,
        second: second_of_day % 60,
        weekday: (days + 4).rem_euclid(7) as u32,
        day_of_year,
    }
}

/// `2006-01-02T15:04:05Z`
pub(crate) fn rfc3339(unix_s: i64) -> String {
    let c = civil(unix_s);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", c.year, c.month, c.day, c.hour, c.minute, c.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        let c = civil(1_700_000_000);
        assert_eq!((c.year, c.month, c.day, c.weekday, c.day_of_year), (2023, 11, 14, 2, 318));
    }

    #[test]
    fn values_that_are_no_times_are_where_prometheus_puts_them() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30] {
            let c = civil_of_value(value);
            assert_eq!((c.hour, c.minute, c.day_of_year), (15, 30, 339), "{value}");
        }
        assert_eq!(civil_of_value(-0.9), civil(0));
        assert_eq!(civil_of_value(1_700_000_000.9), civil(1_700_000_000));
    }
}
