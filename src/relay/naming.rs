//! What a room is called, so that another room of the conversation can be called the same.
//!
//! Such texts are made of people's names more often than messages are, and they stay. So here, and
//! only here, people's own names are taken out as well as their Matrix IDs.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};

use super::{Conversation, Input, Place, gate::Gate, passage::Passage, scrub::Scrubber};
use crate::text::{clean, is_invisible};

/// The longest name of a room, in characters.
pub const NAME_AT_MOST: usize = 120;
/// The longest topic of a room, in characters.
pub const TOPIC_AT_MOST: usize = 1000;
/// Longer texts are not looked at.
const LONGEST: usize = 5000;
/// Shorter names are not looked for: they are found everywhere.
const SHORTEST: usize = 2;
/// Shorter parts of names are not looked for.
const SHORTEST_PART: usize = 3;
/// What has more words than this is no name whose parts name somebody.
const PARTS_AT_MOST: usize = 3;
/// Longer names are not remembered, in bytes.
const REMEMBERED: usize = 500;
/// As many people are looked at who are in a room and not in its conversation.
const OTHERS: usize = 200;

/// Names by which people are known where a text comes from, and what they are called where it
/// goes.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(Vec<char>, String)>);

impl Names {
    /// The names of those who are in the room of a place themselves, and of `others` who are there
    /// or invited: who comes in later is somebody's ghost then, and must not have been named
    /// before. The others of the conversation are there by their ghosts' names.
    pub fn at<'a>(
        conversation: &Conversation,
        place: Place,
        called: &BTreeMap<OwnedUserId, String>,
        others: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Self {
        let mut names = Self::default();
        let people = conversation.people.iter().enumerate();
        for (_, person) in people.filter(|(index, person)| person.place(*index) == place) {
            let now = called.get(&person.user);
            let mut all: Vec<Option<&str>> = vec![now.map(String::as_str)];
            all.extend(person.known_as.iter().map(|name| Some(name.as_str())));
            for name in all {
                names.add(&person.user, name, &person.name);
            }
        }
        let unknown = |user: &&OwnedUserId| {
            let mut people = conversation.people.iter();
            !people.any(|person| person.user == **user || person.ghost == **user)
        };
        for user in others.filter(unknown).take(OTHERS) {
            names.add(user, called.get(user).map(String::as_str), "Someone");
        }
        names
    }

    /// Somebody's own names: what they are called, the parts of that, and what their Matrix ID
    /// begins with.
    pub fn add(&mut self, user: &UserId, called: Option<&str>, instead: &str) {
        let instead = match clean(instead) {
            name if name.is_empty() => "Someone".to_owned(),
            name => name,
        };
        let called = called.unwrap_or_default();
        let parts: Vec<&str> = called
            .split(|c: char| !c.is_alphanumeric())
            .filter(|part| !part.is_empty())
            .collect();
        let named = [called.trim(), user.localpart()];
        for name in named {
            self.add_one(name, SHORTEST, &instead);
        }
        if parts.len() <= PARTS_AT_MOST {
            for part in parts {
                self.add_one(part, SHORTEST_PART, &instead);
            }
        }
        // The longest first: who has found it need not look for its parts.
        self.0
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    fn add_one(&mut self, name: &str, shortest: usize, instead: &str) {
        let name: Vec<char> = name
            .chars()
            .filter(|c| !is_invisible(*c))
            .map(lower)
            .collect();
        let known = self.0.iter().any(|(known, _)| *known == name)
            || instead.chars().map(lower).eq(name.iter().copied());
        if (shortest..=LONGEST).contains(&name.len()) && !known {
            self.0.push((name, instead.to_owned()));
        }
    }

    /// The text with everybody called as they are there.
    fn replace(&self, text: &str) -> String {
        let letters: Vec<(usize, char)> = text
            .char_indices()
            .filter(|(_, c)| !is_invisible(*c))
            .collect();
        let mut out = String::with_capacity(text.len());
        let (mut at, mut copied) = (0, 0);
        while at < letters.len() {
            let found = self
                .0
                .iter()
                .find(|(name, _)| stands_at(&letters, at, name));
            let Some((name, instead)) = found else {
                at += 1;
                continue;
            };
            out.push_str(&text[copied..letters[at].0]);
            out.push_str(instead);
            at += name.len();
            copied = letters.get(at).map_or(text.len(), |(start, _)| *start);
        }
        out.push_str(&text[copied..]);
        out
    }
}

/// Whether a name stands here, as a word of its own where there are such.
fn stands_at(letters: &[(usize, char)], at: usize, name: &[char]) -> bool {
    let Some(here) = letters.get(at..at + name.len()) else {
        return false;
    };
    let goes_on = |one: Option<&char>, other: Option<&(usize, char)>| {
        let of_a_word = |c: char| c.is_lowercase() || c.is_uppercase() || c.is_numeric();
        one.is_some_and(|c| of_a_word(*c)) && other.is_some_and(|(_, c)| of_a_word(*c))
    };
    let before = at.checked_sub(1).and_then(|at| letters.get(at));
    here.iter()
        .zip(name)
        .all(|((_, c), wanted)| lower(*c) == *wanted)
        && !goes_on(name.first(), before)
        && !goes_on(name.last(), letters.get(at + name.len()))
}

/// One letter for each letter, so that places stay what they are.
fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}

