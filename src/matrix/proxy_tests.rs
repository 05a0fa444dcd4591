//! The proxies that requests use and do not use.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{Homeserver, HomeserverOptions};

/// The environment variable that tells the child the homeserver's URL.
const HOMESERVER: &str = "STONECHAT_TEST_HOMESERVER_OF_CHILD";

/// Starts a server that answers every connection with the versions, and counts them. Every request
/// must begin with `asked`.
fn answering(asked: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, SeqCst);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with(asked), "{head}");
            let body = r#"{"versions":["v1.11"]}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, connections)
}

async fn connects(url: &str, proxy: Option<String>) {
    let options = HomeserverOptions {
        proxy: proxy.map(|proxy| proxy.parse().unwrap()),
        request_timeout: Duration::from_secs(20),
        ..HomeserverOptions::default()
    };
    let url = url.parse().unwrap();
    Homeserver::connect(&url, "token".into(), options)
        .await
        .expect("the homeserver answers");
}

#[tokio::test]
async fn the_proxy_of_the_configuration_is_used() {
    let (proxy, connections) = answering("GET http://hs.invalid/_matrix/client/versions ");
    connects("http://hs.invalid", Some(format!("http://{proxy}"))).await;
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
#[ignore = "run by another test in a process with another environment"]
async fn child_with_a_proxy_in_its_environment() {
    connects(&std::env::var(HOMESERVER).unwrap(), None).await;
}

#[tokio::test]
async fn the_proxies_of_the_environment_are_not_used() {
    let (homeserver, asked) = answering("GET /_matrix/client/versions ");
    let (proxy, connections) = answering("GET ");
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "--ignored"])
        .arg("matrix::proxy_tests::child_with_a_proxy_in_its_environment")
        .env(HOMESERVER, format!("http://{homeserver}"))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, format!("http://{proxy}"));
    }
    let output = child.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_eq!(connections.load(SeqCst), 0, "the proxy was asked");
    assert_eq!(asked.load(SeqCst), 1);
}
