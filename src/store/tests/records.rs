//! Records: what goes in comes back, within its limits.

use assert_matches::assert_matches;

use super::*;

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
fn a_record_that_is_too_large_is_refused_before_anything_is_written() {
    let mut batch = Batch::new();
    let long = "x".repeat(VALUE_BYTES_MAX + 1);
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
    // A string where a map of fields is expected, which serde would quote.
    let key = [vec![Tokens::ID], "k".to_owned().encode()].concat();
    let sealed = store
        .inner
        .memtable
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

#[test]
fn nobody_changes_what_an_exclusive_change_has_read() {
    let store = Store::in_memory();
    let count = || -> Result<usize, StoreError> {
        let count = store.get::<Names>(&name("count", 1))?;
        Ok(count.map_or(0, |count| count.len()))
    };
    let write = |length: usize| -> Result<Batch, StoreError> {
        let mut batch = Batch::new();
        batch.put::<Names>(&name("count", 1), &"x".repeat(length))?;
        Ok(batch)
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let one_more = || write(count()? + 1);
                    store.apply_exclusively(one_more).unwrap();
                }
            });
        }
    });
    assert_eq!(count().unwrap(), 400);
    let failing = store.apply_exclusively(|| Err(StoreError::Closed));
    assert_matches!(failing, Err(StoreError::Closed));
    assert_eq!(count().unwrap(), 400);
}
