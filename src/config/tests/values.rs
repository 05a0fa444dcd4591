//! Reading the configuration file, and values that are refused.

use super::*;
use crate::permissions::Permission;

#[test]
fn the_two_required_keys_are_enough() {
    assert_eq!(parse(MINIMAL).unwrap(), Config::default());
    assert!(refused("homeserver: {url: 'http://a'}").contains("server_name"));
    assert!(refused("homeserver: {server_name: a}").contains("url"));
    assert!(refused("").contains("homeserver"));
}

#[test]
fn an_unknown_key_is_refused_with_line_and_a_hint() {
    let error = refused(&format!("{MINIMAL}handles:\n  max_lenght: 3\n"));
    assert!(
        error.starts_with("stonechat.yaml, line 3: handles.max_lenght: unknown field `max_lenght`")
    );
    assert!(error.ends_with("did you mean `max_length`?"), "{error}");
    assert!(refused(&format!("{MINIMAL}zzz: 3\n")).ends_with("; remove it"));
}

#[test]
fn a_wrong_type_or_a_key_given_twice_is_refused_with_line_and_key() {
    for (text, key, line) in [
        (
            "handles: {max_length: many}\n",
            "handles.max_length",
            "line 2",
        ),
        (
            "handles: {max_length: -1}\n",
            "handles.max_length",
            "line 2",
        ),
        (
            "introductions:\n  linger: soon\n",
            "introductions.linger",
            "line 3",
        ),
        (
            "appservice:\n  listen: here\n",
            "appservice.listen",
            "line 3",
        ),
        (
            "relay:\n  media_at_most: much\n",
            "relay.media_at_most",
            "line 3",
        ),
        ("appservice:\n  url: ':'\n", "appservice.url", "line 3"),
        ("log: {level: loud}\n", "log.level", "line 2"),
        ("data: a\ndata: b\n", "data", "duplicate"),
        ("store: [\n", "", "line"),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(
            error.contains(key) && error.contains(line),
            "{text}: {error}"
        );
    }
    let error = refused("homeserver: {url: 'http://a', server_name: 'no spaces'}");
    assert!(error.contains("homeserver.server_name"), "{error}");
}

#[test]
fn what_a_library_refuses_comes_with_what_to_write_instead() {
    for (text, remedy) in [
        ("introductions: {linger: soon}\n", "as in 3s or 5min"),
        ("appservice: {listen: here}\n", "as in 127.0.0.1:29331"),
        (
            "appservice: {url: 'localhost'}\n",
            "as in http://127.0.0.1:8008",
        ),
        ("handles: {max_length: -1}\n", "a whole number"),
        ("data: a\ndata: b\n", "stand there once"),
        ("store:\n\tcache_mib: 3\n", "not with tabs"),
        ("store: [\n", "keys below it"),
        ("log: {level: info\n", "wrong indentation or bracket"),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(error.contains(remedy), "{text}: {error}");
    }
    assert!(refused("").contains("`stonechat init` writes"));
    let error = refused("homeserver: {url: 'http://a', server_name: '@sam:example.org'}");
    assert!(error.contains("as in example.org"), "{error}");
}

#[test]
fn a_value_that_cannot_work_is_refused_with_key_and_remedy() {
    for (text, key) in [
        (
            "homeserver: {url: 'ftp://a', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a:b@c', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a/?b', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a', server_name: a, timeout: 1s}",
            "homeserver.timeout",
        ),
    ] {
        let error = refused(text);
        assert!(
            error.starts_with(&format!("stonechat.yaml: {key}: ")),
            "{text}: {error}"
        );
    }
    for (text, key) in [
        ("appservice: {id: 'a b'}", "appservice.id"),
        ("appservice: {listen: '127.0.0.1:0'}", "appservice.listen"),
        ("appservice: {url: 'mailto:a@b'}", "appservice.url"),
        ("store: {cache_mib: 0}", "store.cache_mib"),
        ("handles: {min_length: 0}", "handles.min_length"),
        ("handles: {min_length: 20}", "handles.max_length"),
        ("handles: {max_length: 200}", "handles.max_length"),
        (
            "limits: {lookups_per_second: 0}",
            "limits.lookups_per_second",
        ),
        ("limits: {handles_per_room: 11}", "limits.handles_per_room"),
        (
            "introductions: {wait_for_owner: 8days}",
            "introductions.wait_for_owner",
        ),
        (
            "introductions: {wait_for_answer: 30days}",
            "introductions.wait_for_answer",
        ),
        ("introductions: {at_most: 1s}", "introductions.at_most"),
        (
            "introductions: {room_members: 2}",
            "introductions.room_members",
        ),
        (
            "crypto: {machines_in_memory: 0}",
            "crypto.machines_in_memory",
        ),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(
            error.starts_with(&format!("stonechat.yaml: {key}: ")),
            "{text}: {error}"
        );
        assert!(error.contains("; "), "no remedy: {error}");
    }
}

#[test]
fn a_value_that_is_too_little_is_refused_with_the_least_that_works() {
    let error = refused(&format!("{MINIMAL}introductions: {{room_members: 2}}"));
    assert!(error.ends_with("2 is too little; use 3 or more"), "{error}");
    assert!(parse(&format!("{MINIMAL}introductions: {{room_members: 3}}")).is_ok());
}

#[test]
fn permissions_are_read_by_person_server_and_for_everybody() {
    let text = format!(
        "{MINIMAL}permissions:\n  '@root:example.org': admin\n  friends.org: claim\n  '*': none\n"
    );
    let config = parse(&text).unwrap();
    let none = parse(&format!("{MINIMAL}permissions:\n")).unwrap();
    assert_eq!(none, Config::default());
    let keys: Vec<_> = config.permissions.keys().map(String::as_str).collect();
    assert_eq!(keys, ["*", "@root:example.org", "friends.org"]);
    for (written, why) in [
        (
            "'@root': admin",
            "\"@root\" is neither a Matrix ID nor a server",
        ),
        (
            "'https://a.org': reach",
            "is neither a Matrix ID nor a server",
        ),
        ("'*': admin", "everybody would be an admin"),
        ("a.org: claim\n  A.org: none", "are the same"),
        ("a.org: owner", "unknown variant `owner`"),
        ("a.org: claim\n  a.org: none", "\"a.org\" stands here twice"),
    ] {
        let error = refused(&format!("{MINIMAL}permissions:\n  {written}\n"));
        assert!(
            error.contains("permissions") && error.contains(why),
            "{error}"
        );
    }
}

#[test]
fn what_differs_between_two_configurations_is_named_by_option() {
    let path = Path::new("stonechat.yaml");
    let (before, mut after) = (Config::default(), Config::default());
    assert_eq!(changed_options(path, &before, &after).unwrap(), [""; 0]);
    after.permissions.insert("*".to_owned(), Permission::None);
    after.log.level = LogLevel::Debug;
    let changed = changed_options(path, &before, &after).unwrap();
    assert_eq!(changed, ["permissions", "log.level"]);
}
