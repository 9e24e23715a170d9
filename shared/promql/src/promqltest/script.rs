//! Scripts: `load`, `clear` and `eval` with what is expected.

use tricord_model::{Labels, Points, Sample};

use super::nhcb;
use super::series::{Cursor, SequenceValue, labels, series_line, unquote};
use crate::value::Grid;

/// A script is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// A series with its samples.
#[derive(Clone, Debug)]
pub struct LoadedSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its samples, from 1970 on.
    pub points: Points,
}

/// Series to store.
#[derive(Clone, Debug)]
pub struct Load {
    /// Them.
    pub series: Vec<LoadedSeries>,
}

/// What is expected of notes or of an error.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Exactly this text.
    Message(String),
    /// A text in which the expression is found.
    Pattern(regex_automata::meta::Regex),
}

impl Expect {
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Message(message) => message == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// One question with what is expected of its answer.
#[derive(Clone, Debug)]
pub struct Eval {
    /// The line in the script, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    /// An instant query rather than a range query.
    pub instant: bool,
    /// The steps of the answer; for `expect range vector` those of its samples.
    pub grid: Grid,
    /// The evaluation time of an instant query, in milliseconds.
    pub at_ms: i64,
    /// Whether the question cannot be asked as a range query too.
    pub not_as_range: bool,
    /// `expect ordered`
    pub ordered: bool,
    /// `expect fail`; empty where the query must succeed.
    pub fail: Vec<Expect>,
    /// `expect warn`
    pub warn: Vec<Expect>,
    /// `expect info`
    pub info: Vec<Expect>,
    /// `expect no_warn`
    pub no_warn: bool,
    /// `expect no_info`
    pub no_info: bool,
    /// `expect string`
    pub string: Option<String>,
    /// The expected scalar.
    pub scalar: Option<f64>,
    /// The expected series in their order.
    pub series: Vec<(Labels, Vec<SequenceValue>)>,
}

impl Eval {
    /// Whether the order of the series counts.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }
}

/// A command of a script.
#[derive(Clone, Debug)]
pub enum Command {
    /// Forget all data.
    Clear,
    /// Store series.
    Load(Load),
    /// Ask.
    Eval(Box<Eval>),
}

/// A duration such as `1h30m`, in milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let invalid = || format!("not a valid duration: {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let number: i64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
            ("w", 604_800_000),
            ("y", 31_536_000_000),
        ];
        let (unit, ms) = units.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(invalid)?;
        total = total.checked_add(number.checked_mul(*ms).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = &rest[unit.len()..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(if negative { -total } else { total }) }
}

/// Parses a script.
///
/// # Errors
/// [`ScriptError`] with the first line that is not understood.
pub fn parse_script(text: &str) -> Result<Vec<Command>, ScriptError> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        // A command's lines end at the first empty one.
        let end = at + 1 + lines[at + 1..].iter().take_while(|line| !line.is_empty()).count();
        let error = |(offset, message): (usize, String)| ScriptError { line: at + 1 + offset, message };
        if line.is_empty() {
            at += 1;
        } else if line.to_lowercase().split_whitespace().next() == Some("clear") {
            commands.push(Command::Clear);
            at += 1;
        } else if line.starts_with("load") {
            commands.push(Command::Load(load(line, &lines[at + 1..end]).map_err(error)?));
            at = end;
        } else if line.starts_with("eval") {
            let (eval, used) = eval(line, at + 1, &lines[at + 1..end]).map_err(error)?;
            commands.push(Command::Eval(Box::new(eval)));
            at += 1 + used;
        } else {
            return Err(error((0, format!("invalid command {line:?}"))));
        }
    }
    Ok(commands)
}

