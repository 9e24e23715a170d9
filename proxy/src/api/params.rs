//! Parameters of a request: query string and form body, and the texts for times and durations of Prometheus' API.

use crate::error::Error;

/// Name and value pairs; those of a form body come before those of the query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

/// The earliest and the latest time that a parameter can name, in milliseconds.
pub const MIN_TIME_MS: i64 = i64::MIN / 4;
/// See [`MIN_TIME_MS`].
pub const MAX_TIME_MS: i64 = i64::MAX / 4;

impl Params {
    /// Reads `a=b&c=d` texts, percent-encoded.
    #[must_use]
    pub fn parse(texts: &[&[u8]]) -> Self {
        let pairs = texts.iter().flat_map(|text| text.split(|byte| *byte == b'&'));
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let mut sides = pair.splitn(2, |byte| *byte == b'=');
            (decode(sides.next().unwrap_or_default()), decode(sides.next().unwrap_or_default()))
        });
        Self(pairs.collect())
    }

    /// The first value of a name; empty where it is not given.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A time in milliseconds; `None` where it is not given.
    ///
    /// # Errors
    /// [`Error::BadData`] where the text is no time.
    pub fn time(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_time(text).map(Some).map_err(|why| Error::parameter(name, why)),
        }
    }

    /// A time that must be given.
    ///
    /// # Errors
    /// [`Error::BadData`] where the text is missing or no time.
    pub fn required_time(&self, name: &str) -> Result<i64, Error> {
        parse_time(self.get(name)).map_err(|why| Error::parameter(name, why))
    }

    /// A duration in milliseconds; `None` where it is not given.
    ///
    /// # Errors
    /// [`Error::BadData`] where the text is no duration.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration(text).map(Some).map_err(|why| Error::parameter(name, why)),
        }
    }

    /// A count, 0 where it is not given.
    ///
    /// # Errors
    /// [`Error::BadData`] where the text is no number or negative.
    pub fn count(&self, name: &str) -> Result<u64, Error> {
        match self.get(name) {
            "" => Ok(0),
            text => match text.parse::<i64>() {
                Ok(count) if count >= 0 => Ok(count as u64),
                Ok(_) => Err(Error::parameter(name, format!("{name} must be non-negative"))),
                Err(_) => Err(Error::parameter(name, format!("cannot parse {text:?} to a number"))),
            },
        }
    }
}

fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let hex = |offset: usize| text.get(at + offset).and_then(|digit| (*digit as char).to_digit(16));
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A time as float seconds or RFC 3339, in milliseconds.
fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        // As Prometheus: whole seconds, and a fraction rounded to milliseconds.
        let millis = seconds.trunc() * 1000.0 + (seconds.fract() * 1000.0).round();
        if millis.is_finite() && (MIN_TIME_MS as f64..=MAX_TIME_MS as f64).contains(&millis) {
            return Ok(millis as i64);
        }
    }
    match text {
        // The texts of the earliest and latest times that Prometheus' clients send.
        "-292273086-05-16T16:47:06Z" => Ok(MIN_TIME_MS),
        "292277025-08-18T07:12:54.999999999Z" => Ok(MAX_TIME_MS),
        _ => rfc3339_ms(text).ok_or_else(|| format!("cannot parse {text:?} to a valid timestamp")),
    }
}

/// `2026-11-22T01:02:03.5Z` or with an offset as `+02:00`.
fn rfc3339_ms(text: &str) -> Option<i64> {
    text.parse().ok().map(jiff::Timestamp::as_millisecond)
}

/// A duration as float seconds or as `1h30m`, in milliseconds.
///
/// # Errors
/// The reason, in Prometheus' words.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = seconds * 1000.0;
        if millis.is_nan() || millis.abs() > 9.2e12 * 1000.0 {
            return Err(format!("cannot parse {text:?} to a valid duration. It overflows int64"));
        }
        return Ok(millis as i64);
    }
    units_ms(text).ok_or_else(|| format!("cannot parse {text:?} to a valid duration"))
}

/// `1d2h3m4s5ms`: units descend, each at most once.
fn units_ms(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut next, mut sum) = (text, 0, 0i64);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = &rest[digits..unit_end];
        let at = next + UNITS[next..].iter().position(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.checked_mul(UNITS[at].1)?)?;
        next = at + 1;
        rest = &rest[unit_end..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let params = Params::parse(&[b"query=a%2Bb+c&match[]=x", b"match%5B%5D=y&bad=%zz&empty"]);
        assert_eq!(params.get("query"), "a+b c");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((params.get("bad"), params.get("empty"), params.get("none")), ("%zz", "", ""));
    }

    #[test]
    fn times_are_seconds_or_rfc3339() {
        for (text, expected) in [
            ("1435781451.781", Some(1_435_781_451_781)),
            ("-1.5", Some(-1500)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781+02:00", Some(1_435_781_451_781)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2023-02-29T00:00:00Z", None),
            ("1763500000000", Some(1_763_500_000_000_000)),
            ("NaN", None),
            ("", None),
            ("2015-07-01", None),
        ] {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
        assert_eq!(parse_time("x"), Err("cannot parse \"x\" to a valid timestamp".to_owned()));
    }

    #[test]
    fn durations_are_seconds_or_units() {
        for (text, expected) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1d5ms", Some(86_400_005)),
            ("1m1h", None),
            ("", None),
            ("5", Some(5000)),
            ("x", None),
            ("1e300", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
    }
}
