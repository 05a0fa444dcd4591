//! Attacks and accidents that need a real connection.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::{TOKEN, options};
use crate::{
    server::{Limits, Listener, ServerError, router},
    shutdown::{self, Trigger},
    testing::FakeAppservice,
};

/// Longer than any step takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// How long a test looks for an answer that must not come.
const NOT_AT_ONCE: Duration = Duration::from_millis(200);

struct Running {
    address: SocketAddr,
    appservice: FakeAppservice,
    trigger: Trigger,
    server: JoinHandle<()>,
}

async fn start(limits: Limits, appservice: FakeAppservice) -> Running {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits)
        .await
        .unwrap();
    let address = listener.address();
    let (trigger, shutdown) = shutdown::channel();
    let server = tokio::spawn(listener.serve(router(appservice.clone(), options()), shutdown));
    Running {
        address,
        appservice,
        trigger,
        server,
    }
}

fn head(txn: &str, length: usize) -> String {
    format!(
        "PUT /_matrix/app/v1/transactions/{txn} HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n"
    )
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.trigger.pull();
        timeout(SOON, self.server).await.expect("ends").unwrap();
    }

    fn accepted(&self) -> usize {
        self.appservice.transactions().len()
    }
}

/// Reads the next answer and returns its status.
async fn status(stream: &mut TcpStream) -> u16 {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    };
    timeout(SOON, read).await.expect("an answer comes")
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is a way of closing too.
    let _ = timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .expect("is closed");
    rest
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut stream = running.connect().await;
    for n in 0..20 {
        let request = format!("{}{{}}", head(&n.to_string(), 2));
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, 200);
    }
    assert_eq!(running.accepted(), 20);
    running.stop().await;
    assert_eq!(rest(&mut stream).await, b"");
}

/// Synapse keeps several connections, and uses them by turns.
#[tokio::test]
async fn two_connections_that_take_turns_are_no_gap_and_new_ones_after_them_are() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut streams = [running.connect().await, running.connect().await];
    for n in 1..=6 {
        let request = format!("{}{{}}", head(&n.to_string(), 2));
        let stream = &mut streams[n % 2];
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(stream).await, 200);
    }
    for mut stream in streams {
        // The server has seen that it is closed once it closes it too.
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    }
    let mut after_restart = running.connect().await;
    let request = format!("{}{{}}", head("7", 2));
    after_restart.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&mut after_restart).await, 200);
    let transactions = running.appservice.transactions();
    let gaps: Vec<&str> = transactions
        .iter()
        .filter(|transaction| transaction.after_gap)
        .map(|transaction| &*transaction.id)
        .collect();
    assert_eq!(gaps, ["1", "7"]);
    running.stop().await;
}

/// A reverse proxy between the homeserver and us may do this.
#[tokio::test]
async fn a_connection_for_each_transaction_is_no_gap_for_long() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    for n in 1..=20 {
        let mut stream = running.connect().await;
        let request = format!("{}{{}}", head(&n.to_string(), 2));
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, 200);
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    }
    let transactions = running.appservice.transactions();
    assert!(transactions[4..].iter().all(|it| !it.after_gap));
    running.stop().await;
}

