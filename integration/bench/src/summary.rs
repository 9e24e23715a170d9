//! One table of what a run has measured beside what Tricord means to reach, for whatever the chosen parts have measured.

use std::fmt::Write as _;

use crate::Measured;
use crate::ingest::Round;
use crate::load::Scenario;
use crate::queries::Timing;
use crate::report::{median, number};
use crate::server::Kind;

/// Queries that take less are as good as any, in milliseconds.
const SHORT_MS: f64 = 2.0;
/// Those of the query set that are told by themselves too.
const ALONE: [&str; 3] = ["one series, 30 d", "one metric of all hosts, 6 h", "all metrics of one host, 6 h"];

/// A line: what, in which unit, what it must be at most, and what it was.
struct Line {
    what: String,
    must: &'static str,
    aim: &'static str,
    own: Option<f64>,
    victoria: Option<f64>,
    prometheus: Option<f64>,
    /// Whether it is what it must be, where that can be told.
    is_met: Option<bool>,
}

/// The median of a figure over the rounds of a scenario, wire and server.
fn of_rounds(
    measured: &Measured,
    (scenario, wire): (Scenario, &str),
    server: Kind,
    figure: impl Fn(&Round) -> Option<f64>,
) -> Option<f64> {
    let is_it =
        |round: &&Round| (round.scenario, round.wire, round.server) == (scenario.name, wire, server.name());
    median(measured.rounds.iter().filter(is_it).filter_map(figure))
}

/// A line of writing; `bound` is the most it may be, given VictoriaMetrics' figure.
fn writing(
    measured: &Measured,
    of: (Scenario, &str),
    (what, must, aim): (&str, &'static str, &'static str),
    figure: impl Fn(&Round) -> Option<f64> + Copy,
    bound: impl Fn(Option<f64>) -> Option<f64>,
) -> Line {
    let by = |server| of_rounds(measured, of, server, figure);
    let (own, victoria) = (by(Kind::Tricord), by(Kind::Victoria));
    Line {
        what: format!("{what}, {} {}", of.0.name, of.1),
        must,
        aim,
        own,
        victoria,
        prometheus: by(Kind::Prometheus),
        is_met: own.zip(bound(victoria)).map(|(own, bound)| own <= bound),
    }
}

/// The median of a query, in milliseconds.
fn wall(measured: &Measured, (query, kind): (&str, &str), server: Kind) -> Option<f64> {
    let is_it = |timing: &&Timing| (timing.query, timing.kind, timing.server) == (query, kind, server.name());
    measured.timings.iter().find(is_it).and_then(|timing| median(timing.wall_ms.iter().copied()))
}

/// The query set as two lines: the median of its ratios to VictoriaMetrics, and the worst of them.
fn asking(measured: &Measured, kind: &'static str) -> [Line; 2] {
    let month = "30 d";
    let mut names: Vec<&str> = measured.timings.iter().map(|timing| timing.query).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.ends_with(month));
    let (mut ratios, mut worst) = (Vec::new(), None::<(f64, &str)>);
    for name in names {
        let by = |server| wall(measured, (name, kind), server);
        let Some((own, victoria)) = by(Kind::Tricord).zip(by(Kind::Victoria)) else { continue };
        let ratio = own / victoria;
        ratios.push(ratio);
        if own >= SHORT_MS && worst.is_none_or(|(most, _)| ratio > most) {
            worst = Some((ratio, name));
        }
    }
    let middle = Line {
        what: format!("queries, {kind}: median ratio"),
        must: "",
        aim: "0.5 ×",
        own: median(ratios),
        victoria: None,
        prometheus: None,
        is_met: None,
    };
    let (own, slowest) = worst.map_or((None, ""), |(ratio, name)| (Some(ratio), name));
    let what = format!("queries, {kind}: worst ratio of those above 2 ms ({slowest})");
    let is_met = own.map(|own| own <= 1.1);
    [middle, Line { what, must: "1.1 ×", aim: "", own, victoria: None, prometheus: None, is_met }]
}

