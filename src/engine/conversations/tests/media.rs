//! Files of other homeservers: what arrives, what goes without them, and what their senders are told.

use super::*;

const MIB: usize = 1 << 20;

/// A conversation whose portal shows what is forwarded, unencrypted.
async fn begun() -> Talk {
    let it = Talk::begun().await;
    let alice = user_id!("@_dm_.palice:hs.test");
    it.engine
        .machines()
        .provision(alice, "Alice")
        .await
        .unwrap();
    it.fake
        .add_room(&portal(), &[alice, user_id!("@samuel:hs.test")]);
    it
}

impl Talk {
    /// Lets Alice send an event that is to be forwarded.
    fn says(&self, id: &str, kind: &str, content: Value) -> u64 {
        self.keep(&EventFactory::room(&origin()).event(kind, id, content));
        self.put_due(forward(id, RoomRole::Portal(1), true))
    }

    fn says_text(&self, id: &str) -> u64 {
        let content = json!({"msgtype": "m.text", "body": id});
        self.says(id, "m.room.message", content)
    }

    /// Tries an effect once. Returns whether it is done or given up.
    async fn tries(&mut self, number: u64) -> bool {
        let mut due = self.outbox(&origin()).into_iter();
        let (_, what) = due.find(|(known, _)| *known == number).unwrap();
        let since = self.engine.now();
        let due = OutboxItem { what, since };
        self.actor.room.carry_out(number, due).await.is_ok()
    }

    /// Tries an effect until it is done or given up. Returns how long that takes.
    async fn tries_on(&mut self, number: u64) -> Duration {
        let begun = self.engine.now();
        while !self.tries(number).await {
            self.clock.advance(Duration::from_secs(10));
            assert!(self.engine.now().since(begun) < DAY, "it takes too long");
        }
        self.engine.now().since(begun)
    }

    /// What was said in the portal.
    fn arrived(&self) -> Vec<Value> {
        let events = self.fake.events(portal().as_str()).into_iter();
        let said = events.filter(|event| event.state_key.is_none());
        said.map(|event| serde_json::from_str(event.content.get()).unwrap())
            .collect()
    }

    fn told(&self) -> Vec<String> {
        let notices = self.notices(&origin()).into_iter();
        let texts = notices.filter_map(|notice| match notice {
            Notice::NotForwarded { text } => Some(text),
            _ => None,
        });
        texts.collect()
    }

    fn put_media(&self, id: &str, bytes: Vec<u8>) {
        let kind = "application/octet-stream".to_owned();
        self.fake
            .with(|server| server.media.insert(id.to_owned(), (kind, bytes)));
    }

    /// The type and the bytes of a file on our homeserver.
    fn media(&self, address: &Value) -> (String, Vec<u8>) {
        let id = address.as_str().unwrap().strip_prefix("mxc://hs.test/");
        self.fake.with(|server| server.media[id.unwrap()].clone())
    }
}

fn video() -> Value {
    json!({"msgtype": "m.video", "body": "harbour.mp4", "info": {"mimetype": "video/mp4"},
           "file": {"url": "mxc://far.example/video", "v": "v2", "key": {"k": "a2V5"}, "iv": "AAAA"}})
}

#[tokio::test]
async fn a_large_file_of_another_homeserver_arrives_as_it_is() {
    let mut it = begun().await;
    let bytes: Vec<u8> = (0..9 * MIB).map(|n| (n % 251) as u8).collect();
    it.put_media("video", bytes.clone());
    let number = it.says("$one", "m.room.message", video());
    it.carry_out(number).await;
    let [arrived] = &it.arrived()[..] else {
        panic!("it did not arrive: {:?}", it.told());
    };
    let (kind, same) = it.media(&arrived["file"]["url"]);
    assert!(same == bytes, "the bytes are others");
    assert_eq!(kind, "application/octet-stream");
}

#[tokio::test]
async fn a_file_that_is_not_encrypted_keeps_its_type() {
    let mut it = begun().await;
    it.put_media("duck", b"quack".to_vec());
    let sticker = json!({"body": "duck", "url": "mxc://far.example/duck",
                         "info": {"mimetype": "image/png"}});
    let number = it.says("$one", "m.sticker", sticker);
    it.carry_out(number).await;
    let (kind, bytes) = it.media(&it.arrived()[0]["url"]);
    assert_eq!((kind.as_str(), &bytes[..]), ("image/png", &b"quack"[..]));
}

