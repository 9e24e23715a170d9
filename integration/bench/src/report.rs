//! Tables of medians, with what each is of VictoriaMetrics'.

use std::fmt::Write as _;

use crate::churn::{Hour, Quiet};
use crate::copies::Copies;
use crate::ingest::Round;
use crate::lists::{Asked, Day};
use crate::queries::Timing;
use crate::restart::Restart;
use crate::server::Kind;

/// The median; `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn ratio(own: Option<f64>, other: Option<f64>) -> String {
    number(own.zip(other).filter(|(_, other)| *other > 0.0).map(|(own, other)| own / other))
}

/// A column of the table of writing.
type Column = (&'static str, fn(&Round) -> Option<f64>);

const COLUMNS: [Column; 8] = [
    ("CPU-s per M samples", |round| Some(round.cpu_s_per_million)),
    ("samples/s", |round| Some(round.samples_per_s)),
    ("ack p50 ms", |round| Some(round.ack_p50_ms)),
    ("ack p99 ms", |round| Some(round.ack_p99_ms)),
    ("memory high MiB", |round| Some(round.highest_memory_bytes as f64 / 1_048_576.0)),
    ("anonymous B/series", |round| Some(round.anonymous_bytes_per_series)),
    ("new series µs", |round| Some(round.new_series_us)),
    ("disk B/sample", |round| round.disk_bytes_per_sample),
];

/// Medians over all rounds of a scenario, wire and server.
pub(crate) fn writing(rounds: &[Round]) -> String {
    let mut out = String::from("| scenario | wire | server | rounds |");
    for (head, _) in COLUMNS {
        let _ = write!(out, " {head} |");
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(4 + COLUMNS.len()));
    let mut keys: Vec<_> = rounds.iter().map(|round| (round.scenario, round.wire, round.server)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let of = |server| {
            rounds
                .iter()
                .filter(move |round| (round.scenario, round.wire, round.server) == (key.0, key.1, server))
        };
        let _ = write!(out, "| {} | {} | {} | {} |", key.0, key.1, key.2, of(key.2).count());
        for (_, value) in COLUMNS {
            let medians = |server| median(of(server).filter_map(value));
            let (own, victoria) = (medians(key.2), medians(Kind::Victoria.name()));
            let beside = match key.2 == Kind::Victoria.name() || victoria.is_none() {
                true => String::new(),
                false => format!(" (×{})", ratio(own, victoria)),
            };
            let _ = write!(out, " {}{beside} |", number(own));
        }
        out.push('\n');
    }
    out
}

/// Medians of each query in milliseconds, and Tricord's share of VictoriaMetrics' and Prometheus'.
pub(crate) fn asking(timings: &[Timing], kind: &str) -> String {
    let mut out = format!(
        "| query, {kind} | tricord ms | victoria-metrics ms | prometheus ms | × victoria-metrics | × its CPU | × prometheus |\n|{}\n",
        "---|".repeat(7)
    );
    let mut names: Vec<&str> = Vec::new();
    for timing in timings.iter().filter(|timing| timing.kind == kind) {
        if !names.contains(&timing.query) {
            names.push(timing.query);
        }
    }
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for name in names {
        let of = |server: Kind| {
            timings
                .iter()
                .find(|timing| (timing.query, timing.kind, timing.server) == (name, kind, server.name()))
        };
        let wall = |server| of(server).and_then(|timing| median(timing.wall_ms.iter().copied()));
        let cpu = |server| of(server).and_then(|timing| timing.cpu_ms);
        let (own, victoria, prometheus) = (wall(Kind::Tricord), wall(Kind::Victoria), wall(Kind::Prometheus));
        walls.extend(own.zip(victoria).map(|(own, victoria)| own / victoria));
        let cpu = (cpu(Kind::Tricord), cpu(Kind::Victoria));
        cpus.extend(
            cpu.0.zip(cpu.1).filter(|(_, victoria)| *victoria > 0.0).map(|(own, victoria)| own / victoria),
        );
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            number(own),
            number(victoria),
            number(prometheus),
            ratio(own, victoria),
            ratio(cpu.0, cpu.1),
            ratio(own, prometheus)
        );
    }
    let _ = writeln!(
        out,
        "| median of the ratios | | | | {} | {} | |",
        number(median(walls)),
        number(median(cpus))
    );
    out
}

/// Restarts after `kill -9`.
pub(crate) fn restarts(restarts: &[Restart]) -> String {
    let mut out = format!(
        "| restart after kill -9 | series | samples in memory | anonymous B/series | memory high MiB | ready after s | memory high until then MiB |\n|{}\n",
        "---|".repeat(7)
    );
    for restart in restarts {
        let mib = |bytes: u64| number(Some(bytes as f64 / 1_048_576.0));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            restart.server,
            restart.series,
            restart.samples,
            number(Some(restart.anonymous_bytes as f64 / restart.series as f64)),
            mib(restart.highest_before_bytes),
            number(Some(restart.ready_s)),
            mib(restart.highest_memory_bytes)
        );
    }
    out
}

