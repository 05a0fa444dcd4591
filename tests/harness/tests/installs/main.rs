//! The main stories on the Synapse that people run: on PostgreSQL, with workers, with Matrix
//! Authentication Service.
//!
//! Each test starts its installation once and tells everything on it. What a story means in detail is
//! in `tests/stories`, which runs on one process and SQLite.

mod steps;
#[expect(dead_code, reason = "these stories need a part of it")]
#[path = "../stories/told.rs"]
mod told;
mod workers;

use anyhow::{Result, ensure};
use harness::{
    Installation, PersonOptions, SynapseOptions, WorldOptions, synapse::workers::GENERIC,
};

use told::{Story, quick};

/// Sam holds `@sam` on such an installation, with the module.
async fn story(installation: Installation) -> Result<Story> {
    let options = WorldOptions {
        synapse: SynapseOptions {
            installation,
            ..SynapseOptions::default()
        },
        module: true,
        ..quick()
    };
    Story::begins_with(options, PersonOptions::default()).await
}

// Tests start in the order of their names: this one takes longest.
#[tokio::test]
async fn all_goes_well_across_workers() -> Result<()> {
    let mut story = story(Installation::Workers).await?;
    workers::module_is_seen_on_all(&story).await?;
    let found = steps::with_the_module(&story).await?;
    ensure!(found.contains(GENERIC) && found.contains("main"), "{found}");
    steps::without_the_module(&mut story).await?;
    workers::killed_and_started_again(&mut story).await?;
    workers::pushes_pause(&mut story).await
}

#[tokio::test]
async fn all_goes_well_on_postgresql() -> Result<()> {
    let mut story = story(Installation::Postgres).await?;
    let found = steps::with_the_module(&story).await?;
    ensure!(found.contains("seen on main:"), "{found}");
    steps::without_the_module(&mut story).await
}

#[tokio::test]
async fn all_goes_well_with_matrix_authentication_service() -> Result<()> {
    let mut story = story(Installation::Mas).await?;
    let password = story.alice.client.matrix_auth();
    let password = password.login_username(&story.alice.user_id, "any").await;
    ensure!(password.is_err(), "people sign in with passwords");
    // MAS asks before it makes an account: nobody can take a ghost's name.
    let synapse = &story.world.synapse;
    ensure!(synapse.name_is_free("nobody").await?);
    ensure!(!synapse.name_is_free("_dm_nobody").await?);
    let found = steps::with_the_module(&story).await?;
    ensure!(found.contains("seen on main:"), "{found}");
    steps::without_the_module(&mut story).await
}
