//! The router on a TCP port, which anybody may reach.

use std::{io, net::SocketAddr};

use axum::Router;
use tokio::net::TcpListener;

use super::{
    ServerError,
    connections::{Connections, Limits},
};
use crate::shutdown::Shutdown;

/// A port that is bound and not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Listener {
    /// Binds the address of `appservice.listen`.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, ServerError> {
        Self::bind_for("appservice.listen", address, limits).await
    }

    /// Binds the address of an option of the configuration, which errors name.
    pub(super) async fn bind_for(
        option: &'static str,
        address: SocketAddr,
        limits: Limits,
    ) -> Result<Self, ServerError> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|reason| match reason.kind() {
                io::ErrorKind::AddrInUse => ServerError::InUse { option, address },
                _ => ServerError::Listen {
                    option,
                    address,
                    reason,
                },
            })?;
        let address = socket.local_addr().unwrap_or(address);
        Ok(Self {
            socket,
            address,
            limits,
        })
    }

    /// Returns the address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` asks to end. Then no connection is accepted, idle ones are closed, and
    /// requests under way are answered within [`Limits::shutdown_timeout`].
    pub async fn serve(self, router: Router, stop: Shutdown) {
        let mut connections = Connections::new(self.limits);
        connections.accept_from(&self.socket, &router, &stop).await;
        drop(self.socket);
        connections.finish().await;
    }
}
