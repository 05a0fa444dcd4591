//! The kinds of installation, and what stands beside the main process in each.

use anyhow::Result;
use serde_json::{Map, Value};

use super::{mas::Mas, postgres::Postgres, redis::Redis, workers::Workers};

/// A kind of installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Installation {
    /// One process on SQLite.
    #[default]
    Sqlite,
    /// One process on PostgreSQL.
    Postgres,
    /// Four processes on PostgreSQL and Redis, behind a reverse proxy: see
    /// [`workers`](super::workers).
    Workers,
    /// One process on SQLite, whose people sign in with Matrix Authentication Service.
    Mas,
}

/// What stands beside the main process. Dropping it ends all of it.
#[derive(Default)]
pub(super) struct Parts {
    // In this order they end: databases last.
    pub workers: Option<Workers>,
    pub mas: Option<Mas>,
    pub redis: Option<Redis>,
    pub postgres: Option<Postgres>,
}

impl Parts {
    /// Starts everything but the workers.
    pub async fn prepare(installation: Installation, main_port: u16) -> Result<Self> {
        Ok(match installation {
            Installation::Sqlite => Self::default(),
            Installation::Postgres => Self {
                postgres: Some(Postgres::start().await?),
                ..Self::default()
            },
            Installation::Workers => Self {
                workers: Some(Workers::prepare(main_port).await?),
                redis: Some(Redis::start().await?),
                postgres: Some(Postgres::start().await?),
                ..Self::default()
            },
            Installation::Mas => Self {
                mas: Some(Mas::start().await?),
                ..Self::default()
            },
        })
    }

    /// What Synapse has to know of them (`homeserver.yaml`).
    pub fn configure(&self, config: &mut Map<String, Value>) {
        if let Some(postgres) = &self.postgres {
            config.insert("database".into(), postgres.settings());
        }
        if let Some(redis) = &self.redis {
            config.insert("redis".into(), redis.settings());
        }
        if let Some(workers) = &self.workers {
            workers.configure(config);
        }
        if let Some(mas) = &self.mas {
            mas.configure(config);
        }
    }
}
