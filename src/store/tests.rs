//! The store as other rooms use it, in memory and on disk.

use std::{os::unix::fs::FileExt, path::Path, sync::Arc};

use assert_matches::assert_matches;
use serde::{Deserialize, Serialize};

use super::{
    backend::{Backend, Op},
    memory::MemoryBackend,
    sum::Sum,
    *,
};

struct Names;
impl Table for Names {
    const ID: u8 = 200;
    const NAME: &'static str = "names";
    const SECRET: bool = false;
    type Key = (String, u64);
    type Value = String;
}

struct Tokens;
impl Table for Tokens {
    const ID: u8 = 201;
    const NAME: &'static str = "tokens";
    const SECRET: bool = true;
    type Key = String;
    type Value = Token;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    token: String,
}

fn token(text: &str) -> Token {
    Token {
        token: text.to_owned(),
    }
}

fn name(owner: &str, number: u64) -> (String, u64) {
    (owner.to_owned(), number)
}

fn open(folder: &Path, key: &StoreKey) -> Result<Store, StoreError> {
    Store::open(
        folder,
        key,
        &StoreOptions {
            cache_bytes: 1024 * 1024,
        },
    )
}

/// Every file of a folder, by name.
fn bytes_of(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes_of(&path));
        } else {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn several_tables_change_in_one_batch() {
    let store = Store::in_memory();
    let mut batch = Batch::new();
    batch
        .put::<Names>(&name("sam", 1), &"one".to_owned())
        .unwrap();
    let mut more = Batch::new();
    more.put::<Names>(&name("sam", 2), &"two".to_owned())
        .unwrap();
    more.put::<Names>(&name("samuel", 1), &"other".to_owned())
        .unwrap();
    more.put::<Tokens>(&"t".to_owned(), &token("x")).unwrap();
    batch.merge(more);
    assert_eq!(batch.len(), 4);
    store.apply(batch).unwrap();

    assert_eq!(
        store.get::<Names>(&name("sam", 1)).unwrap().as_deref(),
        Some("one")
    );
    assert_eq!(
        store.get::<Tokens>(&"t".to_owned()).unwrap(),
        Some(token("x"))
    );
    assert!(store.contains::<Tokens>(&"t".to_owned()).unwrap());
    let sams = prefix(&"sam".to_owned());
    let page = store.scan::<Names>(&sams, None, 10).unwrap();
    assert_eq!(
        page,
        [
            (name("sam", 1), "one".to_owned()),
            (name("sam", 2), "two".to_owned())
        ]
    );
    let rest = store
        .scan::<Names>(&sams, Some(&name("sam", 1)), 10)
        .unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(
        store.last::<Names>(&sams).unwrap().unwrap().0,
        name("sam", 2)
    );
    assert_eq!(
        store.last::<Names>(&prefix(&"kim".to_owned())).unwrap(),
        None
    );
    let before = store
        .scan_back::<Names>(&[], Some(&name("samuel", 1)), 1)
        .unwrap();
    assert_eq!(before[0].0, name("sam", 2));

    let mut batch = Batch::new();
    batch.delete::<Names>(&name("sam", 1));
    batch.delete::<Tokens>(&"t".to_owned());
    store.apply(batch).unwrap();
    assert!(!store.contains::<Names>(&name("sam", 1)).unwrap());
    assert_eq!(store.get::<Tokens>(&"t".to_owned()).unwrap(), None);
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_written() {
    let mut batch = Batch::new();
    let long = "x".repeat(MAX_VALUE + 1);
    let error = batch.put::<Names>(&name("a", 1), &long).unwrap_err();
    assert_matches!(
        error,
        StoreError::TooLarge {
            what: "a value",
            ..
        }
    );
    let error = batch
        .put::<Names>(&name(&long, 1), &String::new())
        .unwrap_err();
    assert_matches!(error, StoreError::TooLarge { what: "a key", .. });
    assert!(batch.is_empty());
}

#[test]
fn an_error_about_a_record_does_not_show_it() {
    let store = Store::in_memory();
    let mut batch = Batch::new();
    batch.put_raw(
        [vec![Names::ID], name("k", 1).encode()].concat(),
        b"\xA6secret".to_vec(),
    );
    // A string where a map of fields is expected: serde would quote it.
    let key = [vec![Tokens::ID], "k".to_owned().encode()].concat();
    let sealed = store
        .inner
        .pending
        .sealer()
        .seal(&key, b"\xA6secret")
        .unwrap();
    batch.put_raw(key, sealed);
    store.apply(batch).unwrap();
    assert_eq!(
        store.get::<Names>(&name("k", 1)).unwrap().as_deref(),
        Some("secret")
    );
    let error = store.get::<Tokens>(&"k".to_owned()).unwrap_err();
    assert_matches!(
        &error,
        StoreError::Decode {
            table: "tokens",
            ..
        }
    );
    assert!(
        !format!("{error} {error:?}").contains("secret"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_restart_and_secrets_are_not_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    let mut batch = Batch::new();
    batch
        .put::<Names>(&name("sam", 1), &"in the open".to_owned())
        .unwrap();
    batch
        .put::<Tokens>(&"t".to_owned(), &token("hush hush hush"))
        .unwrap();
    store.commit(batch).await.unwrap();
    assert!(store.size_on_disk().unwrap() > 0);
    drop(store);

    let bytes = bytes_of(folder.path());
    assert!(contains(&bytes, b"in the open"));
    assert!(!contains(&bytes, b"hush hush"));

    let store = open(folder.path(), &key).unwrap();
    assert_eq!(
        store.get::<Names>(&name("sam", 1)).unwrap().as_deref(),
        Some("in the open")
    );
    assert_eq!(
        store.get::<Tokens>(&"t".to_owned()).unwrap(),
        Some(token("hush hush hush"))
    );
}

#[test]
fn another_key_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    drop(open(folder.path(), &key).unwrap());
    let wrong = open(folder.path(), &StoreKey::random().unwrap()).unwrap_err();
    assert_matches!(wrong, StoreError::WrongKey { .. });
    let store = open(folder.path(), &key).unwrap();
    assert_eq!(
        store.run().number,
        2,
        "the refused start does not count as a run"
    );
}

#[test]
fn two_at_a_time_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let first = open(folder.path(), &key).unwrap();
    assert_matches!(open(folder.path(), &key), Err(StoreError::InUse { .. }));
    drop(first);
    open(folder.path(), &key).unwrap();
}

#[tokio::test]
async fn a_run_that_did_not_end_is_noticed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let run = |number, sure_since| (number, sure_since);
    let seen = |store: &Store| run(store.run().number, store.run().sure_since);

    let first = open(folder.path(), &key).unwrap();
    assert!(!first.was_unclean());
    assert_eq!(seen(&first), run(1, 1));
    first.shut_down().await.unwrap();
    let mut batch = Batch::new();
    batch
        .put::<Names>(&name("late", 1), &String::new())
        .unwrap();
    assert_matches!(first.apply(batch), Err(StoreError::Closed));
    first.shut_down().await.unwrap();
    drop(first);

    let second = open(folder.path(), &key).unwrap();
    assert!(!second.was_unclean());
    assert_eq!(seen(&second), run(2, 1));
    drop(second);

    let third = open(folder.path(), &key).unwrap();
    assert!(third.was_unclean());
    assert_eq!(seen(&third), run(3, 3));
    third.shut_down().await.unwrap();
    drop(third);

    let fourth = open(folder.path(), &key).unwrap();
    assert!(!fourth.was_unclean());
    assert_eq!(
        seen(&fourth),
        run(4, 3),
        "what was before the crash stays unsure"
    );
}

#[test]
fn a_newer_schema_is_refused_and_an_older_one_is_brought_up_to_date() {
    fn add_one(backend: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        let old = backend.get(&[200, 1])?.unwrap_or_default();
        Ok(vec![Op::Put(vec![200, 1], [old, vec![1]].concat())])
    }
    fn add_two(backend: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        let old = backend.get(&[200, 1])?.unwrap_or_default();
        Ok(vec![Op::Put(vec![200, 1], [old, vec![2]].concat())])
    }
    fn fail(_: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        Err(StoreError::Backup("no".to_owned()))
    }
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let key = StoreKey::random().unwrap();
    let start = |steps| Store::start(backend.clone(), key.clone(), None, steps);

    drop(start(&[]).unwrap());
    assert_matches!(
        start(&[add_one, fail]),
        Err(StoreError::Migration { from: 5, .. })
    );
    assert_eq!(
        backend.get(&[200, 1]).unwrap(),
        Some(vec![1]),
        "the first step is done for good"
    );
    drop(start(&[add_one, add_two]).unwrap());
    assert_eq!(backend.get(&[200, 1]).unwrap(), Some(vec![1, 2]));
    drop(start(&[add_one, add_two]).unwrap());
    assert_eq!(
        backend.get(&[200, 1]).unwrap(),
        Some(vec![1, 2]),
        "and only once"
    );

    let error = start(&[]).unwrap_err();
    assert_matches!(
        error,
        StoreError::NewerSchema {
            found: 6,
            known: 4,
            ..
        }
    );
    assert!(error.to_string().contains("run a newer stonechat"));
}

#[test]
fn a_store_from_before_the_first_release_is_refused_with_words() {
    let (folder, key) = filled();
    let options = StoreOptions::default();
    let backend = sled::SledBackend::open(&folder.path().join("sled"), &options).unwrap();
    backend.apply(vec![meta::schema(3)]).unwrap();
    backend.flush().unwrap();
    drop(backend);
    let error = read_all(folder.path(), &key).unwrap_err();
    assert_matches!(
        error,
        StoreError::OlderSchema {
            found: 3,
            oldest: 4,
            ..
        }
    );
    assert!(error.to_string().contains("begin with an empty folder"));
}

/// What damage at the end of a segment does: the last batches are gone, with all that they carried.
#[test]
fn a_confirmed_batch_cannot_go_together_with_the_sum_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    let sum = [meta::ID, b'h'];
    let database = store.inner.pending.backend();
    let before = database.get(&sum).unwrap().unwrap();
    let number = Sum::kept(database).unwrap().unwrap().batches();
    let mut batch = Batch::new();
    batch.put::<Names>(&name("n", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    store.flush_blocking().unwrap();
    drop(store);

    let options = StoreOptions::default();
    let backend = sled::SledBackend::open(&folder.path().join("sled"), &options).unwrap();
    let (lost, _) = backend.scan(&[Names::ID], None, 1).unwrap()[0].clone();
    let back = vec![Op::Delete(lost), Op::Put(sum.to_vec(), before)];
    backend.apply(back).unwrap();
    backend.flush().unwrap();
    drop(backend);
    let error = read_all(folder.path(), &key).unwrap_err();
    assert_matches!(
        error,
        StoreError::LostWrites { found, expected, .. } if (found, expected) == (number, number + 1)
    );
}

#[test]
fn a_folder_with_something_else_in_its_database_is_refused() {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    backend
        .apply(vec![Op::Put(b"foreign".to_vec(), b"data".to_vec())])
        .unwrap();
    let error = Store::start(backend, StoreKey::random().unwrap(), None, &[]).unwrap_err();
    assert_matches!(error, StoreError::Damaged { .. });
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused_with_words() {
    let key = StoreKey::random().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_matches!(open(&file, &key), Err(StoreError::Io { .. }));
    let kinds = [
        (std::io::ErrorKind::ReadOnlyFilesystem, "write access"),
        (std::io::ErrorKind::PermissionDenied, "write access"),
        (std::io::ErrorKind::StorageFull, "free some space"),
        (std::io::ErrorKind::QuotaExceeded, "free some space"),
    ];
    for (kind, words) in kinds {
        let error = StoreError::io("open", Path::new("/x"), &std::io::Error::from(kind));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.is_fatal());
    }
}

#[test]
fn a_read_only_folder_is_refused_with_words() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (folder, key) = filled();
    let read_only = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(folder.path(), read_only.clone()).unwrap();
    std::fs::set_permissions(folder.path().join("lock"), read_only).unwrap();
    let outcome = open(folder.path(), &key);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    // Permissions do not hold root back.
    if std::fs::metadata(folder.path()).unwrap().uid() == 0 {
        assert_eq!(outcome.unwrap().check().unwrap(), 1000 + 4);
    } else {
        assert_matches!(outcome, Err(StoreError::NotWritable { .. }));
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the committer's thread is not tokio's"
)]
fn what_nobody_waits_for_is_flushed_all_the_same() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    let before = backend.flushes.load(SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while backend.flushes.load(SeqCst) == before {
        assert!(std::time::Instant::now() < patience, "it never was");
        std::thread::yield_now();
    }
    let after = backend.flushes.load(SeqCst);
    store.flush_blocking().unwrap();
    assert_eq!(
        backend.flushes.load(SeqCst),
        after,
        "and with nothing new nothing is flushed"
    );
}

/// A store with a thousand records, flushed in ten parts, closed.
fn filled() -> (tempfile::TempDir, StoreKey) {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    for part in 0..10u64 {
        let mut batch = Batch::new();
        for n in 0..100 {
            batch
                .put::<Names>(&name("n", part * 100 + n), &"x".repeat(500))
                .unwrap();
        }
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
    }
    drop(store);
    (folder, key)
}

/// Open and read everything, in every way. `Err` is a loud failure, `Ok` the number of records.
fn read_all(folder: &Path, key: &StoreKey) -> Result<usize, StoreError> {
    let store = open(folder, key)?;
    let count = store.scan::<Names>(&[], None, 10_000)?.len();
    assert_eq!(
        store.scan_back::<Names>(&[], None, 10_000)?.len(),
        count,
        "backwards"
    );
    for n in 0..1000 {
        assert!(
            store.contains::<Names>(&name("n", n))? || count < 1000,
            "{n}"
        );
    }
    Ok(count)
}

#[test]
fn a_database_cut_short_is_an_error_and_never_a_smaller_database() {
    let (folder, key) = filled();
    let log = folder.path().join("sled/db");
    let length = std::fs::metadata(&log).unwrap().len();
    let copy = tempfile::tempdir().unwrap();
    for keep in [
        0,
        1,
        100,
        length / 4,
        length / 2,
        length * 3 / 4,
        length - 1,
    ] {
        let place = copy.path().join(keep.to_string());
        copy_folder(folder.path(), &place);
        let file = std::fs::File::options()
            .write(true)
            .open(place.join("sled/db"))
            .unwrap();
        file.set_len(keep).unwrap();
        match read_all(&place, &key) {
            Ok(count) => assert_eq!(count, 1000, "cut to {keep} of {length}: silent loss"),
            Err(error) => assert!(error.is_fatal(), "{error}"),
        }
    }
    // Nothing left at all: sled alone would make a new, empty database.
    let place = copy.path().join("empty");
    copy_folder(folder.path(), &place);
    std::fs::remove_dir_all(place.join("sled")).unwrap();
    assert_matches!(
        read_all(&place, &key),
        Err(StoreError::LostWrites { found: 0, .. })
    );
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
}

#[test]
fn a_damaged_byte_is_an_error_and_never_a_smaller_database() {
    let (folder, key) = filled();
    let copy = tempfile::tempdir().unwrap();
    let length = std::fs::metadata(folder.path().join("sled/db"))
        .unwrap()
        .len();
    let mut loud = 0;
    for part in 0..24u64 {
        let place = copy.path().join(part.to_string());
        copy_folder(folder.path(), &place);
        let file = std::fs::File::options()
            .write(true)
            .open(place.join("sled/db"))
            .unwrap();
        let random = random().unwrap();
        let (from, size) = random.as_slice().split_first_chunk().unwrap();
        let within = u64::from(u32::from_be_bytes(*from)) % (length / 24);
        let at = (part * length / 24 + within).min(length - 256);
        file.write_all_at(&[0xA5; 256][..=usize::from(size[0])], at)
            .unwrap();
        // What opens it repairs it: whoever starts again must not find everything in order.
        let outcomes = [read_all(&place, &key), read_all(&place, &key)];
        for (time, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(count) => assert_eq!(
                    count, 1000,
                    "damage at {at} of {length}: silent loss at opening {time}"
                ),
                Err(error) => {
                    assert!(error.is_fatal(), "{error}");
                    loud += 1;
                }
            }
        }
    }
    assert!(loud > 0, "no damage was ever met");
}

