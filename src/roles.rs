//! Starting each role, and all of them together: which listener serves what, and who is given whom.
//!
//! In one process the metadata member and the data node are handed over as the services themselves; otherwise the same
//! calls go over gRPC. Nothing else differs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tricord_ingester::Ingester;
use tricord_metadata_client::{Cluster, NodeAddress};
use tricord_proxy::Proxy;
use tricord_querier::Querier;
use tricord_runtime::{Shutdown, bind, serve_grpc};
use tricord_wire::{DataNodeServer, Metadata, MetadataServer};

use crate::process::Process;
use crate::settings::Settings;
use crate::{banner, data_dir, own_telemetry};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    All,
    Ingester,
    Querier,
    Proxy,
    Metadata,
}

impl Role {
    const ALL: [(&'static str, Self); 5] = [
        ("all", Self::All),
        ("ingester", Self::Ingester),
        ("querier", Self::Querier),
        ("proxy", Self::Proxy),
        ("metadata", Self::Metadata),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(of, _)| *of == name).map(|(_, role)| *role)
    }

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, role)| *role == self).map_or("all", |(name, _)| name)
    }

    fn stores(self) -> bool {
        matches!(self, Self::All | Self::Querier | Self::Metadata)
    }

    fn has_ingester(self) -> bool {
        matches!(self, Self::All | Self::Ingester)
    }
}

/// The sockets of a process, bound before anything else starts: a taken port must not cost a log replay.
struct Sockets {
    http: TcpListener,
    rpc: Option<TcpListener>,
    otlp: Option<tricord_ingester::Listeners>,
}

impl Sockets {
    async fn bind(role: Role, settings: &Settings) -> Result<Self> {
        let http = bind(&settings.http_listen, "--http-listen").await?;
        let rpc = if role.stores() { Some(bind(&settings.rpc_listen, "--rpc-listen").await?) } else { None };
        let otlp = if role.has_ingester() {
            Some(tricord_ingester::Listeners {
                otlp_grpc: bind(&settings.otlp_grpc_listen, "--otlp-grpc-listen").await?,
                otlp_http: bind(&settings.otlp_http_listen, "--otlp-http-listen").await?,
            })
        } else {
            None
        };
        Ok(Self { http, rpc, otlp })
    }

    /// Where others reach this process. The host is the advertised one; ports are those really bound.
    fn address(&self, role: Role, settings: &Settings) -> Result<NodeAddress> {
        let http = self.http.local_addr()?;
        let listen = match &self.rpc {
            Some(rpc) => rpc.local_addr()?,
            None => http,
        };
        let rpc = match settings.advertise.as_str() {
            "" if listen.ip().is_unspecified() && matches!(role, Role::Querier | Role::Metadata) => bail!(
                "others cannot reach {listen}: say with --advertise HOST:PORT under which address they can reach \
                 --rpc-listen"
            ),
            "" if listen.ip().is_unspecified() => format!("127.0.0.1:{}", listen.port()),
            "" => listen.to_string(),
            given => given.to_owned(),
        };
        let host = rpc.rsplit_once(':').map_or(rpc.as_str(), |(host, _)| host);
        Ok(NodeAddress {
            role: role.as_str().to_owned(),
            http: format!("{host}:{}", http.port()),
            zone: settings.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rpc,
        })
    }
}

/// Runs a role, or all of them, until shutdown.
pub(crate) async fn run(role: Role, mut process: Process, shutdown: Shutdown) -> Result<()> {
    if role == Role::All && !process.settings.metadata.is_empty() {
        bail!(
            "all roles in one process have a metadata member of their own: leave --metadata out, or start a role of \
             that cluster (tricord querier, ingester or proxy)"
        );
    }
    let _lock = if role.stores() { Some(data_dir::lock(&process.settings.data_dir)?) } else { None };
    let sockets = Sockets::bind(role, &process.settings).await?;
    let address = sockets.address(role, &process.settings)?;
    tracing::info!(role = role.as_str(), version = address.version, http = address.http, "starting");
    let Sockets { http, rpc, otlp } = sockets;
    process.serve_http(http);
    // A stop during a long log replay must not wait for its end.
    let started = tokio::select! {
        started = start(role, &mut process, &address, rpc, otlp) => started,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("stopped while starting")),
    };
    if let Err(error) = started {
        shutdown.trigger();
        process.run(shutdown).await?;
        return Err(error);
    }
    process.run(shutdown).await
}

