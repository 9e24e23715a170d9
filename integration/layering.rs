//! Which crate may know which: the rules of the tree, checked against what cargo says.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The crates of `shared/`, each with those it may depend on.
const SHARED: [(&str, &[&str]); 10] = [
    ("model", &[]),
    ("routing", &["model"]),
    ("promql", &["model"]),
    ("rocks", &["model"]),
    ("replication", &["model"]),
    ("fragment", &["model", "routing", "promql"]),
    ("wire", &["model", "routing", "promql", "fragment"]),
    ("runtime", &["model", "routing", "promql", "fragment", "wire"]),
    ("metadata-client", &["model", "routing", "promql", "fragment", "wire", "runtime"]),
    ("testkit", &["model"]),
];

/// A role depends on `shared/` only; the root package alone sees all roles.
const ROLES: [&str; 4] = ["ingester", "querier", "proxy", "metadata"];

/// Crates of the workspace, each with the workspace's crates that it uses outside of tests.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it") + "/Cargo.toml";
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata");
    let short = |name: &str| name.strip_prefix("tricord-").map(str::to_owned);
    let mut edges = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let used =
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        let used = used
            .filter(|dependency| dependency.path.is_some())
            .filter_map(|dependency| short(&dependency.name));
        edges.insert(short(&package.name).unwrap_or_default(), used.collect());
    }
    edges
}

/// Every edge that the rules forbid.
fn forbidden(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, uses) in edges.iter().filter(|(name, _)| !name.is_empty()) {
        let allowed: BTreeSet<&str> = match SHARED.iter().find(|(shared, _)| shared == name) {
            Some((_, allowed)) => allowed.iter().copied().collect(),
            None if name == "bench" => BTreeSet::from(["model", "testkit"]),
            None if ROLES.contains(&name.as_str()) => {
                SHARED.iter().map(|(shared, _)| *shared).filter(|shared| *shared != "testkit").collect()
            }
            None => {
                found.push(format!("{name} is in no layer: add it to the rules"));
                continue;
            }
        };
        found.extend(
            uses.iter()
                .filter(|used| !allowed.contains(used.as_str()))
                .map(|used| format!("{name} -> {used}")),
        );
    }
    found
}

#[test]
fn crates_know_only_whom_they_may() {
    let edges = edges();
    assert!(edges.len() > SHARED.len() + ROLES.len(), "cargo shows too few crates: {:?}", edges.keys());
    assert!(edges["querier"].contains("rocks"), "the edges are read wrongly: {edges:?}");
    assert_eq!(forbidden(&edges), Vec::<String>::new());
}

#[test]
fn the_rules_find_what_they_should() {
    let edge = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), BTreeSet::from([to.to_owned()]))]);
    for (from, to) in [
        ("proxy", "querier"),
        ("model", "routing"),
        ("wire", "runtime"),
        ("rocks", "routing"),
        ("querier", "testkit"),
    ] {
        assert_eq!(forbidden(&edge(from, to)), [format!("{from} -> {to}")]);
    }
    assert!(forbidden(&edge("proxy", "fragment")).is_empty());
    assert!(forbidden(&edge("", "querier")).is_empty(), "the root package sees all roles");
    assert_eq!(forbidden(&edge("common", "model")).len(), 1);
}