#[test]
fn a_database_that_passed_over_something_is_made_anew_whatever_the_moment_of_a_crash() {
    let (folder, key) = filled();
    let (place, old) = (folder.path().join("sled"), folder.path().join("renewed"));
    let doubt = || std::fs::write(place.join("doubt"), "something was passed over").unwrap();
    let bytes = || std::fs::read(place.join("db")).unwrap();
    doubt();
    let before = bytes();
    let wrong = open(folder.path(), &StoreKey::random().unwrap()).unwrap_err();
    assert_matches!(wrong, StoreError::WrongKey { .. });
    assert!(place.join("doubt").exists() && bytes().starts_with(&before[..4096]));
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    let renewed = || !place.join("doubt").exists() && !old.exists();
    assert!(renewed() && !folder.path().join("renewing").exists());

    // The old one was moved aside, and the new one was not in its place yet.
    doubt();
    std::fs::rename(&place, &old).unwrap();
    std::fs::create_dir(folder.path().join("renewing")).unwrap();
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    assert!(renewed());
    // The new one was in its place, and the old one was still there.
    copy_folder(&place, &old);
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    assert!(renewed());
    assert_eq!(open(folder.path(), &key).unwrap().run().number, 5);
}

/// Where nothing is wrong nothing is counted, or every start would read everything. sled may leave
/// a place that looks wrong and is not, so that one store says little.
#[test]
fn a_database_that_is_whole_is_opened_without_counting() {
    let mut doubts = Vec::new();
    for _ in 0..5 {
        let (folder, _) = filled();
        let log = std::fs::File::open(folder.path().join("sled/db")).unwrap();
        // sled's threads hold the lock until they have written all.
        log.lock().unwrap();
        doubts.extend(super::sled_log::skipped(&folder.path().join("sled")).unwrap());
    }
    assert!(doubts.len() < 5, "{doubts:?}");
}