async fn start(
    role: Role,
    process: &mut Process,
    address: &NodeAddress,
    rpc: Option<TcpListener>,
    otlp: Option<tricord_ingester::Listeners>,
) -> Result<()> {
    let mut grpc = Routes::default();
    let cluster = match role {
        Role::All | Role::Metadata => {
            let member = start_metadata(role, process, address).await?;
            grpc = grpc.add_service(MetadataServer::service(member.clone()));
            Cluster::local(member)?
        }
        _ if process.settings.metadata.is_empty() => {
            bail!("this role needs a cluster: give its metadata members with --metadata HOST:PORT,…")
        }
        _ => Cluster::connect(&process.settings.metadata)?,
    };
    cluster.register_metrics(&mut process.metrics.registry());
    if role == Role::Metadata {
        // Members wait for `cluster init`, which needs this listener: it cannot wait for them.
        serve_rpc(process, rpc, grpc);
    } else {
        let mut querier = None;
        if role.stores() {
            let node = start_querier(process, &cluster, address).await?;
            grpc = grpc.add_service(DataNodeServer::service(node.service()));
            querier = Some(node);
        }
        serve_rpc(process, rpc, grpc);
        if let Some(querier) = querier {
            process.on_close("data node", async move { Ok(querier.stop().await?) });
        }
    }
    let mut routes = Router::new();
    let ingester = match role.has_ingester() {
        true => start_ingester(process, &cluster, otlp, &mut routes),
        false => own_telemetry::own_ingester(process, cluster.clone()),
    };
    if matches!(role, Role::All | Role::Proxy) {
        routes = routes.merge(start_proxy(process, &cluster)?);
    }
    own_telemetry::start(process, role.as_str(), address.http.clone(), ingester);
    process.open(routes);
    if role == Role::All {
        greet(process, &cluster, address).await;
    }
    Ok(())
}

fn serve_rpc(process: &mut Process, listener: Option<TcpListener>, routes: Routes) {
    let Some(listener) = listener else { return };
    let back = process.back.clone();
    process.on_back(async move { Ok(serve_grpc(listener, routes, back).await?) });
}

async fn start_metadata(role: Role, process: &Process, address: &NodeAddress) -> Result<Arc<dyn Metadata>> {
    let config = process.settings.metadata_config(role == Role::All, &address.rpc)?;
    let deps = tricord_metadata::Deps::new(process.metrics.clone());
    let member = tricord_metadata::start(config, deps, process.back.clone()).await.context("metadata")?;
    let checked = member.clone();
    process.health.check("metadata", move || checked.readiness());
    Ok(member)
}

async fn start_querier(process: &Process, cluster: &Cluster, address: &NodeAddress) -> Result<Querier> {
    let config = process.settings.querier_config()?;
    let deps = tricord_querier::Deps {
        cluster: cluster.clone(),
        metrics: process.metrics.clone(),
        memory: process.memory.clone(),
        health: process.health.clone(),
        address: address.clone(),
    };
    tricord_querier::start(config, deps, process.back.clone()).await.context("data node")
}

fn start_ingester(
    process: &mut Process,
    cluster: &Cluster,
    listeners: Option<tricord_ingester::Listeners>,
    routes: &mut Router,
) -> Arc<Ingester> {
    let deps = tricord_ingester::Deps {
        cluster: cluster.clone(),
        metrics: process.metrics.clone(),
        memory: process.memory.clone(),
    };
    let ingester = Ingester::new(process.settings.ingester.clone(), deps);
    *routes = std::mem::take(routes).merge(tricord_ingester::router(ingester.clone()));
    let placed = cluster.clone();
    process.health.check("shard map", move || match placed.map().is_placed() {
        true => Ok(()),
        false => {
            Err("every shard needs a primary: is the cluster born, and are its data nodes up?".to_owned())
        }
    });
    if let Some(listeners) = listeners {
        let (served, metrics, front) = (ingester.clone(), process.metrics.clone(), process.front.clone());
        process.on_front(async move { Ok(tricord_ingester::run(served, listeners, &metrics, front).await?) });
    }
    ingester
}

fn start_proxy(process: &Process, cluster: &Cluster) -> Result<Router> {
    let config = process.settings.proxy_config();
    let deps = tricord_proxy::Deps { cluster: cluster.clone(), metrics: process.metrics.clone() };
    let proxy = Proxy::new(config, deps).context("query proxy")?;
    let checked = proxy.clone();
    process.health.check("proxy", move || checked.ready());
    Ok(proxy.router())
}

/// Tells people what to do next, once everything answers.
async fn greet(process: &Process, cluster: &Cluster, address: &NodeAddress) {
    if let Err(error) = cluster.wait_ready(Duration::from_secs(30)).await {
        tracing::warn!(%error, "shards have no primary yet; see /health/ready");
    }
    let settings = &process.settings;
    let text = banner::single_process(
        settings,
        &address.http,
        &settings.otlp_grpc_listen,
        &settings.otlp_http_listen,
    );
    banner::say(&text);
}
