//! The admin socket: who may bind it, its answers, and backups that fail.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use assert_matches::assert_matches;
use ruma::server_name;
use serde_json::json;
use tokio::net::UnixListener;

use crate::{
    clock::Timestamp,
    crypto::store::GhostStores,
    directory::{ClaimedBy, Directory, DirectorySettings, FreezeReason, HandlePage},
    engine::StorePart,
    handle::{Handle, HandleRules},
    matrix::install_crypto_provider,
    server::{
        Admin, AdminSocket, HandleDetails, Health, LastBackup, Reload, Reloaded, SOCKET, SelfTest,
        ServerError, StartedEngine, Status, admin_router,
    },
    shutdown,
    store::{Store, StoreKey, StoreOptions},
    testing::{TestClock, let_everybody_claim, person},
};

fn client(folder: &Path) -> reqwest::Client {
    install_crypto_provider();
    reqwest::Client::builder()
        .unix_socket(folder.join(SOCKET))
        .build()
        .unwrap()
}

fn admin(store: &Store) -> Admin {
    Admin {
        store: store.clone(),
        stores: GhostStores::open(store).unwrap(),
        health: Health::default(),
        self_test: SelfTest::default(),
        clock: Arc::new(TestClock::at(1_795_376_395_000)),
        reload: Arc::new(Reloads(Ok(Reloaded {
            permissions_changed: true,
            need_restart: vec!["log.level".to_owned()],
        }))),
        engine: StartedEngine::never(),
    }
}

#[derive(Debug)]
struct Reloads(Result<Reloaded, String>);

impl Reload for Reloads {
    fn reload(&self) -> Result<Reloaded, String> {
        self.0.clone()
    }
}

#[tokio::test]
async fn a_reload_says_what_changed_or_why_the_configuration_is_refused() {
    for refused in [None, Some("stonechat.yaml, line 3: no")] {
        let folder = tempfile::tempdir().unwrap();
        let mut admin = admin(&Store::in_memory());
        if let Some(why) = refused {
            admin.reload = Arc::new(Reloads(Err(why.to_owned())));
        }
        let socket = AdminSocket::bind(folder.path()).await.unwrap();
        let (trigger, stop) = shutdown::channel();
        let serving = tokio::spawn(socket.serve(admin_router(admin), stop));
        let asked = client(folder.path()).post("http://admin/v1/reload");
        let answer = asked.send().await.unwrap();
        match refused {
            None => {
                let reloaded: Reloaded = answer.json().await.unwrap();
                assert_eq!(reloaded.need_restart, ["log.level"]);
            }
            Some(why) => {
                assert_eq!(answer.status(), 422);
                assert_eq!(answer.text().await.unwrap(), why);
            }
        }
        trigger.pull();
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_running_service_writes_a_backup_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = Store::open(folder.path(), &key, &StoreOptions::default()).unwrap();
    let admin = admin(&store);
    let health = admin.health.clone();
    let socket = AdminSocket::bind(folder.path()).await.unwrap();
    let mode = std::fs::metadata(folder.path().join(SOCKET)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let (trigger, stop) = shutdown::channel();
    let serving = tokio::spawn(socket.serve(admin_router(admin), stop));

    let http = client(folder.path());
    let parts = http.get("http://admin/v1/sizes").send().await.unwrap();
    let parts: Vec<StorePart> = parts.json().await.unwrap();
    assert!(!parts.is_empty());
    let status = async || -> Status {
        let answer = http.get("http://admin/v1/status").send().await.unwrap();
        answer.json().await.unwrap()
    };
    assert!(!status().await.ready);
    health.mark_started();
    let found = status().await;
    assert!(found.ready && !found.restoring);
    let answer = http.post("http://admin/v1/backup").send().await.unwrap();
    let file = answer.error_for_status().unwrap().bytes().await.unwrap();
    let contents = Store::read_backup(&mut &*file, &key, &[]).unwrap();
    assert_eq!(contents.info.unwrap().at, Timestamp(1_795_376_395_000));
    let answer = http.get("http://admin/v1/backup").send().await.unwrap();
    let last: LastBackup = answer.json().await.unwrap();
    assert_eq!(last, LastBackup::default());

    trigger.pull();
    serving.await.unwrap();
    assert!(!folder.path().join(SOCKET).exists());
}

#[tokio::test]
async fn a_socket_of_a_dead_process_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET);
    // A killed process leaves its socket behind.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = AdminSocket::bind(folder.path()).await.unwrap();
    let error = AdminSocket::bind(folder.path()).await.unwrap_err();
    assert_matches!(&error, ServerError::AdminInUse(_));
    assert!(error.to_string().contains("stop that one"), "{error}");
    drop(first);

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    let error = AdminSocket::bind(folder.path()).await.unwrap_err();
    assert_matches!(error, ServerError::Admin { .. });
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn a_second_backup_at_the_same_time_and_other_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    // More than fits into the buffers of a client that does not read.
    struct Filling;
    impl crate::store::Table for Filling {
        const ID: u8 = 203;
        const NAME: &'static str = "filling";
        const SECRET: bool = false;
        type Key = u64;
        type Value = Vec<u8>;
    }
    for n in 0..64 {
        let mut batch = crate::store::Batch::new();
        batch.put::<Filling>(&n, &vec![7; 100_000]).unwrap();
        store.apply(batch).unwrap();
    }
    let socket = AdminSocket::bind(folder.path()).await.unwrap();
    let (_trigger, stop) = shutdown::channel();
    tokio::spawn(socket.serve(admin_router(admin(&store)), stop));
    let http = client(folder.path());
    let first = http.post("http://admin/v1/backup").send().await.unwrap();
    let second = http.post("http://admin/v1/backup").send().await.unwrap();
    assert_eq!(second.status(), 409);
    assert!(second.text().await.unwrap().contains("wait for it"));
    // A client that disconnects does not block the next backup.
    drop(first);
    loop {
        let third = http.post("http://admin/v1/backup").send().await.unwrap();
        if third.status() != 409 {
            assert!(third.bytes().await.unwrap().len() > 6_400_000);
            break;
        }
        tokio::task::yield_now().await;
    }
    let unknown = http.get("http://admin/v1/nothing").send().await.unwrap();
    assert_eq!(unknown.status(), 404);
}