#[test]
fn an_older_copy_of_the_database_is_noticed() {
    let (folder, key) = filled();
    let copy = tempfile::tempdir().unwrap();
    let old = copy.path().join("old");
    copy_folder(&folder.path().join("sled"), &old);
    for n in 0..3 {
        let store = open(folder.path(), &key).unwrap();
        let mut batch = Batch::new();
        batch
            .put::<Names>(&name("later", n), &String::new())
            .unwrap();
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
    }
    std::fs::remove_dir_all(folder.path().join("sled")).unwrap();
    copy_folder(&old, &folder.path().join("sled"));
    assert_matches!(
        open(folder.path(), &key),
        Err(StoreError::LostWrites { .. })
    );
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A backend whose flushes can be held up, and can fail.
#[derive(Debug, Default)]
struct Slow {
    map: MemoryBackend,
    flushes: std::sync::atomic::AtomicUsize,
    gate: std::sync::Mutex<()>,
    failing: std::sync::atomic::AtomicBool,
    panicking: std::sync::atomic::AtomicBool,
    unreadable: std::sync::atomic::AtomicBool,
}

impl Backend for Slow {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.unreadable.load(std::sync::atomic::Ordering::SeqCst) {
            let error = std::io::Error::other("a bad sector");
            return Err(StoreError::io("use", Path::new("/disk"), &error));
        }
        self.map.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<backend::Record>, StoreError> {
        self.map.scan(prefix, after, limit)
    }
    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<backend::Record>, StoreError> {
        self.map.scan_back(prefix, before, limit)
    }
    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        self.map.apply(ops)
    }
    fn flush(&self) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::SeqCst;
        let _gate = self.gate.lock().unwrap();
        self.flushes.fetch_add(1, SeqCst);
        assert!(!self.panicking.load(SeqCst), "the flush panics");
        if self.failing.load(SeqCst) {
            let path = Path::new("/disk").to_owned();
            return Err(StoreError::Full {
                path,
                why: "full".to_owned(),
            });
        }
        Ok(())
    }
    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn over(backend: &Arc<Slow>) -> Store {
    Store::start(backend.clone(), StoreKey::random().unwrap(), None, &[]).unwrap()
}