#[tokio::test]
async fn who_sends_too_large_a_file_is_told_the_limit() {
    let mut it = begun().await;
    it.fake
        .with(|server| server.upload_limit = Some(2 * MIB as u64));
    it.put_media("video", vec![7; 3 * MIB]);
    let number = it.says("$one", "m.room.message", video());
    it.carry_out(number).await;
    assert!(it.arrived().is_empty());
    let told = it.told();
    assert!(told.len() == 1 && told[0].contains("2 MB"), "{told:?}");
}

#[tokio::test]
async fn a_picture_that_cannot_be_had_does_not_hold_up_its_words() {
    let mut it = begun().await;
    for status in [404, 429, 502, 504] {
        it.fake.refuse_nothing();
        it.fake.refuse("media/download", status);
        let preview = json!({"og:title": "Example", "og:image": "mxc://far.example/picture",
                             "og:image:width": 7});
        let content = json!({"msgtype": "m.text", "body": "look",
                             "com.beeper.linkpreviews": [preview]});
        let id = format!("$of{status}");
        let number = it.says(&id, "m.room.message", content);
        assert_eq!(it.tries_on(number).await, Duration::ZERO, "{status}");
        let arrived = it.arrived().pop().unwrap();
        assert_eq!(arrived["body"], "look");
        let previews = &arrived["com.beeper.linkpreviews"];
        assert_eq!(*previews, json!([{"og:title": "Example"}]));
    }
    assert!(it.told().is_empty(), "{:?}", it.told());
}

#[tokio::test]
async fn a_picture_that_could_not_be_had_is_not_waited_for_again() {
    let mut it = begun().await;
    it.fake.refuse("media/download", 502);
    // The message itself is refused for a while too.
    it.fake.refuse("/send/m.room.message/", 502);
    let content = json!({"msgtype": "m.image", "body": "a.png", "url": "mxc://hs.test/local",
        "info": {"thumbnail_url": "mxc://far.example/small", "thumbnail_info": {"w": 1}}});
    let number = it.says("$one", "m.room.message", content);
    for _ in 0..3 {
        assert!(!it.tries(number).await);
    }
    it.fake.refuse_nothing();
    assert!(it.tries(number).await);
    let log = it.fake.log();
    let asked = log.iter().filter(|asked| asked.contains("media/download"));
    assert_eq!(asked.count(), 1);
    assert_eq!(it.arrived()[0]["info"], json!({}));
}

/// A sticker of another homeserver.
fn sticker(server: &str) -> Value {
    json!({"body": "duck", "url": format!("mxc://{server}/duck"), "info": {"mimetype": "image/png"}})
}

