//! The list of all handles.

use super::*;

#[tokio::test]
async fn a_long_list_comes_in_pages_each_handle_once() {
    let directory = directory();
    let mut tx = directory.begin().await;
    for n in 0..1_203 {
        let name = handle(&format!("n{n:04}x"));
        let owner = person(&format!("@p{n}:example.org"));
        tx.claim(owner, &name, ClaimedBy::Person, NOW).unwrap();
    }
    tx.claim(alice(), &handle("alice"), ClaimedBy::Person, NOW)
        .unwrap();
    tx.commit().await.unwrap();
    let all = async |filter: &HandleFilter| {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = list_handles(directory.store(), filter, after.as_deref()).unwrap();
            found.extend(page.handles.into_iter().map(|it| it.handle.to_string()));
            pages += 1;
            after = page.next;
            if after.is_none() {
                return (found, pages);
            }
        }
    };
    let (found, pages) = all(&HandleFilter::default()).await;
    assert_eq!((found.len(), pages), (1_204, 3));
    assert!(found.is_sorted());
    let of_alice = HandleFilter {
        owner: Some(alice().clone().into()),
        ..HandleFilter::default()
    };
    assert_eq!(all(&of_alice).await.0, ["@alice"]);
    let (found, _) = all(&HandleFilter {
        server: Some("elsewhere.org".to_owned()),
        ..HandleFilter::default()
    })
    .await;
    assert_eq!(found, [""; 0]);
}