#[tokio::test]
async fn many_writers_share_a_flush_and_readers_do_not_wait_for_it() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    let before = backend.flushes.load(SeqCst);
    let waiting: Vec<_> = {
        let _closed = backend.gate.lock().unwrap();
        let waiting: Vec<_> = (0..100)
            .map(|n| {
                let mut batch = Batch::new();
                batch.put::<Names>(&name("w", n), &String::new()).unwrap();
                store.apply(batch).unwrap();
                store.inner.committer.ask()
            })
            .collect();
        assert_eq!(store.scan::<Names>(&[], None, 1000).unwrap().len(), 100);
        waiting
    };
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    let flushes = backend.flushes.load(SeqCst) - before;
    assert!(
        (1..=2).contains(&flushes),
        "{flushes} flushes for 100 writers"
    );
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_promised_any_more() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    backend.failing.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    assert_matches!(store.commit(batch).await, Err(StoreError::Full { .. }));
    backend.failing.store(false, SeqCst);
    // The disk may be well again, but the write that it dropped is not on it.
    assert_matches!(store.flush().await, Err(StoreError::Stopped(_)));
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Stopped(_)));
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Stopped(_))
    );
}

/// Waits for the failure of the store, as those who end the process do.
async fn failure_of(store: &Store) -> StoreError {
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, store.failure().happened())
        .await
        .expect("the store says that it has failed")
}

