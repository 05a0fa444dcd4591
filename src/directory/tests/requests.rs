//! Requests.

use super::*;

fn request(name: &str, asker: &Person, room: &str) -> Request {
    Request {
        handle: handle(name),
        generation: 1,
        asker: asker.to_owned(),
        room: ruma::RoomId::parse(room).unwrap(),
        ghost: Ghost::new(ruma::UserId::parse(format!("@_dm_{name}:example.org")).unwrap()),
        since: NOW,
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    }
}

async fn open(directory: &Directory, request: &Request) -> Option<u32> {
    write(directory, |tx| tx.open_request(sam(), request))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_keeps_its_number_and_the_asker_asks_once() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let policy = Policy {
        direct: Reach::Contacts,
        others: Others::Request,
    };
    write(&directory, |tx| {
        tx.set_policy(sam(), &handle("sam"), policy)
    })
    .await
    .unwrap();
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "request"
    );
    let first = request("sam", alice(), "!one:example.org");
    assert_eq!(open(&directory, &first).await, Some(1));
    assert_eq!(open(&directory, &first).await, Some(1), "the same again");
    // A second one of the same person is refused, in the words of every refusal.
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "limited"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "request"
    );
    let second = request("sam", kim(), "!two:example.org");
    assert_eq!(open(&directory, &second).await, Some(2));
    let closed = write(&directory, |tx| tx.close_request(sam(), 1)).await;
    assert_eq!(closed.unwrap(), Some(first.clone()));
    // A number that was answered is not given to somebody else while others wait.
    assert_eq!(open(&directory, &first).await, Some(3));
    write(&directory, |tx| {
        tx.withdraw_request(sam(), &second.room, &second.ghost)
    })
    .await
    .unwrap();
    let open_now = directory.requests_of(sam()).unwrap();
    assert_eq!(open_now, [(3, first)]);
    // With the handle its requests go.
    write(&directory, |tx| tx.release(sam(), &handle("sam"), NOW))
        .await
        .unwrap();
    assert_eq!(directory.requests_of(sam()).unwrap(), []);
}

#[tokio::test]
async fn a_handle_has_a_limited_number_of_requests() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let policy = Policy {
        direct: Reach::Nobody,
        others: Others::Request,
    };
    write(&directory, |tx| {
        tx.set_policy(sam(), &handle("sam"), policy)
    })
    .await
    .unwrap();
    for n in 0..REQUESTS_PER_HANDLE_MAX {
        let asker = person(&format!("@p{n}:example.org"));
        let request = request("sam", asker, &format!("!r{n}:example.org"));
        assert!(open(&directory, &request).await.is_some());
    }
    let one_more = request("sam", alice(), "!more:example.org");
    assert_eq!(open(&directory, &one_more).await, None);
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "limited"
    );
}
