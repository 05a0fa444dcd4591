//! An allocation at a TURN server (RFC 8656), as a client makes it for a call.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use http::uri::Authority;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, lookup_host},
    time::{Instant, timeout_at},
};
use turn_client_proto::{
    api::{TurnClientApi, TurnConfig, TurnEvent, TurnPollRet},
    stun::{self, agent::Transmit},
    tcp::TurnClientTcp,
    types::TurnCredentials,
    udp::TurnClientUdp,
};

/// The port of a server that names none (RFC 7065).
const DEFAULT_PORT: u16 = 3478;

/// Maximum size of what a server sends at a time, in bytes.
const PIECE_BYTES: usize = 2_048;

/// The number of answers after which a server that has given no address refuses the credentials: the
/// first names the realm, and a later one may ask for another nonce.
const ANSWERS_MAX: u32 = 4;

const REFUSED: &str = "it refuses the credentials that the homeserver hands out";

/// The address of a TURN server, as a `turn:` URI, which is without TLS (RFC 7065).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnServer {
    authority: Authority,
    is_tcp: bool,
}

impl FromStr for TurnServer {
    type Err = ();

    fn from_str(uri: &str) -> Result<Self, ()> {
        let rest = uri.strip_prefix("turn:").ok_or(())?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_tcp = match query {
            "" | "transport=udp" => false,
            "transport=tcp" => true,
            _ => return Err(()),
        };
        let authority: Authority = authority.parse().map_err(drop)?;
        // The address of a TURN server has no user name in it.
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(());
        }
        Ok(Self { authority, is_tcp })
    }
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if self.is_tcp { "tcp" } else { "udp" };
        write!(f, "turn:{}?transport={transport}", self.authority)
    }
}

/// The connection to a TURN server.
enum TurnConnection {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl TurnConnection {
    async fn open(to: SocketAddr, is_tcp: bool) -> std::io::Result<Self> {
        if is_tcp {
            return Ok(Self::Tcp(TcpStream::connect(to).await?));
        }
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        Ok(Self::Udp(socket))
    }

    fn local_address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(stream) => stream.local_addr(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).await.map(drop),
            Self::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    async fn receive(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(into).await,
            Self::Tcp(stream) => match stream.read(into).await? {
                0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => Ok(read),
            },
        }
    }
}

/// Asks a TURN server for an address to be reached at, and gives it back. Returns the address, or why
/// there is none.
pub async fn allocate(
    server: &TurnServer,
    username: &str,
    password: &str,
    within: Duration,
) -> Result<SocketAddr, String> {
    let deadline = Instant::now() + within;
    let mut answers = 0;
    let allocating = async {
        let port = server.authority.port_u16().unwrap_or(DEFAULT_PORT);
        let host = server.authority.host().trim_matches(['[', ']']);
        let found = lookup_host((host, port)).await;
        let found = found
            .map_err(|error| format!("its name leads nowhere: {error}"))?
            .next();
        let to = found.ok_or("its name leads nowhere")?;
        let connection = TurnConnection::open(to, server.is_tcp).await;
        let connection = connection.map_err(|error| format!("no connection: {error}"))?;
        let from = connection
            .local_address()
            .map_err(|error| error.to_string())?;
        let config = TurnConfig::new(TurnCredentials::new(username, password));
        match server.is_tcp {
            true => {
                converse(
                    TurnClientTcp::allocate(from, to, config),
                    connection,
                    &mut answers,
                )
                .await
            }
            false => {
                converse(
                    TurnClientUdp::allocate(from, to, config),
                    connection,
                    &mut answers,
                )
                .await
            }
        }
    };
    match timeout_at(deadline, allocating).await {
        Ok(allocated) => allocated,
        // It has named its realm, and says nothing good about the credentials.
        Err(_) if answers > 1 => Err(REFUSED.to_owned()),
        Err(_) => Err(format!("no answer within {} s", within.as_secs())),
    }
}