fn load(head: &str, lines: &[&str]) -> Result<Load, (usize, String)> {
    let mut words = head.split_whitespace();
    let with_nhcb = words.next() == Some("load_with_nhcb");
    let gap_ms = duration_ms(words.next().unwrap_or("")).map_err(|message| (0, message))?;
    let mut series: Vec<LoadedSeries> = Vec::new();
    let mut starts: Option<Vec<Option<i64>>> = None;
    for (i, line) in lines.iter().enumerate() {
        let error = |message: String| (i + 1, message);
        if let Some((_, sequence)) =
            line.split_once("@st").filter(|(_, rest)| rest.starts_with(char::is_whitespace))
        {
            labels(&mut Cursor::new(line)).map_err(error)?;
            starts = Some(start_sequence(sequence).map_err(error)?);
            continue;
        }
        let (labels, values) = series_line(line).map_err(error)?;
        let starts = starts.take().unwrap_or_default();
        let mut points = Points::default();
        for (place, value) in values.into_iter().enumerate() {
            let t_ms = gap_ms * place as i64;
            let start_ms = starts.get(place).copied().flatten().map_or(0, |offset| t_ms + offset);
            if let Some(value) = value.value {
                points.push(Sample { t_ms, start_ms, value });
            }
        }
        // A later line for the same series replaces an earlier one.
        match series.iter_mut().find(|known| known.labels == labels) {
            Some(known) => known.points = points,
            None => series.push(LoadedSeries { labels, points }),
        }
    }
    if with_nhcb {
        let converted = nhcb::convert(&series).map_err(|message| (0, message))?;
        series.extend(converted);
    }
    Ok(Load { series })
}

/// Offsets of start timestamps from their samples: `-1mx3 _ -30s-1mx2`.
fn start_sequence(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (value, count) = match item.rsplit_once('x') {
            Some((value, count)) => (value, count.parse::<usize>().map_err(|_| format!("invalid {item:?}"))?),
            None => (item, 0),
        };
        if value == "_" {
            out.extend(std::iter::repeat_n(None, if item.contains('x') { count } else { 1 }));
            continue;
        }
        let split = value[1..].find(['+', '-']).map(|at| at + 1);
        let (base, step) = match split {
            Some(at) => (duration_ms(&value[..at])?, duration_ms(&value[at..])?),
            None => (duration_ms(value)?, 0),
        };
        out.extend((0..=count as i64).map(|i| Some(base + step * i)));
    }
    Ok(out)
}

fn eval(head: &str, line: usize, lines: &[&str]) -> Result<(Eval, usize), (usize, String)> {
    let mut eval = eval_head(head, line).map_err(|message| (0, message))?;
    let mut used = 0;
    for (i, line) in lines.iter().enumerate() {
        let error = |message: String| (i + 1, message);
        used = i + 1;
        if let Some(rest) = line.strip_prefix("expected_fail_message") {
            eval.fail = vec![Expect::Message(rest.trim().to_owned())];
            break;
        }
        if let Some(rest) = line.strip_prefix("expected_fail_regexp") {
            eval.fail = vec![pattern(rest.trim()).map_err(error)?];
            break;
        }
        if let Some(rest) = line.strip_prefix("expect range vector") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["from", from, "to", to, "step", step] = words[..] else {
                return Err(error("invalid range vector definition".to_owned()));
            };
            eval.grid = grid(from, to, step).map_err(error)?;
            eval.at_ms = eval.grid.end_ms;
            eval.not_as_range = true;
        } else if let Some(rest) = line.strip_prefix("expect string") {
            eval.string = Some(unquote(rest.trim()).map_err(error)?);
            eval.not_as_range = true;
        } else if line.split_whitespace().next() == Some("expect") {
            expectation(&mut eval, line).map_err(error)?;
        } else if let Some(value) = plain_number(line) {
            eval.scalar = Some(value);
            break;
        } else {
            let (labels, values) = series_line(line).map_err(error)?;
            match eval.series.iter_mut().find(|(known, _)| *known == labels) {
                Some(known) => known.1 = values,
                None => eval.series.push((labels, values)),
            }
        }
    }
    Ok((eval, used))
}