fn lines(measured: &Measured) -> Vec<Line> {
    let half = |victoria: Option<f64>| victoria.map(|victoria| victoria / 2.0);
    let same = |victoria| victoria;
    let cpu = |round: &Round| Some(round.cpu_s_per_million);
    let mut lines = Vec::new();
    for scenario in [Scenario::A, Scenario::B] {
        let texts = ("CPU-s per M samples", "0.5 × VictoriaMetrics", "0.45");
        lines.push(writing(measured, (scenario, "v1"), texts, cpu, half));
        let texts = ("CPU-s per M samples", "", "");
        lines.push(writing(measured, (scenario, "v2"), texts, cpu, |_| None));
        let v1 = of_rounds(measured, (scenario, "v1"), Kind::Tricord, cpu);
        let texts = ("CPU-s per M samples", "2 × v1", "");
        lines.push(writing(measured, (scenario, "otlp"), texts, cpu, |_| v1.map(|v1| v1 * 2.0)));
        let texts = ("bytes per sample on disk", "VictoriaMetrics", "0.8 ×");
        lines.push(writing(measured, (scenario, "v1"), texts, |round| round.disk_bytes_per_sample, same));
    }
    let million = (Scenario::MILLION, "v1");
    let texts = ("anonymous bytes per series", "1024", "512");
    let memory = |round: &Round| Some(round.anonymous_bytes_per_series);
    lines.push(writing(measured, million, texts, memory, |_| Some(1024.0)));
    let texts = ("CPU of a new series, µs", "20", "5");
    lines.push(writing(measured, million, texts, |round| Some(round.new_series_us), |_| Some(20.0)));
    lines.extend(["warm", "cold"].into_iter().flat_map(|kind| asking(measured, kind)));
    for query in ALONE {
        let by = |server| wall(measured, (query, "warm"), server);
        let (own, victoria) = (by(Kind::Tricord), by(Kind::Victoria));
        lines.push(Line {
            what: format!("{query}, ms"),
            must: "VictoriaMetrics",
            aim: "",
            own,
            victoria,
            prometheus: by(Kind::Prometheus),
            is_met: own.zip(victoria).map(|(own, victoria)| own <= victoria),
        });
    }
    for scenario in [Scenario::MILLION, Scenario::WINDOW] {
        let by = |server: Kind| {
            let found = measured
                .restarts
                .iter()
                .find(|restart| (restart.server, restart.scenario) == (server.name(), scenario.name));
            found.map(|restart| restart.ready_s)
        };
        let own = by(Kind::Tricord);
        lines.push(Line {
            what: format!("ready after kill -9, s, {}", scenario.name),
            must: "10",
            aim: "3",
            own,
            victoria: by(Kind::Victoria),
            prometheus: by(Kind::Prometheus),
            is_met: own.map(|own| own <= 10.0),
        });
    }
    lines.retain(|line| line.own.is_some());
    lines
}

/// The table; empty where nothing of it was measured.
pub(crate) fn table(measured: &Measured) -> String {
    let lines = lines(measured);
    if lines.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "| what | Tricord | VictoriaMetrics | Prometheus | × VictoriaMetrics | must be at most | met | aim |\n|",
    );
    let _ = writeln!(out, "{}", "---|".repeat(8));
    for Line { what, must, aim, own, victoria, prometheus, is_met } in lines {
        let ratio = own.zip(victoria).filter(|(_, victoria)| *victoria > 0.0);
        let ratio = number(ratio.map(|(own, victoria)| own / victoria));
        let met = is_met.map_or("", |is_met| if is_met { "yes" } else { "no" });
        let (own, victoria, prometheus) = (number(own), number(victoria), number(prometheus));
        let _ = writeln!(
            out,
            "| {what} | {own} | {victoria} | {prometheus} | {ratio} | {must} | {met} | {aim} |"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(query: &'static str, server: Kind, ms: f64) -> Timing {
        let server = server.name();
        Timing { query, server, kind: "warm", wall_ms: vec![ms], cpu_ms: None, items: 1 }
    }

    #[test]
    fn the_worst_of_those_that_take_long_is_told() {
        let timings = [("quick", 1.0, 0.1), ("slow", 6.0, 5.0), ("good", 4.0, 8.0), ("long, 30 d", 9.0, 1.0)];
        let mut measured = Measured::default();
        for (query, own, victoria) in timings {
            measured.timings.push(timing(query, Kind::Tricord, own));
            measured.timings.push(timing(query, Kind::Victoria, victoria));
        }
        let text = table(&measured);
        assert!(text.contains("worst ratio of those above 2 ms (slow) | 1.20 |"), "{text}");
        assert!(text.contains("| 1.1 × | no |"), "{text}");
        assert!(text.contains("median ratio | 1.20 |"), "{text}");
        assert!(!text.contains("30 d"), "only the one that is told by itself: {text}");
    }
}