/// Exchanges messages with a TURN server until it has given an address or refused.
async fn converse(
    mut client: impl TurnClientApi,
    mut connection: TurnConnection,
    answers: &mut u32,
) -> Result<SocketAddr, String> {
    let began = Instant::now();
    // The library's clock counts from any moment.
    let now = || {
        let elapsed = began.elapsed().as_nanos();
        stun::Instant::from_nanos(i64::try_from(elapsed).unwrap_or(i64::MAX))
    };
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let next = client.poll(now());
        while let Some(message) = client.poll_transmit(now()) {
            connection.send(&message.data).await.map_err(broken)?;
        }
        while let Some(event) = client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, address) => {
                    // If this is lost, the server takes the address back after ten minutes.
                    if client.delete(now()).is_ok()
                        && let Some(message) = client.poll_transmit(now())
                    {
                        let _ = connection.send(&message.data).await;
                    }
                    return Ok(address);
                }
                TurnEvent::AllocationCreateFailed(_) => {
                    return Err(REFUSED.to_owned());
                }
                _ => {}
            }
        }
        let wait = match next {
            TurnPollRet::WaitUntil(until) => until.as_nanos().saturating_sub(now().as_nanos()),
            TurnPollRet::Closed => return Err("it ended the connection".to_owned()),
            _ => 0,
        };
        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
        // At once would be a busy loop if the library had nothing to say.
        let wait = wait.max(Duration::from_millis(1));
        let received = timeout_at(Instant::now() + wait, connection.receive(&mut piece)).await;
        // Otherwise it is time to send something again.
        if let Ok(read) = received {
            let read = read.map_err(broken)?;
            let (from, to) = (client.remote_addr(), client.local_addr());
            let message = Transmit::new(&piece[..read], client.transport(), from, to);
            let _ = client.recv(message, now());
            *answers += u32::from(is_stun(&piece[..read]));
            if *answers > ANSWERS_MAX {
                return Err(REFUSED.to_owned());
            }
        }
    }
}

/// Returns whether this begins with the header of a STUN message (RFC 8489, section 5).
fn is_stun(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&[0x21, 0x12, 0xA4, 0x42])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_turn_servers_are_read_and_others_are_not() {
        for (uri, shown) in [
            (
                "turn:turn.example.org",
                "turn:turn.example.org?transport=udp",
            ),
            (
                "turn:turn.example.org:5349?transport=tcp",
                "turn:turn.example.org:5349?transport=tcp",
            ),
            (
                "turn:[2001:db8::1]:3478?transport=udp",
                "turn:[2001:db8::1]:3478?transport=udp",
            ),
        ] {
            assert_eq!(uri.parse::<TurnServer>().unwrap().to_string(), shown);
        }
        for uri in [
            "",
            "turn:",
            "turns:turn.example.org",
            "stun:turn.example.org",
            "turn:a?transport=sctp",
            "turn:eve@example.org",
            "turn:example.org/path",
        ] {
            assert!(uri.parse::<TurnServer>().is_err(), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_ends_the_connection_is_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = format!("turn:{}", silent.local_addr().unwrap());
        let server = address.parse().unwrap();
        let found = allocate(&server, "user", "secret", Duration::from_millis(200)).await;
        assert_eq!(found.unwrap_err(), "no answer within 0 s");
        let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("turn:{}?transport=tcp", rude.local_addr().unwrap());
        tokio::spawn(async move { drop(rude.accept().await) });
        let server = address.parse().unwrap();
        let found = allocate(&server, "user", "secret", Duration::from_secs(20)).await;
        assert!(found.unwrap_err().starts_with("the connection broke"));
        let nonsense = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = format!("turn:{}", nonsense.local_addr().unwrap());
        tokio::spawn(async move {
            let mut into = [0; 2_048];
            while let Ok((_, from)) = nonsense.recv_from(&mut into).await {
                let _ = nonsense.send_to(&[0xFF; 1_000], from).await;
            }
        });
        let server = address.parse().unwrap();
        let found = allocate(&server, "user", "secret", Duration::from_millis(300)).await;
        assert_eq!(found.unwrap_err(), "no answer within 0 s");
    }
}
