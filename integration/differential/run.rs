//! Asks the questions, and shrinks what differs.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tricord_promql::ast::Expr;
use tricord_promql::parser::{ParserOptions, parse};
use tricord_testkit::Client;

use super::asked::Asked;
use super::compare::{Answer, difference};
use super::data::{DataSet, SPAN_S, START_S};
use super::grammar::Grammar;
use super::known::{Known, explanation};
use super::mutate::mutated;
use super::shrink::{simpler, smaller};
use super::sides::{Sides, When};

/// How many questions and data sets a difference is shrunk by.
const MOST_QUESTIONS: usize = 600;
const MOST_DATA_SETS: usize = 60;

/// How many differences are shrunk; the others are counted.
const MOST_SHRUNK: usize = 25;

/// What came out.
#[derive(Default)]
pub(super) struct Report {
    pub(super) asked: usize,
    pub(super) answered: usize,
    /// Answers that hold at least one point.
    pub(super) with_points: usize,
    /// How often each known change explained a difference.
    pub(super) explained: BTreeMap<&'static str, (usize, &'static Known)>,
    /// Differences that nothing explains, the first of them shrunk.
    pub(super) differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} questions, {} answered, {} with points, {} differences explained by the version, {} not",
            self.asked,
            self.answered,
            self.with_points,
            self.explained.values().map(|(count, _)| count).sum::<usize>(),
            self.differences.len()
        )?;
        for (name, (count, known)) in &self.explained {
            writeln!(f, "  {count} times {name} ({}): {}", known.since, known.note)?;
        }
        for difference in &self.differences {
            writeln!(f, "different: {difference}")?;
        }
        Ok(())
    }
}

/// A question: the text, its tree where it has one, and when.
#[derive(Clone)]
struct Question {
    text: String,
    expr: Option<Expr>,
    when: When,
}

impl Question {
    fn new(text: String, when: When) -> Self {
        let expr = parse(&text, &ParserOptions::default()).ok();
        Self { text, expr, when }
    }
}

/// Asks `queries` queries for each seed, each at one time and over a range.
pub(super) async fn run(tricord: &Client, seeds: &[u64], queries: usize) -> Result<Report> {
    let mut report = Report::default();
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(*seed);
        let data = DataSet::random(&mut rng);
        let sides = Sides::start(tricord, &format!("seed-{seed}"), &data).await?;
        for _ in 0..queries {
            let text = query(&mut rng);
            for when in [at(&mut rng), over(&mut rng)] {
                let question = Question::new(text.clone(), when);
                if let Some(why) = check(&sides, &question, &mut report).await? {
                    let shown = match report.differences.len() < MOST_SHRUNK {
                        true => shrunk(tricord, &sides, &data, question, why).await?,
                        false => format!("{} {:?}: {why}", question.text, question.when),
                    };
                    report.differences.push(format!("seed {seed}: {shown}"));
                }
            }
        }
    }
    Ok(report)
}

/// Three of four queries are sound, the others ill-typed or broken.
fn query(rng: &mut StdRng) -> String {
    let kind = rng.random_range(0..12);
    let ill_typed = if kind == 0 { 0.15 } else { 0.0 };
    let text = Grammar::new(rng, ill_typed).query().to_string();
    if kind == 1 { mutated(rng, &text) } else { text }
}

fn at(rng: &mut StdRng) -> When {
    When::At(START_S + rng.random_range(-60..SPAN_S + 360))
}

fn over(rng: &mut StdRng) -> When {
    let start_s = START_S + rng.random_range(-120..SPAN_S);
    let step_s = [1, 7, 15, 60, 77][rng.random_range(0..5)];
    When::Over { start_s, end_s: start_s + step_s * rng.random_range(0..30), step_s }
}

/// Asks and counts: why the answers differ, unless a known change explains it.
async fn check(sides: &Sides, question: &Question, report: &mut Report) -> Result<Option<String>> {
    let (ours, theirs) = sides.ask(&question.text, question.when).await?;
    report.asked += 1;
    if let Answer::Series(_, series) = &ours {
        report.answered += 1;
        report.with_points += usize::from(!series.is_empty());
    }
    let Some(why) = difference(question.expr.as_ref(), &ours, &theirs) else { return Ok(None) };
    match explained(question, &ours, &theirs) {
        Some(known) => {
            report.explained.entry(known.name).or_insert((0, known)).0 += 1;
            Ok(None)
        }
        None => Ok(Some(why)),
    }
}

fn explained(question: &Question, ours: &Answer, theirs: &Answer) -> Option<&'static Known> {
    let (query, when) = (question.text.as_str(), question.when);
    explanation(&Asked { query, expr: question.expr.as_ref(), when, ours, theirs })
}

/// Why the answers still differ, for shrinking.
async fn unexplained(sides: &Sides, question: &Question) -> Result<Option<String>> {
    let (ours, theirs) = sides.ask(&question.text, question.when).await?;
    let why = difference(question.expr.as_ref(), &ours, &theirs);
    Ok(why.filter(|_| explained(question, &ours, &theirs).is_none()))
}

/// The smallest question and data that still show an unexplained difference, as text.
async fn shrunk(
    tricord: &Client,
    sides: &Sides,
    data: &DataSet,
    mut question: Question,
    mut why: String,
) -> Result<String> {
    let original = question.text.clone();
    let mut left = MOST_QUESTIONS;
    'simpler: loop {
        for candidate in candidates(&question) {
            if left == 0 {
                break 'simpler;
            }
            left -= 1;
            if let Some(still) = unexplained(sides, &candidate).await? {
                (question, why) = (candidate, still);
                continue 'simpler;
            }
        }
        break;
    }
    let mut data = data.clone();
    if question.expr.is_some() {
        let mut left = MOST_DATA_SETS;
        let mut parts = 2;
        'smaller: loop {
            for candidate in smaller(&data, parts) {
                if left == 0 {
                    break 'smaller;
                }
                left -= 1;
                let tenant = format!("shrink-{}", rand::random::<u64>());
                let sides = Sides::start(tricord, &tenant, &candidate).await?;
                if let Some(still) = unexplained(&sides, &question).await? {
                    (data, why) = (candidate, still);
                    continue 'smaller;
                }
            }
            if parts >= data.samples().max(2) {
                break;
            }
            parts *= 2;
        }
    } else {
        data = DataSet::default();
    }
    Ok(format!("{} {:?}\n  {why}\n  (first seen as {original})\n{data}", question.text, question.when))
}

/// Questions that are simpler in one place, the boldest first.
fn candidates(question: &Question) -> Vec<Question> {
    let mut all = Vec::new();
    if let When::Over { start_s, end_s, step_s } = question.when {
        let steps = (end_s - start_s) / step_s;
        all.extend(
            (0..=steps).map(|i| Question { when: When::At(start_s + i * step_s), ..question.clone() }),
        );
    }
    let known: Vec<String> = match &question.expr {
        Some(expr) => simpler(expr).iter().map(ToString::to_string).collect(),
        // Shorter texts, cut anywhere.
        None => {
            let chars: Vec<char> = question.text.chars().collect();
            let cut = |from: usize, len: usize| {
                chars[..from].iter().chain(&chars[(from + len).min(chars.len())..]).collect()
            };
            [32, 8, 3, 1]
                .iter()
                .flat_map(|len| (0..chars.len()).map(move |from| (from, *len)))
                .map(|(from, len)| cut(from, len))
                .collect()
        }
    };
    let sound = question.expr.is_some();
    all.extend(known.into_iter().map(|text| Question::new(text, question.when)));
    all.retain(|candidate| candidate.expr.is_some() == sound);
    all
}
