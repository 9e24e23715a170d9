//! The shard map as messages and back.

use tricord_model::{Epoch, LimitOverrides, NodeId, ShardId};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig, ShardMap};
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error, ErrorKind};

/// A shard's configuration as a message.
#[must_use]
pub fn config_to_proto(config: &ShardConfig) -> pb::ShardConfig {
    pb::ShardConfig {
        shard: config.shard.0,
        epoch: config.epoch.0,
        primary: config.primary.map_or(0, |node| node.0),
        in_sync: config.in_sync.iter().map(|node| node.0).collect(),
        joining: config.joining.iter().map(|node| node.0).collect(),
    }
}

/// A shard's configuration from a message; primary 0 stands for none.
#[must_use]
pub fn config_from_proto(config: &pb::ShardConfig) -> ShardConfig {
    ShardConfig {
        shard: ShardId(config.shard),
        epoch: Epoch(config.epoch),
        primary: (config.primary != 0).then_some(NodeId(config.primary)),
        in_sync: config.in_sync.iter().copied().map(NodeId).collect(),
        joining: config.joining.iter().copied().map(NodeId).collect(),
    }
}

/// The map as a message.
#[must_use]
pub fn map_to_proto(map: &ShardMap) -> pb::ShardMap {
    pb::ShardMap {
        version: map.version,
        cluster_id: map.cluster_id.clone(),
        shards: map.shards.iter().map(config_to_proto).collect(),
        nodes: map.nodes.iter().map(node_to_proto).collect(),
        replicas: map.replicas,
        min_insync: map.min_insync,
        limits: map.limits.iter().map(tenant_to_proto).collect(),
    }
}

/// The map from a message.
///
/// # Errors
/// `Invalid` when shards are not numbered from 0 without a gap, or a node has a role that this build does not know.
pub fn map_from_proto(map: pb::ShardMap) -> Result<ShardMap, Error> {
    let shards: Vec<ShardConfig> = map.shards.iter().map(config_from_proto).collect();
    if shards.iter().enumerate().any(|(index, config)| config.shard.0 as usize != index) {
        return Err(Error::new(
            ErrorKind::Invalid,
            "the shard map's shards are not numbered from 0 without a gap",
        ));
    }
    Ok(ShardMap {
        version: map.version,
        cluster_id: map.cluster_id,
        shards,
        nodes: map.nodes.into_iter().map(node_from_proto).collect::<Result<_, _>>()?,
        replicas: map.replicas,
        min_insync: map.min_insync,
        limits: map.limits.into_iter().map(tenant_from_proto).collect(),
    })
}

fn tenant_to_proto((tenant, limits): (&String, &LimitOverrides)) -> pb::TenantLimits {
    pb::TenantLimits { tenant: tenant.clone(), limits: Some(limits_to_proto(limits)) }
}

fn tenant_from_proto(of: pb::TenantLimits) -> (String, LimitOverrides) {
    (of.tenant, limits_from_proto(&of.limits.unwrap_or_default()))
}

/// A tenant's own limits as a message.
#[must_use]
pub fn limits_to_proto(limits: &LimitOverrides) -> pb::LimitOverrides {
    pb::LimitOverrides {
        rate: limits.rate,
        burst: limits.burst,
        max_labels: limits.max_labels,
        max_label_name_bytes: limits.max_label_name_bytes,
        max_label_value_bytes: limits.max_label_value_bytes,
    }
}

/// A tenant's own limits from a message.
#[must_use]
pub fn limits_from_proto(limits: &pb::LimitOverrides) -> LimitOverrides {
    LimitOverrides {
        rate: limits.rate,
        burst: limits.burst,
        max_labels: limits.max_labels,
        max_label_name_bytes: limits.max_label_name_bytes,
        max_label_value_bytes: limits.max_label_value_bytes,
    }
}

fn node_to_proto(node: &NodeInfo) -> pb::NodeInfo {
    let address = pb::NodeAddress {
        role: node.role.as_str().to_owned(),
        rpc: node.rpc.clone(),
        http: node.http.clone(),
        zone: node.zone.clone(),
        version: node.version.clone(),
    };
    pb::NodeInfo { node: node.id.0, address: Some(address), alive: node.alive, draining: node.draining }
}

fn node_from_proto(node: pb::NodeInfo) -> Result<NodeInfo, Error> {
    let address = node.address.unwrap_or_default();
    Ok(NodeInfo {
        id: NodeId(node.node),
        role: role_from_name(&address.role)?,
        rpc: address.rpc,
        http: address.http,
        zone: address.zone,
        version: address.version,
        alive: node.alive,
        draining: node.draining,
    })
}

/// The role of that name.
///
/// # Errors
/// `Invalid` for a name that this build does not know.
pub fn role_from_name(name: &str) -> Result<NodeRole, Error> {
    NodeRole::from_name(name)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("unknown node role {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_the_wire() {
        let config = ShardConfig {
            shard: ShardId(0),
            epoch: Epoch(7),
            primary: Some(NodeId(2)),
            in_sync: vec![NodeId(2), NodeId(3)],
            joining: vec![NodeId(4)],
        };
        let empty = ShardConfig {
            shard: ShardId(1),
            primary: None,
            in_sync: vec![],
            joining: vec![],
            ..config.clone()
        };
        let node = NodeInfo {
            id: NodeId(2),
            role: NodeRole::Querier,
            rpc: "a:1".into(),
            http: "a:2".into(),
            zone: "z".into(),
            version: "0.1".into(),
            alive: true,
            draining: true,
        };
        let map = ShardMap {
            version: 9,
            cluster_id: "c".into(),
            shards: vec![config, empty],
            nodes: vec![node],
            replicas: 3,
            min_insync: 2,
            limits: [("shop".to_owned(), LimitOverrides { rate: Some(5), ..LimitOverrides::default() })]
                .into(),
        };
        assert_eq!(map_from_proto(map_to_proto(&map)).unwrap(), map);
    }

    #[test]
    fn gaps_and_unknown_roles_are_refused() {
        let gap = pb::ShardMap {
            shards: vec![pb::ShardConfig { shard: 1, ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(map_from_proto(gap).unwrap_err().kind, ErrorKind::Invalid);
        let node = pb::NodeInfo {
            address: Some(pb::NodeAddress { role: "king".into(), ..Default::default() }),
            ..Default::default()
        };
        let odd = pb::ShardMap { nodes: vec![node], ..Default::default() };
        assert_eq!(map_from_proto(odd).unwrap_err().message, "unknown node role \"king\"");
    }
}
