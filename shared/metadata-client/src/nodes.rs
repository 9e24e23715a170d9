//! Clients for data nodes: the service itself where it is in this process, else a cached connection.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tricord_model::NodeId;
use tricord_routing::ShardMap;
use tricord_wire::{DataNode, Error, ErrorKind};

use crate::dial::Dial;

/// The clients that were handed out so far.
pub(crate) struct Nodes {
    dial: Arc<dyn Dial>,
    /// Connections live here, whichever thread asks for them first.
    runtime: Option<Handle>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    local: HashMap<NodeId, Arc<dyn DataNode>>,
    remote: HashMap<NodeId, Remote>,
}

struct Remote {
    address: String,
    client: Arc<dyn DataNode>,
}

impl Nodes {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, runtime: Handle::try_current().ok(), state: Mutex::default() }
    }

    pub(crate) fn set_local(&self, node: NodeId, service: Arc<dyn DataNode>) {
        self.state.lock().local.insert(node, service);
    }

    pub(crate) fn is_local(&self, node: NodeId) -> bool {
        self.state.lock().local.contains_key(&node)
    }

    /// The client for a node at the address that the map gives now.
    pub(crate) fn get(&self, node: NodeId, map: &ShardMap) -> Result<Arc<dyn DataNode>, Error> {
        let mut state = self.state.lock();
        if let Some(service) = state.local.get(&node) {
            return Ok(service.clone());
        }
        let address = match map.node(node) {
            Some(info) if !info.rpc.is_empty() => info.rpc.as_str(),
            _ => return Err(Error::new(ErrorKind::NotFound, format!("node {node} is not in the shard map"))),
        };
        if let Some(remote) = state.remote.get(&node).filter(|remote| remote.address == address) {
            return Ok(remote.client.clone());
        }
        let _inside = self.runtime.as_ref().map(Handle::enter);
        let client = self.dial.data_node(address)?;
        state.remote.retain(|known, _| map.node(*known).is_some());
        state.remote.insert(node, Remote { address: address.to_owned(), client: client.clone() });
        Ok(client)
    }
}