#[tokio::test]
async fn handles_are_listed_by_owner_server_and_state_and_shown_one_by_one() {
    let store = Store::in_memory();
    let mut settings = DirectorySettings::new(server_name!("example.org").to_owned());
    let_everybody_claim(&mut settings);
    let directory = Directory::new(store.clone(), settings);
    let mut tx = directory.begin().await;
    let now = Timestamp(1_795_376_395_000);
    for (owner, name) in [
        ("@sam:example.org", "Sam"),
        ("@sam:example.org", "heron"),
        ("@bob:far.example:8448", "bob"),
    ] {
        let handle = Handle::parse(name, &HandleRules::default()).unwrap();
        tx.claim(person(owner), &handle, ClaimedBy::Person, now)
            .unwrap();
    }
    let heron = Handle::parse("heron", &HandleRules::default()).unwrap();
    let note = "an impostor".to_owned();
    tx.freeze(&heron, FreezeReason::Admin { note }, now)
        .unwrap();
    tx.commit().await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let socket = AdminSocket::bind(folder.path()).await.unwrap();
    let (trigger, stop) = shutdown::channel();
    let serving = tokio::spawn(socket.serve(admin_router(admin(&store)), stop));
    let http = client(folder.path());
    let listed = async |query: &str| -> Vec<String> {
        let url = format!("http://admin/v1/handles{query}");
        let answer = http.get(url).send().await.unwrap();
        let page: HandlePage = answer.json().await.unwrap();
        assert_eq!(page.next, None);
        page.handles
            .iter()
            .map(|it| it.handle.to_string())
            .collect()
    };
    assert_eq!(listed("").await, ["@bob", "@heron", "@Sam"]);
    assert_eq!(listed("?owner=@sam:example.org").await, ["@heron", "@Sam"]);
    assert_eq!(listed("?server=far.example").await, ["@bob"]);
    assert_eq!(listed("?state=frozen&server=example.org").await, ["@heron"]);
    assert_eq!(listed("?state=quarantined").await, [""; 0]);

    let shown = http
        .get("http://admin/v1/handles/HERON")
        .send()
        .await
        .unwrap();
    let shown: HandleDetails = shown.json().await.unwrap();
    assert_eq!(shown.summary.frozen_since, Some(now));
    for (name, status) in [("nobody", 404), ("no.handle", 400)] {
        let url = format!("http://admin/v1/handles/{name}");
        assert_eq!(http.get(url).send().await.unwrap().status(), status);
    }
    // Before the homeserver was found, nobody could be told.
    let act = json!({ "act": "freeze", "login": "root" });
    let early = http.post("http://admin/v1/handles/sam/acts").json(&act);
    assert_eq!(early.send().await.unwrap().status(), 503);
    trigger.pull();
    serving.await.unwrap();
}
