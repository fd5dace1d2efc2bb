//! An engine over TLS, as `DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` name it: what goes through, and what is
//! refused, each with one sentence that says why.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::engine_http::{one_container, serve};

/// A connection, as the engine has it.
type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is other about a certificate.
type Change = fn(&mut CertificateParams);

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: &str, change: Change) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// An engine that answers over TLS whoever has a certificate of its authority.
struct TlsStub {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TlsStub {
    fn new(authority: &Authority, own: &Identity) -> Self {
        Self::that(authority, own, |tls, requests| serve(tls, requests, &one_container))
    }

    /// One that does this with each connection.
    fn that(authority: &Authority, own: &Identity, does: fn(Tls, &Mutex<Vec<String>>)) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let stub = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let requests = stub.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, requests) = (config.clone(), requests.clone());
                std::thread::spawn(move || answer(stream, config, &requests, does));
            }
        });
        stub
    }

    /// What `tarsup plan` says to this engine, with its certificates in `folder`.
    fn planned(&self, host: &str, folder: &Path) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tarsup"))
            .arg("plan")
            .current_dir(folder)
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", format!("tcp://{host}:{}", self.port))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", folder)
            .env("TARSUP_STORE", folder.join("store"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), said.concat())
    }
}

fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    requests: &Mutex<Vec<String>>,
    does: fn(Tls, &Mutex<Vec<String>>),
) {
    let mut plain = stream.try_clone().unwrap();
    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    does(tls, requests);
    // A close with something unread would be a reset, which may overtake the alert that says why.
    let _ = plain.flush();
    let _ = plain.shutdown(Shutdown::Write);
    let _ = plain.read_to_end(&mut Vec::new());
}

/// A folder of certificates, with a deployment beside them.
fn folder(authority: &Authority, own: Option<&Identity>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("compose.yaml", "name: tls\nservices: {app: {image: \"tars:1\"}}\n");
    write("ca.pem", &authority.pem);
    if let Some(own) = own {
        write("cert.pem", &own.certificate);
        write("key.pem", &own.key);
    }
    folder
}

fn usual(_: &mut CertificateParams) {}

#[test]
fn engine_over_tls_is_asked_with_the_certificates_of_the_folder() {
    let authority = Authority::new("docker");
    let stub = TlsStub::new(&authority, &authority.sign("localhost", usual));
    let folder = folder(&authority, Some(&authority.sign("client", usual)));
    let (code, said) = stub.planned("localhost", folder.path());
    assert_eq!(code, Some(0), "{said}");
    let requests = stub.requests.lock().unwrap().clone();
    // Raw calls and bollard's go over the same connection.
    for call in ["GET /version", "GET /info", "GET /images/tars:1/json"] {
        assert!(requests.iter().any(|request| request == call), "{call}: {requests:#?}");
    }
}

/// What is said of an engine that must be refused, before it is asked anything.
fn refusal(stub: &TlsStub, host: &str, folder: &Path) -> String {
    let (code, said) = stub.planned(host, folder);
    assert!(matches!(code, Some(1 | 2)), "{code:?}: {said}");
    assert_eq!(*stub.requests.lock().unwrap(), Vec::<String>::new());
    let sentences: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        matches!(sentences.as_slice(), [error, hint] if error.starts_with("error: ") && hint.starts_with("  hint: ")),
        "{said}"
    );
    sentences[0].replace(&stub.port.to_string(), "PORT").replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn engine_with_a_certificate_of_another_authority_is_refused() {
    // One of another name, and one that only calls itself as the right one does.
    for name in ["other", "docker"] {
        let (authority, other) = (Authority::new("docker"), Authority::new(name));
        let stub = TlsStub::new(&authority, &other.sign("localhost", usual));
        let folder = folder(&authority, Some(&authority.sign("client", usual)));
        assert_eq!(
            refusal(&stub, "localhost", folder.path()),
            "error: the engine at tcp://localhost:PORT is not spoken to: its certificate is not signed by the authority \
             in FOLDER/ca.pem"
        );
    }
}

#[test]
fn engine_with_a_certificate_out_of_its_time_is_refused() {
    let authority = Authority::new("docker");
    let folder = folder(&authority, Some(&authority.sign("client", usual)));
    let times: [(Change, &str); 2] = [
        (|params| params.not_after = date_time_ymd(2020, 1, 2), "has expired on 2020-01-02"),
        (|params| params.not_before = date_time_ymd(3020, 1, 2), "is not valid before 3020-01-02"),
    ];
    for (time, words) in times {
        let stub = TlsStub::new(&authority, &authority.sign("localhost", time));
        assert_eq!(
            refusal(&stub, "localhost", folder.path()),
            format!("error: the engine at tcp://localhost:PORT is not spoken to: its certificate {words}")
        );
    }
}

#[test]
fn engine_with_a_certificate_for_another_name_is_refused() {
    let authority = Authority::new("docker");
    let stub = TlsStub::new(&authority, &authority.sign("engine.example", usual));
    let folder = folder(&authority, Some(&authority.sign("client", usual)));
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(
            refusal(&stub, host, folder.path()),
            format!(
                "error: the engine at tcp://{host}:PORT is not spoken to: its certificate is for engine.example, not for \
                 {host}"
            )
        );
    }
}

#[test]
fn client_without_a_certificate_or_with_one_that_the_engine_does_not_know_is_refused() {
    let authority = Authority::new("docker");
    let stub = TlsStub::new(&authority, &authority.sign("localhost", usual));
    let without = folder(&authority, None);
    assert_eq!(
        refusal(&stub, "localhost", without.path()),
        "error: tcp://localhost:PORT cannot be used: FOLDER/cert.pem: I/O error: No such file or directory (os error 2)"
    );
    for name in ["other", "docker"] {
        let of_another = folder(&authority, Some(&Authority::new(name).sign("client", usual)));
        let said = refusal(&stub, "localhost", of_another.path());
        // The alert may come before the request is sent, and then only ends the connection: both sentences say whose
        // certificate it is.
        assert!(
            said.starts_with("error: the engine at tcp://localhost:PORT is not spoken to: it "),
            "{said}"
        );
        assert!(said.contains("not accept the certificate FOLDER/cert.pem"), "{said}");
    }
}

#[test]
fn engine_that_hangs_up_on_the_first_request_may_not_know_the_client() {
    let authority = Authority::new("docker");
    let stub = TlsStub::that(&authority, &authority.sign("localhost", usual), |mut tls, _| {
        // The handshake is done and the request is read; what a reset would leave of an alert is nothing.
        let _ = tls.read(&mut [0; 1024]);
    });
    let folder = folder(&authority, Some(&authority.sign("client", usual)));
    assert_eq!(
        refusal(&stub, "localhost", folder.path()),
        "error: the engine at tcp://localhost:PORT is not spoken to: it ended the connection before it answered, as one \
         does that does not accept the certificate FOLDER/cert.pem"
    );
}

#[test]
fn nobody_at_the_address_is_nobody_whatever_the_certificates_are() {
    let authority = Authority::new("docker");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stub = TlsStub { port: free, requests: Arc::default() };
    let folder = folder(&authority, Some(&authority.sign("client", usual)));
    let said = refusal(&stub, "127.0.0.1", folder.path());
    assert!(said.starts_with("error: no Docker engine answers at tcp://127.0.0.1:PORT: "), "{said}");
}