fn plain_number(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(|value| value as f64),
        None => text.parse().ok(),
    }
}

fn grid(from: &str, to: &str, step: &str) -> Result<Grid, String> {
    Ok(Grid { start_ms: duration_ms(from)?, end_ms: duration_ms(to)?, step_ms: duration_ms(step)?.max(1) })
}

fn eval_head(head: &str, line: usize) -> Result<Eval, String> {
    let invalid = || format!("invalid evaluation command {head:?}");
    let (command, rest) = head.split_once(char::is_whitespace).ok_or_else(invalid)?;
    let (kind, rest) = rest.trim_start().split_once(char::is_whitespace).ok_or_else(invalid)?;
    let mut word = rest;
    let mut next = || {
        let (first, tail) = word.trim_start().split_once(char::is_whitespace).ok_or_else(invalid)?;
        word = tail;
        Ok::<&str, String>(first)
    };
    let instant = kind == "instant";
    let grid = if instant {
        if next()? != "at" {
            return Err(invalid());
        }
        Grid::instant(duration_ms(next()?)?)
    } else {
        let words = [next()?, next()?, next()?, next()?, next()?, next()?];
        let ["from", from, "to", to, "step", step] = words else { return Err(invalid()) };
        grid(from, to, step)?
    };
    let any = || pattern("").map(|any| vec![any]);
    Ok(Eval {
        line,
        query: word.trim().to_owned(),
        instant,
        grid,
        at_ms: grid.start_ms,
        not_as_range: false,
        ordered: command == "eval_ordered",
        fail: if command == "eval_fail" { any()? } else { vec![] },
        warn: if command == "eval_warn" { any()? } else { vec![] },
        info: if command == "eval_info" { any()? } else { vec![] },
        no_warn: false,
        no_info: false,
        string: None,
        scalar: None,
        series: vec![],
    })
}

fn pattern(text: &str) -> Result<Expect, String> {
    regex_automata::meta::Regex::new(text).map(Expect::Pattern).map_err(|error| error.to_string())
}

fn expectation(eval: &mut Eval, line: &str) -> Result<(), String> {
    let rest = line.strip_prefix("expect").unwrap_or(line).trim();
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let expected = match (rest.strip_prefix("msg:"), rest.strip_prefix("regex:")) {
        (Some(message), _) => Expect::Message(message.trim().to_owned()),
        (_, Some(text)) => pattern(text.trim())?,
        _ if rest.is_empty() => pattern("")?,
        _ => return Err(format!("invalid expectation {rest:?}")),
    };
    match kind {
        "fail" => eval.fail.push(expected),
        "warn" => eval.warn.push(expected),
        "info" => eval.info.push(expected),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        "ordered" => eval.ordered = true,
        other => return Err(format!("invalid expectation {other:?}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_understood() {
        let text = "load 5m\n  m{a=\"1\"} 0+10x2\n\n# note\neval instant at 50m sum(m)\n  expect no_warn\n  {} 3\n\n\
                    eval range from 0 to 1h step 10m m\n  m{a=\"1\"} 1 _\n\nclear\n";
        let commands = parse_script(text).unwrap();
        let [Command::Load(load), Command::Eval(first), Command::Eval(second), Command::Clear] =
            &commands[..]
        else {
            panic!("{commands:?}");
        };
        assert_eq!(load.series[0].points.t_ms, [0, 300_000, 600_000]);
        assert_eq!((first.query.as_str(), first.at_ms, first.no_warn), ("sum(m)", 3_000_000, true));
        assert_eq!((second.grid.steps(), second.series.len()), (7, 1));
    }

    #[test]
    fn start_timestamps_are_offsets() {
        assert_eq!(
            start_sequence("_ -30s-1mx1 -5sx1").unwrap(),
            [None, Some(-30_000), Some(-90_000), Some(-5000), Some(-5000)]
        );
    }
}
