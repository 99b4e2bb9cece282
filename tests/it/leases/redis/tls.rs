//! Redis behind TLS, with a certificate authority of the test's own.

use std::{path::PathBuf, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rowgate::lease::{Acquired, Error, LeaseStore, RedisOptions, RedisStore, Signal};

use crate::{
    leases::rig::{LONG, job, options, soon},
    support::{redis::Server, temp_dir},
};

/// Certificates in a folder: `ca.pem`, `other.pem`, and the server's, signed by the first.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = temp_dir();
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let ca = authority();
        write("ca.pem", ca.pem());
        write("other.pem", authority().pem());
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names).unwrap();
        write("server.pem", server.signed_by(&key, &ca).unwrap().pem());
        write("server.key", key.serialize_pem());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_its_authority_alone() {
    let certificates = Certificates::make();
    let path = |name| certificates.path(name).display().to_string();
    let tls_port = crate::support::redis::free_port();
    let server = Server::start(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let open = async |url: &str, ca: Option<&str>, command_timeout: Duration| {
        RedisStore::open(RedisOptions {
            ca_file: ca.map(|name| certificates.path(name)),
            command_timeout,
            ..options(url, "q")
        })
        .await
        .unwrap()
    };
    let patience = Duration::from_secs(20);
    for host in ["localhost", "127.0.0.1"] {
        let store = open(
            &format!("rediss://{host}:{tls_port}"),
            Some("ca.pem"),
            patience,
        )
        .await;
        let acquired = store.acquire(&[job(1)], LONG).await.unwrap();
        assert_eq!(acquired, [Acquired::Held]);
        soon("it listens", store.listens()).await;
        let mut heard = store.signals();
        store.signal(Signal::Limits).await.unwrap();
        assert_eq!(soon("the signal", heard.recv()).await, Ok(Signal::Limits));
    }
    let url = format!("rediss://localhost:{tls_port}");
    for ca in [Some("other.pem"), None] {
        let store = open(&url, ca, patience).await;
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
    }
    // Nobody speaks TLS there: an error, and not a wait.
    let plain = format!("rediss://localhost:{}", server.port);
    let store = open(&plain, Some("ca.pem"), Duration::from_millis(500)).await;
    store.check().await.unwrap_err();
}