/// What is to be remembered of how people are called in their own room.
pub fn to_remember(
    conversation: &Conversation,
    place: Place,
    called: &BTreeMap<OwnedUserId, String>,
) -> Vec<Input> {
    let people = conversation.people.iter().enumerate();
    people
        .filter(|(index, person)| person.place(*index) == place)
        .filter_map(|(index, person)| {
            let name = called.get(&person.user)?;
            let new = name.len() <= REMEMBERED && !person.known_as.contains(name);
            new.then(|| Input::KnownAs {
                person: index,
                name: name.clone(),
            })
        })
        .collect()
}

/// Translates the name or the topic of a room. `None` if it cannot be told without naming anybody.
pub fn carry_text(
    text: &str,
    passage: &Passage<'_>,
    names: &Names,
    at_most: usize,
) -> Option<String> {
    if text.chars().count() > LONGEST {
        return None;
    }
    let visible = |c: &char| !c.is_control() || *c == '\n';
    let text: String = text.chars().filter(visible).collect();
    let text = names.replace(&Scrubber::new(passage).text(&text));
    let text: String = text.trim().chars().take(at_most).collect();
    (!Gate::of(passage).tells(&text)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{
        Participant, Seat, Secret, Standing, decide,
        tests::{ALICE, Way, with_passage},
    };

    fn names() -> Names {
        let mut names = Names::default();
        let alice = <&UserId>::try_from(ALICE).unwrap();
        names.add(alice, Some("Alice Harbour"), "Kim");
        let jun = <&UserId>::try_from("@jun:hs.test").unwrap();
        names.add(jun, Some("王小明"), "@lee");
        let lou = <&UserId>::try_from("@lou:hs.test").unwrap();
        names.add(lou, Some("Lou"), "@lou");
        names
    }

    fn carried(text: &str) -> Option<String> {
        with_passage(Way::ToSam, true, |passage| {
            carry_text(text, passage, &names(), NAME_AT_MOST)
        })
    }

    #[test]
    fn a_room_that_is_named_after_people_is_named_after_their_ghosts() {
        for (name, there) in [
            ("Alice Harbour & Sam", "Kim & Sam"),
            ("alice's birthday", "Kim's birthday"),
            ("ALICE.HARBOUR and friends", "Kim and friends"),
            ("Al\u{200b}ice", "Kim"),
            ("王小明的生日", "lee的生日"),
            ("the harbour: jun", "the Kim: lee"),
            (&format!("{ALICE} and friends"), "@Kim and friends"),
            ("Lou's boat", "Lou's boat"),
            ("Boats and 👨‍👩‍👧", "Boats and 👨‍👩‍👧"),
            ("Malice in juniper land", "Malice in juniper land"),
        ] {
            assert_eq!(carried(name).as_deref(), Some(there), "{name}");
        }
    }

    fn user(name: &str) -> OwnedUserId {
        OwnedUserId::try_from(name).unwrap()
    }

    fn conversation() -> Conversation {
        let person = |name: &str, seat| Participant {
            user: user(name),
            ghost: user("@_dm_.pxyz:hs.test"),
            name: "Kim".to_owned(),
            own_ghost: true,
            seat,
            known_as: Vec::new(),
        };
        let standing = Standing::Joined;
        Conversation {
            id: "c0ffee".to_owned(),
            origin: None,
            direct: false,
            secret: Secret([7; 32]),
            people: vec![
                person("@a1973:far.example", Seat::Origin { here: true }),
                person(
                    "@sam:hs.test",
                    Seat::Portal {
                        room: None,
                        standing,
                    },
                ),
            ],
            begun_at: crate::clock::Timestamp(0),
            led_back_at: None,
            told_of_room_calls: Vec::new(),
            ended: false,
        }
    }

    #[test]
    fn who_has_left_or_changed_their_name_is_not_named_by_the_former_one() {
        let text = "Alice Harbour's club";
        let mut talk = conversation();
        let called = BTreeMap::from([(user("@a1973:far.example"), "Alice Harbour".to_owned())]);
        let names = |talk: &Conversation, called: &BTreeMap<OwnedUserId, String>| {
            Names::at(talk, Place::Origin, called, std::iter::empty()).replace(text)
        };
        assert_eq!(names(&talk, &called), "Kim's club");
        let inputs = to_remember(&talk, Place::Origin, &called);
        assert_eq!(inputs.len(), 1);
        for input in &inputs {
            talk = decide(talk, input).state.unwrap();
        }
        assert_eq!(to_remember(&talk, Place::Origin, &called), []);
        // Whoever leaves has no name in the room any more.
        for called in [
            BTreeMap::new(),
            BTreeMap::from([(user("@a1973:far.example"), "Lou".to_owned())]),
        ] {
            assert_eq!(names(&talk, &called), "Kim's club");
        }
    }

    #[test]
    fn who_is_only_invited_is_not_named_before_they_come() {
        let bob = user("@b52:far.example");
        let called = BTreeMap::from([(bob.clone(), "Bob".to_owned())]);
        let names = Names::at(&conversation(), Place::Origin, &called, [&bob].into_iter());
        assert_eq!(names.replace("Bob and b52"), "Someone and Someone");
        // Nor is anybody who is in a portal: here they are their ghost.
        let names = Names::at(&conversation(), Place::Origin, &called, std::iter::empty());
        assert_eq!(names.replace("Bob, sam"), "Bob, sam");
    }

    #[test]
    fn what_is_too_long_is_left_out_or_cut() {
        assert_eq!(carried(&"a".repeat(LONGEST + 1)), None);
        assert_eq!(carried(&"é".repeat(200)), Some("é".repeat(NAME_AT_MOST)));
        assert_eq!(carried(" \u{7}a\u{0}b ").as_deref(), Some("ab"));
        assert_eq!(carried("").as_deref(), Some(""));
    }

    #[test]
    fn a_short_or_empty_name_takes_no_text_apart() {
        let mut names = Names::default();
        for (user, called) in [
            ("@a:hs.test", None),
            ("@b:hs.test", Some("")),
            ("@c:hs.test", Some("O")),
        ] {
            names.add(<&UserId>::try_from(user).unwrap(), called, "Someone");
        }
        let text = "O a b c";
        assert_eq!(names.replace(text), text);
    }
}
