//! What becomes of the conversations of a person who is erased.

use super::*;
use crate::{directory::ActingAdmin, engine::records::OwedGhosts};

#[tokio::test]
async fn a_chat_of_two_ends_with_an_erased_person_and_a_group_goes_on() {
    let (it, direct, group) = direct_and_group(false).await;
    assert_eq!(direct.people[0].user, group.people[0].user);
    let by = ActingAdmin::Login("root".to_owned());
    let erased = it.engine.erase_person(&direct.people[0].user, &by, "");
    erased.await.unwrap();
    let is_to_go = |ghost: &Ghost| it.store.contains::<OwedGhosts>(ghost).unwrap();
    assert!(is_to_go(&direct.people[0].ghost));
    assert!(!is_to_go(&group.people[0].ghost));
}