/// Medians of what a cluster costs with one and with three copies.
pub(crate) fn copies(rounds: &[Copies]) -> String {
    let mut out = format!(
        "| copies | rounds | CPU-s per M samples | of these data nodes | samples/s | ack p50 ms | ack p99 ms |\n|{}\n",
        "---|".repeat(7)
    );
    for copies in [1, 3] {
        let of = || rounds.iter().filter(move |round| round.copies == copies);
        let median = |figure: fn(&Copies) -> f64| number(median(of().map(figure)));
        let _ = writeln!(
            out,
            "| {copies} | {} | {} | {} | {} | {} | {} |",
            of().count(),
            median(|round| round.cpu_s_per_million),
            median(|round| round.data_nodes_s_per_million),
            median(|round| round.samples_per_s),
            median(|round| round.ack_p50_ms),
            median(|round| round.ack_p99_ms)
        );
    }
    out
}

/// Lists over a day of very many series: for each server the items, the first time, the median, and memory.
pub(crate) fn lists(days: &[Day], asked: &[Asked]) -> String {
    let mib = |bytes: u64| number(Some(bytes as f64 / 1_048_576.0));
    let mut out = format!(
        "| a day | series | samples | CPU-s | memory high MiB | anonymous then MiB | disk MiB |\n|{}\n",
        "---|".repeat(7)
    );
    for day in days {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            day.server,
            day.series,
            day.samples,
            number(Some(day.cpu_s)),
            mib(day.highest_memory_bytes),
            mib(day.anonymous_bytes),
            mib(day.disk_bytes)
        );
    }
    out.push_str("\n| list |");
    for day in days {
        let _ = write!(out, " {} items | first ms | ms | memory +MiB |", day.server);
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(1 + 4 * days.len()));
    let mut names: Vec<&str> = asked.iter().map(|asked| asked.query).collect();
    names.dedup();
    for name in names {
        let _ = write!(out, "| {name} |");
        for day in days {
            match asked.iter().find(|asked| (asked.query, asked.server) == (name, day.server)) {
                None => out.push_str(" – | – | – | – |"),
                Some(one) => {
                    let (first, warm) = (number(Some(one.first_ms)), median(one.wall_ms.iter().copied()));
                    let grew = mib(one.grew_bytes);
                    let _ = write!(out, " {} | {first} | {} | {grew} |", one.items, number(warm));
                }
            }
        }
        out.push('\n');
    }
    out
}

/// Hours at the end of which memory is shown.
const SHOWN_HOURS: [i64; 5] = [1, 6, 12, 18, 24];

/// Memory over the hours of a day in which series are renewed, and questions over those that stay.
pub(crate) fn churn(hours: &[Hour], quiet: &[Quiet]) -> String {
    let mib = |bytes: u64| number(Some(bytes as f64 / 1_048_576.0));
    let mut servers: Vec<&str> = hours.iter().map(|hour| hour.server).collect();
    servers.dedup();
    let mut out = String::from("| anonymous MiB after hour |");
    for hour in SHOWN_HOURS {
        let _ = write!(out, " {hour} |");
    }
    let _ = writeln!(out, " high MiB | CPU-s |\n|{}", "---|".repeat(3 + SHOWN_HOURS.len()));
    for server in &servers {
        let _ = write!(out, "| {server} |");
        let of_server = || hours.iter().filter(|hour| hour.server == *server);
        for shown in SHOWN_HOURS {
            let found = of_server().find(|hour| hour.hour == shown);
            let _ = write!(out, " {} |", found.map_or("–".to_owned(), |hour| mib(hour.anonymous_bytes)));
        }
        if let Some(last) = of_server().next_back() {
            let _ = writeln!(out, " {} | {} |", mib(last.highest_memory_bytes), number(Some(last.cpu_s)));
        }
    }
    for server in &servers {
        let of = |hour: i64| hours.iter().find(|one| (one.server, one.hour) == (*server, hour));
        let counts = SHOWN_HOURS.map(|hour| of(hour).and_then(|one| one.series_in_memory));
        if counts.iter().any(Option::is_some) {
            let _ = write!(out, "| {server}: series in memory |");
            for count in counts {
                let _ = write!(out, " {} |", count.map_or("–".to_owned(), |count| count.to_string()));
            }
            out.push_str(" | |\n");
        }
    }
    out.push_str("\n| over what stays |");
    for server in &servers {
        let _ = write!(out, " {server}, hour 1 ms | hour 24 ms | ratio |");
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(1 + 3 * servers.len()));
    let mut names: Vec<&str> = Vec::new();
    quiet.iter().for_each(|one| {
        if !names.contains(&one.query) {
            names.push(one.query);
        }
    });
    for name in names {
        let _ = write!(out, "| {name} |");
        for server in &servers {
            let of = |is_last: bool| {
                let mut found = quiet
                    .iter()
                    .filter(|one| (one.query, one.server) == (name, *server) && (one.hour > 1) == is_last);
                found.next().and_then(|one| median(one.wall_ms.iter().copied()))
            };
            let (before, after) = (of(false), of(true));
            let _ = write!(out, " {} | {} | {} |", number(before), number(after), ratio(after, before));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_query_is_put_beside_the_others() {
        let timing = |server: Kind, ms: f64| Timing {
            query: "q",
            server: server.name(),
            kind: "warm",
            wall_ms: vec![ms, ms + 1.0, ms + 2.0],
            cpu_ms: Some(ms),
            items: 1,
        };
        let text = asking(&[timing(Kind::Tricord, 1.0), timing(Kind::Victoria, 3.0)], "warm");
        assert!(text.contains("| q | 2.00 | 4.00 | – | 0.50 | 0.33 | – |"), "{text}");
        assert!(text.ends_with("| median of the ratios | | | | 0.50 | 0.33 | |\n"), "{text}");
    }
}