#[tokio::test]
async fn a_body_in_drips_is_taken_when_it_is_whole_and_not_before() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut stream = running.connect().await;
    let body = r#"{"events":[{"a":1}]}"#;
    stream
        .write_all(head("1", body.len()).as_bytes())
        .await
        .unwrap();
    for byte in body.bytes() {
        assert_eq!(running.accepted(), 0);
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(status(&mut stream).await, 200);
    assert_eq!(running.accepted(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_body_in_chunks_is_taken_and_one_without_end_is_not() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let chunked = head("1", 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let mut stream = running.connect().await;
    stream
        .write_all(format!("{chunked}1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut stream).await, 200);

    // A ping is read as a whole, and has an end.
    let ping = chunked.replace(
        "PUT /_matrix/app/v1/transactions/1",
        "POST /_matrix/app/v1/ping",
    );
    stream.write_all(ping.as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        for _ in 0..64 {
            if writer.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let mut said = [0; 12];
    timeout(SOON, reader.read_exact(&mut said))
        .await
        .expect("an answer comes")
        .unwrap();
    assert_eq!(&said, b"HTTP/1.1 413");
    flood.abort();
    assert_eq!(running.accepted(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_before_it_comes() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut stream = running.connect().await;
    let ping = head("1", 33 << 20);
    let ping = ping.replace(
        "PUT /_matrix/app/v1/transactions/1",
        "POST /_matrix/app/v1/ping",
    );
    stream.write_all(ping.as_bytes()).await.unwrap();
    assert_eq!(status(&mut stream).await, 413);
    assert_eq!(rest(&mut stream).await, b"");
    running.stop().await;
}

#[tokio::test]
async fn a_body_is_not_waited_for_without_the_token() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut stream = running.connect().await;
    let bare = head("1", 1 << 20).replace(TOKEN, "wrong");
    stream.write_all(bare.as_bytes()).await.unwrap();
    assert_eq!(status(&mut stream).await, 403);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_leaves_nothing() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut stream = running.connect().await;
    stream
        .write_all(format!("{}{{\"eve", head("1", 100)).as_bytes())
        .await
        .unwrap();
    drop(stream);
    let mut other = running.connect().await;
    other
        .write_all(format!("{}{{}}", head("2", 2)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut other).await, 200);
    assert_eq!(running.accepted(), 1);
    running.stop().await;
}

#[tokio::test]
async fn garbage_and_endless_heads_are_refused() {
    let running = start(
        Limits {
            head_bytes_max: 16 << 10,
            ..Limits::default()
        },
        FakeAppservice::new(),
    );
    let running = running.await;
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000));
    let long_header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(40_000));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(500));
    let two_lengths = head("1", 2).replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n");
    let smuggled = head("1", 2).replace("Host: a", "Transfer-Encoding : chunked");
    for garbage in [
        "\x16\x03\x01\x02\0\x01\0\x01",
        "hello\r\n\r\n",
        "GET /health\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long_line,
        &long_header,
        &many,
        &two_lengths,
        &smuggled,
    ] {
        let mut stream = running.connect().await;
        // The server may refuse it before all is written.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let answer = rest(&mut stream).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{garbage:.40}: {answer}"
        );
    }
    assert_eq!(running.accepted(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_valid_token_is_closed_and_one_with_it_may_be_idle() {
    let limits = Limits {
        authentication_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = start(limits, FakeAppservice::new()).await;
    let mut idle = running.connect().await;
    idle.write_all(format!("{}{{}}", head("1", 2)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut idle).await, 200);

    let mut silent = running.connect().await;
    let mut slow = running.connect().await;
    slow.write_all(b"PUT /_matrix/app/v1/transactions/1 HTTP/1.1\r\n")
        .await
        .unwrap();
    // A wrong token, kept alive.
    let mut wrong = running.connect().await;
    let wrong_head = head("1", 0).replace(TOKEN, "wrong");
    wrong.write_all(wrong_head.as_bytes()).await.unwrap();
    assert_eq!(status(&mut wrong).await, 403);
    let mut unknown = running.connect().await;
    unknown
        .write_all(b"GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&mut unknown).await, 404);
    for stream in [&mut silent, &mut slow, &mut wrong, &mut unknown] {
        assert_eq!(rest(stream).await, b"");
    }
    idle.write_all(format!("{}{{}}", head("2", 2)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut idle).await, 200, "closed with the others");
    running.stop().await;
}

#[tokio::test]
async fn heads_in_drips_do_not_lengthen_the_life_of_a_connection() {
    let limits = Limits {
        authentication_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = start(limits, FakeAppservice::new()).await;
    let (mut reader, mut writer) = running.connect().await.into_split();
    let drips = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            if writer.write_all(b"X: y\r\n").await.is_err() {
                break;
            }
        }
    });
    let mut answer = Vec::new();
    let _ = timeout(SOON, reader.read_to_end(&mut answer))
        .await
        .expect("is closed");
    drips.abort();
    running.stop().await;
}

#[tokio::test]
async fn idle_connections_do_not_keep_the_homeserver_out() {
    const IDLE: usize = 300;
    assert!(IDLE > Limits::default().connections_max);
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut stream = running.connect().await;
        if n % 2 == 0 {
            // It asked for something that needs no token, and keeps the connection.
            stream
                .write_all(b"GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
        }
        idle.push(stream);
    }
    let began = tokio::time::Instant::now();
    let mut homeserver = running.connect().await;
    homeserver
        .write_all(format!("{}{{}}", head("1", 2)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut homeserver).await, 200);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // More of them do not push it out again.
    for _ in 0..100 {
        idle.push(running.connect().await);
    }
    homeserver
        .write_all(format!("{}{{}}", head("2", 2)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&mut homeserver).await, 200);
    assert_eq!(rest(&mut idle[1]).await, b"", "the first ones had to go");
    drop(idle);
    running.stop().await;
}

#[tokio::test]
async fn a_probe_is_answered_and_its_connection_closed() {
    let running = start(Limits::default(), FakeAppservice::new()).await;
    let mut probe = running.connect().await;
    probe
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&mut probe).await, 200);
    assert_eq!(rest(&mut probe).await, b"");
    running.stop().await;
}

#[tokio::test]
async fn above_the_number_of_connections_one_waits_for_another_to_go() {
    let running = start(
        Limits {
            connections_max: 2,
            ..Limits::default()
        },
        FakeAppservice::new(),
    )
    .await;
    let mut held = Vec::new();
    for n in 0..2 {
        let mut stream = running.connect().await;
        stream
            .write_all(format!("{}{{}}", head(&n.to_string(), 2)).as_bytes())
            .await
            .unwrap();
        assert_eq!(status(&mut stream).await, 200);
        held.push(stream);
    }
    let mut third = running.connect().await;
    third
        .write_all(format!("{}{{}}", head("3", 2)).as_bytes())
        .await
        .unwrap();
    let waiting = timeout(NOT_AT_ONCE, third.read_u8()).await;
    assert!(waiting.is_err(), "served beyond the limit");
    held.pop();
    assert_eq!(status(&mut third).await, 200);
    running.stop().await;
}

#[tokio::test]
async fn going_down_waits_for_the_transaction_under_way() {
    let running = start(Limits::default(), FakeAppservice::new().with_gate()).await;
    let mut stream = running.connect().await;
    stream
        .write_all(format!("{}{{}}", head("1", 2)).as_bytes())
        .await
        .unwrap();
    let Running {
        address,
        appservice,
        trigger,
        server,
    } = running;
    appservice.wait_for_arrivals(1).await;
    trigger.pull();
    assert!(!server.is_finished());
    let answer = timeout(NOT_AT_ONCE, stream.read_u8()).await;
    assert!(answer.is_err(), "answered before it was durable");
    appservice.release(1);
    assert_eq!(status(&mut stream).await, 200);
    timeout(SOON, server).await.expect("ends").unwrap();
    assert_eq!(appservice.transactions().len(), 1);
    assert!(TcpStream::connect(address).await.is_err(), "still listens");
}

#[tokio::test]
async fn what_is_being_stored_is_stored_though_the_homeserver_hangs_up() {
    let running = start(Limits::default(), FakeAppservice::new().with_gate()).await;
    let mut stream = running.connect().await;
    stream
        .write_all(format!("{}{{}}", head("1", 2)).as_bytes())
        .await
        .unwrap();
    running.appservice.wait_for_arrivals(1).await;
    drop(stream);
    // Synapse sends the transaction again after 60 s, while the first one is still running.
    let mut again = running.connect().await;
    again
        .write_all(format!("{}{{}}", head("1", 2)).as_bytes())
        .await
        .unwrap();
    running.appservice.wait_for_arrivals(2).await;
    running.appservice.release(2);
    assert_eq!(status(&mut again).await, 200);
    let both = running.appservice.wait_for_accepted(2);
    timeout(SOON, both).await.expect("both were handed over");
    running.stop().await;
}

#[tokio::test]
async fn a_port_in_use_and_an_address_of_another_machine_are_told_apart() {
    let first = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default())
        .await
        .unwrap();
    let error = Listener::bind(first.address(), Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ServerError::InUse { .. }));
    assert!(error.to_string().contains("appservice.listen"), "{error}");
    let error = Listener::bind(([192, 0, 2, 1], 29331).into(), Limits::default()).await;
    assert!(matches!(error.unwrap_err(), ServerError::Listen { .. }));
}