#[tokio::test]
async fn a_store_says_that_it_has_failed_though_nobody_waits_for_a_flush() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    assert!(store.failure().get().is_none());
    backend.failing.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    assert_matches!(failure_of(&store).await, StoreError::Full { .. });
}

#[tokio::test]
async fn a_panic_of_the_thread_that_flushes_is_a_failure_of_the_store() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    backend.panicking.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.commit(batch).await.unwrap_err();
    assert_matches!(failure_of(&store).await, StoreError::Stopped(_));
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Stopped(_)));
}

#[tokio::test]
async fn a_record_that_the_disk_does_not_give_back_is_a_failure_of_the_store() {
    use std::sync::atomic::Ordering::SeqCst;
    let backend = Arc::new(Slow::default());
    let store = over(&backend);
    backend.unreadable.store(true, SeqCst);
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Io { .. })
    );
    assert_matches!(failure_of(&store).await, StoreError::Io { .. });
    backend.unreadable.store(false, SeqCst);
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Stopped(_))
    );
}

#[tokio::test]
async fn a_store_that_is_closed_has_not_failed() {
    let store = Store::in_memory();
    let failure = store.failure();
    store.shut_down().await.unwrap();
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Closed));
    drop(store);
    assert!(failure.get().is_none(), "{failure:?}");
}

#[tokio::test]
async fn what_was_applied_is_durable_after_a_flush_and_counted_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &StoreKey::random().unwrap()).unwrap();
    for round in 1..=3 {
        let mut batch = Batch::new();
        batch
            .put::<Names>(&name("sam", round), &"x".to_owned())
            .unwrap();
        let before = store.applied();
        store.apply(batch).unwrap();
        let applied = store.applied();
        assert_eq!(applied, before + 1);
        store.flush().await.unwrap();
        assert_eq!(store.durable(), applied);
    }
    assert_eq!(store.applied(), store.durable());
}
