//! What an engine draws.

use super::*;

#[tokio::test]
async fn the_same_seed_draws_the_same_ghosts() {
    let draws = async |seed: u64| {
        let built = testing::engine().seed(seed).build().await;
        built.engine.new_alias_ghost().unwrap()
    };
    assert_eq!(draws(1).await, draws(1).await);
    assert_ne!(draws(1).await, draws(2).await);
}