impl Talk {
    fn downloads(&self) -> usize {
        let log = self.fake.log();
        let asked = log.iter().filter(|asked| asked.contains("media/download"));
        asked.count()
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_had_holds_up_others_for_twenty_seconds() {
    let mut it = begun().await;
    it.fake.refuse("media/download", 504);
    let number = it.says("$one", "m.room.message", video());
    let tried = it.tries_on(number).await;
    assert!(
        tried >= Duration::from_secs(10) && tried <= Duration::from_secs(20),
        "{tried:?}"
    );
    let told = it.told();
    assert!(
        told.len() == 1 && told[0].contains("couldn't fetch"),
        "{told:?}"
    );
    let after = it.says_text("$after");
    it.carry_out(after).await;
    assert_eq!(it.arrived()[0]["body"], "$after");
}

#[tokio::test]
async fn a_server_that_fails_holds_up_others_once() {
    let mut it = begun().await;
    it.put_media("duck", b"quack".to_vec());
    it.fake.refuse("/far.example/", 502);
    let first = it.says("$first", "m.sticker", sticker("far.example"));
    it.tries_on(first).await;
    let asked = it.downloads();
    for id in ["$second", "$third"] {
        let number = it.says(id, "m.sticker", sticker("far.example"));
        assert!(it.tries(number).await, "it is given up at once");
    }
    assert_eq!(it.downloads(), asked);
    assert_eq!(it.told().len(), 3, "{:?}", it.told());

    // Another server is tried like any other.
    let other = it.says("$other", "m.sticker", sticker("other.example"));
    assert!(it.tries(other).await);
    assert_eq!(it.arrived().len(), 1);

    // From time to time it is tried once.
    it.clock.advance(Duration::from_secs(60));
    let fourth = it.says("$fourth", "m.sticker", sticker("far.example"));
    assert!(it.tries(fourth).await);
    assert_eq!(it.downloads(), asked + 2);
    it.fake.refuse_nothing();
    it.clock.advance(Duration::from_secs(60));
    let fifth = it.says("$fifth", "m.sticker", sticker("far.example"));
    assert!(it.tries(fifth).await);
    assert_eq!(it.arrived().len(), 2);
    it.fake.refuse("/far.example/", 502);
    let sixth = it.says("$sixth", "m.sticker", sticker("far.example"));
    assert!(!it.tries(sixth).await, "it is waited for again");
}

#[tokio::test]
async fn a_file_that_does_not_exist_is_tried_twice() {
    let mut it = begun().await;
    let number = it.says("$one", "m.sticker", sticker("far.example"));
    it.fake.refuse("media/download", 404);
    assert!(!it.tries(number).await);
    assert!(it.tries(number).await);
    assert_eq!(it.downloads(), 2);
    assert_eq!(it.told().len(), 1);
    // That says nothing about the server.
    it.fake.refuse_nothing();
    it.put_media("duck", b"quack".to_vec());
    let again = it.says("$two", "m.sticker", sticker("far.example"));
    assert!(it.tries(again).await);
    assert_eq!(it.arrived().len(), 1);
}

#[tokio::test]
async fn a_file_that_was_given_up_is_not_fetched_for_the_next_room_of_a_group() {
    let mut it = begun().await;
    it.fake.refuse("media/download", 502);
    let first = it.says("$one", "m.sticker", sticker("far.example"));
    let next = it.put_due(forward("$one", RoomRole::Portal(1), true));
    let begun = it.engine.now();
    while !it.tries(first).await {
        it.clock.advance(Duration::from_secs(5));
    }
    assert!(it.engine.now().since(begun) <= Duration::from_secs(20));
    it.keep(&EventFactory::room(&origin()).event("m.sticker", "$one", sticker("far.example")));
    let asked = it.downloads();
    // What is remembered of the server plays no part in it.
    it.clock.advance(DAY);
    assert!(it.tries(next).await);
    assert_eq!(it.downloads(), asked);
    let told = it.told();
    assert!(told.len() == 2 && told[0] == told[1], "{told:?}");
}

/// A ghost whose device was deleted on the homeserver is made again by a text; so it is by a file.
#[tokio::test]
async fn a_file_waits_for_a_ghost_that_the_homeserver_lost() {
    let mut it = begun().await;
    it.put_media("video", vec![7; 100]);
    let shown = user_id!("@_dm_.palice:hs.test");
    // First it is asked for its limit, and later for the file.
    for (n, id) in ["$one", "$two"].into_iter().enumerate() {
        it.fake.with(|server| {
            let account = server.accounts.get_mut(shown.as_str()).unwrap();
            account.devices.clear();
        });
        let number = it.says(id, "m.room.message", video());
        assert!(!it.tries(number).await);
        assert!(it.tries(number).await);
        assert_eq!(it.arrived().len(), n + 1, "{:?}", it.told());
        it.clock.advance(Duration::from_secs(120));
    }
}

#[tokio::test]
async fn a_file_that_is_still_being_uploaded_is_waited_for() {
    let mut it = begun().await;
    it.fake.refuse("media/download", 504);
    it.put_media("video", vec![7; 100]);
    let number = it.says("$one", "m.room.message", video());
    for _ in 0..3 {
        assert!(!it.tries(number).await);
    }
    it.fake.refuse_nothing();
    assert!(it.tries(number).await);
    assert_eq!(it.media(&it.arrived()[0]["file"]["url"]).1, [7; 100]);
}
