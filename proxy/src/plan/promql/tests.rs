use tricord_promql::parser::{ParserOptions, parse};

use super::*;

/// Plans a range query over 0s to 100s by 10s and compares its tree with the expected text, line by line.
#[track_caller]
fn check(query: &str, expected: &str) {
    let grid = Grid { start_ms: 0, end_ms: 100_000, step_ms: 10_000 };
    let expr = parse(query, &ParserOptions::default()).unwrap();
    let plan = plan(&expr, grid, &EvalOptions::new(grid)).unwrap();
    let got = super::super::explain::text(&plan);
    let expected: Vec<_> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(got.trim().lines().map(str::trim).collect::<Vec<_>>(), expected, "{query}");
}

#[test]
fn what_is_local_to_a_series_is_pushed_whole() {
    check("up", "<part 0>\n0: up");
    check("rate(m[5m] offset 1m) * 2 > 1", "<part 0>\n0: rate(m[5m] offset 1m) * 2 > 1");
    check("clamp_max(abs(-m), time())", "<part 0>\n0: clamp_max(abs(-m), time())");
    check("max_over_time(rate(m[1m])[10m:1m])", "<part 0>\n0: max_over_time(rate(m[1m])[10m:1m])");
    check("histogram_quantile(0.9, rate(b[5m]))", "<part 0>\n0: histogram_quantile(0.9, rate(b[5m]))");
    check("timestamp(m @ end())", "<part 0>\n0: timestamp(m @ end())");
}

#[test]
fn constants_stay() {
    check("1 + time()", "1 + time()");
    check("vector(1)", "vector(1)");
    check("hour()", "hour()");
    check("m + vector(1)", "<part 0> + vector(1)\n0: m");
}

#[test]
fn aggregations_run_in_two_phases() {
    check("sum by (a) (rate(m[5m]))", "<part 0>\n0: sum by (a) of rate(m[5m])");
    check("avg without (a) (m)", "<part 0>\n0: avg without (a) of m");
    check("topk by (a) (3, m)", "<part 0>\n0: topk(3) by (a) of m");
    check("topk(scalar(k), m)", "topk(scalar(<part 0>), <part 1>)\n0: k\n1: m");
    check("sum by (a) (max by (a, b) (m))", "sum by (a) (<part 0>)\n0: max by (a, b) of m");
    check("quantile(0.5, m)", "<part 0>\n0: quantile(0.5) by () of m");
    check("count_values(\"v\", m)", "count_values(\"v\", <part 0>)\n0: m");
    check("limit_ratio(0.5, m)", "limit_ratio(0.5, <part 0>)\n0: m");
    check("sum(m) / count(m)", "<part 0> / <part 1>\n0: sum by () of m\n1: count by () of m");
    check("sum(m) > 5", "<part 0> > 5\n0: sum by () of m");
    check("count(m) + count(m)", "<part 0> + <part 0>\n0: count by () of m");
}

#[test]
fn joins_are_pushed_only_where_the_match_implies_the_shard() {
    check("rate(a[5m]) / rate(b[5m])", "<part 0>\n0: rate(a[5m]) / rate(b[5m])");
    check("sum(a / b)", "<part 0>\n0: sum by () of a / b");
    check("a and b", "<part 0>\n0: a and b");
    check("a / on (x) b", "<part 0> / on (x) <part 1>\n0: a\n1: b");
    check("a / ignoring (x) b", "<part 0> / ignoring (x) <part 1>\n0: a\n1: b");
    check("a / on (x) group_left () b", "<part 0> / on (x) group_left () <part 1>\n0: a\n1: b");
    check("a + fill (0) b", "<part 0> + fill (0) <part 1>\n0: a\n1: b");
    // Whether two of one signature are an error depends on whether there is anything on the other side, on any shard.
    check("a / {x=\"y\"}", "<part 0> / <part 1>\n0: a\n1: {x=\"y\"}");
    check("a and {x=\"y\"}", "<part 0>\n0: a and {x=\"y\"}");
    check("{x=\"y\"} / a", "<part 0>\n0: {x=\"y\"} / a");
}

#[test]
fn rewritten_labels_end_a_fragment() {
    let relabelled = r#"label_replace(m, "a", "$1", "b", "(.*)")"#;
    check(relabelled, &format!("<part 0>\n0: {relabelled} (labels rewritten)"));
    check(&format!("sum({relabelled})"), &format!("sum(<part 0>)\n0: {relabelled} (labels rewritten)"));
    check(&format!("abs({relabelled})"), &format!("abs(<part 0>)\n0: {relabelled} (labels rewritten)"));
}

#[test]
fn only_the_proxy_tells_absence() {
    check(r#"absent(m{a="1", b=~"x"})"#, "<part 0>\n0: absent {a=\"1\"} unless m{a=\"1\",b=~\"x\"}");
    check("absent_over_time(m[5m])", "<part 0>\n0: absent {} unless last_over_time(m[5m])");
    check("absent_over_time(m[5m] smoothed)", "absent_over_time(m[5m] smoothed)");
    check("absent((m{a=\"1\"}))", "<part 0>\n0: absent {a=\"1\"} unless m{a=\"1\"}");
    check("absent(sum(m))", "absent(<part 0>)\n0: sum by () of m");
}

#[test]
fn a_subquery_over_a_merge_is_a_query_of_its_own() {
    check(
        "max_over_time(sum(m)[30s:15s])",
        "max_over_time(<part 0>[30s:15s])\n0: sum by () of m from -15s to 100s by 15s",
    );
}

#[test]
fn what_cannot_be_pushed_reads_raw_samples() {
    check("m[5m]", "m[5m]");
    check("quantile_over_time(scalar(q), m[5m])", "quantile_over_time(scalar(<part 0>), m[5m])\n0: q");
    check("sort(m)", "sort(<part 0>)\n0: m");
    check("scalar(m)", "scalar(<part 0>)\n0: m");
}
