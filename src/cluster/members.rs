//! `tricord cluster join|remove|replace`: the members of the metadata group.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use tricord_metadata_client::Cluster;
use tricord_wire::proto::metadata as pb;

use crate::table;

/// Lets a process that runs `tricord metadata` on an empty directory become a member.
pub(super) async fn join(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let address = text(matches, "address");
    let members = add(cluster, limit, address).await?;
    table::print(&format!("{address} is a member now\n\n{}", render(&members)))
}

/// Takes a member out of the group; its process can be switched off then.
pub(super) async fn remove(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let member = number(matches, "member");
    let members = take_out(cluster, limit, member).await?;
    table::print(&format!("member {member} is gone\n\n{}", render(&members)))
}

/// A new member in the place of another one, which may be lost. The new one comes first where the group has a leader
/// either way, so that there is never one member fewer than before.
pub(super) async fn replace(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let (member, address) = (number(matches, "member"), text(matches, "address"));
    let known = cluster.status(limit).await?.members;
    // Repeated after a failure half-way, the old one may be gone already.
    if !known.iter().any(|one| one.member == member) && !known.iter().any(|one| one.rpc == address) {
        bail!("there is no member {member}; `tricord cluster status` lists them");
    }
    add(cluster, limit, address).await?;
    let members = match known.iter().any(|one| one.member == member) {
        true => take_out(cluster, limit, member).await?,
        false => cluster.status(limit).await?.members,
    };
    table::print(&format!("{address} is in the place of member {member}\n\n{}", render(&members)))
}

async fn add(cluster: &Cluster, limit: Duration, address: &str) -> Result<Vec<pb::MemberStatus>> {
    let request = pb::ChangeMemberRequest { rpc: address.to_owned(), ..Default::default() };
    let why = || {
        format!(
            "{address} did not join: does `tricord metadata` run there, on an empty directory, and advertise it?"
        )
    };
    cluster.change_member(request, limit).await.with_context(why)
}

async fn take_out(cluster: &Cluster, limit: Duration, member: u64) -> Result<Vec<pb::MemberStatus>> {
    let request = pb::ChangeMemberRequest { remove: true, member, ..Default::default() };
    cluster.change_member(request, limit).await.with_context(|| format!("member {member} was not removed"))
}

fn render(members: &[pb::MemberStatus]) -> String {
    let rows = members.iter().map(|member| {
        let votes = if member.voter { "voter" } else { "learner" };
        vec![member.member.to_string(), member.rpc.clone(), votes.to_owned()]
    });
    table::render(&["metadata", "rpc", "kind"], &rows.collect::<Vec<_>>())
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn number(matches: &ArgMatches, name: &str) -> u64 {
    matches.get_one::<u64>(name).copied().unwrap_or_default()
}
