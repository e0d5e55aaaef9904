//! Postgres over TLS, as its URL asks for it; and receivers whose certificate nobody vouches for.

use std::process::Stdio;

use cuewire_tests::event::id;
use cuewire_tests::{Receiver, Service, Setup, System};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::starting::run_to_its_end;

/// A certificate for 127.0.0.1 by an authority of its own, and another authority, made by the server's own user in
/// its data directory.
const CERTIFICATES: &str = "
    set -e
    authority() {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$1 \
            -keyout $1.key -out $1.crt
    }
    authority good
    authority other
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database -keyout server.key -out server.csr
    echo subjectAltName=IP:127.0.0.1 > server.ext
    openssl x509 -req -in server.csr -CA good.crt -CAkey good.key -CAcreateserial -days 2 -extfile server.ext \
        -out server.crt
    chmod 600 server.key";

/// Makes the database server speak TLS, and answers the files of the authority that it is certified by, and of
/// another.
async fn encrypt(system: &System) -> [std::path::PathBuf; 2] {
    let database = system.database().await;
    let make = format!("COPY (SELECT 1) TO PROGRAM $${CERTIFICATES}$$");
    database.batch_execute(&make).await.unwrap();
    database.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    database.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut paths = Vec::new();
    for name in ["good", "other"] {
        let read = format!("SELECT pg_read_file('{name}.crt')");
        let pem: String = database.query_one(&read, &[]).await.unwrap().get(0);
        let path = std::env::temp_dir().join(format!("cuewire-{}-{name}.pem", Uuid::new_v4().simple()));
        std::fs::write(&path, pem).unwrap();
        paths.push(path);
    }
    paths.try_into().unwrap()
}

#[test]
fn the_database_is_reached_over_tls_and_asked_who_it_is_where_its_url_says_so() {
    Setup::processes().own_servers().run(async |system| {
        let [good, other] = encrypt(system).await;
        let url = system.database_url().to_owned();
        let migrate = async |url: String| {
            let environment = system.environment();
            let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            run_to_its_end("api", &["migrate"], variables.chain([("DATABASE_URL", url.as_str())])).await
        };
        let verified =
            |root: &std::path::Path| format!("{url}?sslmode=verify-full&sslrootcert={}", root.display());
        for url in [verified(&good), format!("{url}?sslmode=require"), format!("{url}?sslmode=disable")] {
            let (code, said) = migrate(url.clone()).await;
            assert_eq!(code, Some(0), "{url}: {said}");
        }
        let by_name = verified(&good).replace("127.0.0.1", "localhost");
        for (url, reason) in [(verified(&other), "UnknownIssuer"), (by_name, "not valid for name")] {
            let (code, said) = migrate(url.clone()).await;
            assert_eq!(code, Some(1), "{url}: {said}");
            assert!(said.contains(reason), "{url}: {said}");
        }

        // Services that are not told anything encrypt what can be encrypted.
        system.stop(Service::Sender).await;
        system.start(Service::Sender).await;
        let encrypted = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
        let encrypted: i64 = system.database().await.query_one(encrypted, &[]).await.unwrap().get(0);
        assert!(encrypted > 0);
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(1).await;
        for path in [good, other] {
            std::fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn a_database_that_does_not_speak_tls_is_refused_where_the_url_requires_it() {
    Setup::processes().run(async |system| {
        let environment = system.environment();
        let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let url = format!("{}?sslmode=require", system.database_url());
        let (code, said) =
            run_to_its_end("api", &["migrate"], variables.chain([("DATABASE_URL", url.as_str())])).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("does not support TLS"), "{said}");
    });
}

/// A server that speaks TLS with a certificate of its own making, and its URL; it ends when it is dropped.
async fn self_certified() -> (Child, String) {
    let script = "
        cd $(mktemp -d)
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=receiver \
            -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem
        exec openssl s_server -accept 127.0.0.1:0 -cert cert.pem -key key.pem -www";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().expect("it is piped")).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            return (server, format!("https://{address}/"));
        }
    }
}

#[test]
fn a_receiver_whose_certificate_is_refused_is_a_failed_attempt_and_no_error_of_ours() {
    Setup::processes().run(async |system| {
        let (_server, url) = self_certified().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(url).schedule(&[]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "dead").await;
        let path = format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap());
        let delivery = organization.admin.get(&path).await.expect(200);
        let error = delivery["attempts"][0]["error"].as_str().unwrap();
        assert!(error.contains("certificate"), "{error}");
        let errors: Vec<_> = system.said(Service::Sender).await;
        let errors: Vec<_> = errors.iter().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors, Vec::<&String>::new());
    });
}
