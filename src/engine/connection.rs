//! The connection to an engine: a socket, TCP or TLS, kept open from call to call.
//!
//! It carries bollard's typed calls and the raw ones of `raw` alike. bollard's own connections are opened anew for each
//! call; for a plan over many containers that is most of the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::{BollardRequest, ClientVersion, Docker};
use futures_util::future::BoxFuture;
use hyper::Response;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;

use super::address::{Address, configuration};
use super::patience::patience;
use super::{EngineError, Result, tls};

type Answer = BoxFuture<'static, std::result::Result<Response<Incoming>, legacy::Error>>;

/// A connection, and what to call it in errors.
#[derive(Clone)]
pub(super) struct Connection {
    /// The address, as a person would write it.
    pub address: String,
    /// True for a socket of this machine.
    pub is_near: bool,
    /// Scheme and authority of every request, such as `http://engine:2375`.
    pub origin: String,
    /// With TLS: the folder of the certificates.
    pub certificates: Option<PathBuf>,
    send: Arc<dyn Fn(BollardRequest) -> Answer + Send + Sync>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

impl Connection {
    /// A connection that has not spoken yet.
    pub fn open(address: &Address) -> Result<Self> {
        let (origin, send) = match address {
            Address::Unix(path) => {
                if !Path::new(path).exists() {
                    let (address, why) = (address.to_string(), format!("there is no socket {path}"));
                    return Err(EngineError::Unreachable { address, why });
                }
                let uri: hyper::Uri = hyperlocal::Uri::new(path, "/").into();
                let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                (format!("unix://{authority}"), pooled(hyperlocal::UnixConnector))
            }
            Address::Tcp(host) => (format!("http://{host}"), pooled(HttpConnector::new())),
            Address::Tls(host, folder) => {
                let config = tls::config(folder).map_err(|why| {
                    configuration(
                        format!("{address} cannot be used: {why}"),
                        "see that ca.pem, cert.pem and key.pem are there and readable",
                    )
                })?;
                let connector =
                    HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
                (format!("https://{host}"), pooled(connector.build()))
            }
        };
        let certificates = match address {
            Address::Tls(_, folder) => Some(folder.clone()),
            Address::Unix(_) | Address::Tcp(_) => None,
        };
        let is_near = matches!(address, Address::Unix(_));
        Ok(Self { address: address.to_string(), is_near, origin, certificates, send })
    }

    /// Sends one request; what is answered, whatever its status.
    pub fn send(&self, request: BollardRequest) -> Answer {
        (self.send)(request)
    }

    /// bollard's client over this connection, in this API version.
    pub fn bollard(&self, major: usize, minor: usize) -> Result<Docker> {
        let send = Arc::clone(&self.send);
        let transport = move |request| {
            let answer = send(request);
            async move { answer.await.map_err(bollard::errors::Error::from) }
        };
        let version = ClientVersion { major_version: major, minor_version: minor };
        Docker::connect_with_custom_transport(
            transport,
            Some(self.origin.as_str()),
            patience().as_secs().max(1),
            &version,
        )
        .map_err(|error| {
            configuration(format!("{} cannot be used: {error}", self.address), "see its address")
        })
    }
}

/// A client that keeps what it has opened.
fn pooled<C>(connector: C) -> Arc<dyn Fn(BollardRequest) -> Answer + Send + Sync>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Client::builder(TokioExecutor::new()).build(connector);
    Arc::new(move |request| Box::pin(client.request(request)))
}
