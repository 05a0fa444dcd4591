//! Mentions in a command. Clients write a name where a person has picked somebody from a list, and
//! the name may be somebody else's handle.

use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::input::{clean, is_quote_mark};
use crate::{handle::linked_user, relay::linked_people};

/// Maximum number of people in `m.mentions` that are read.
const MENTIONED_MAX: usize = 20;

/// What people type behind the name of the one to whom they speak.
const AFTER_NAME: [char; 3] = [':', ',', ' '];

/// The people whom a message mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    /// The people to whom its HTML links, each with the text of the link. `None` if these are too
    /// many for a command.
    links: Option<Vec<(String, OwnedUserId)>>,
    /// The people whom it says it mentions.
    users: Vec<OwnedUserId>,
}

impl Mentions {
    /// Reads the mentions of a message's content.
    pub(super) fn of(content: &Value) -> Mentions {
        let html = content.get("formatted_body").and_then(Value::as_str);
        // Clients add the sender of the message that is replied to, and all whom it mentions.
        let is_reply = content.pointer("/m.relates_to/m.in_reply_to").is_some();
        let users = content.pointer("/m.mentions/user_ids");
        let users = users.and_then(Value::as_array).filter(|_| !is_reply);
        Mentions {
            links: linked_people(html.unwrap_or_default()),
            users: users
                .into_iter()
                .flatten()
                .take(MENTIONED_MAX)
                .filter_map(|user| UserId::parse(user.as_str()?).ok())
                .collect(),
        }
    }

    /// Puts the Matrix ID of everybody mentioned in the place of their name in a command. Returns
    /// `None` if it is not clear where they are named. Nothing else of the HTML counts.
    pub(super) fn put_into(&self, line: &str, person: &UserId, bot: &UserId) -> Option<String> {
        let mut line = without_markdown_links(line);
        for (shown, user) in self.links.as_ref()? {
            let shown = clean(shown);
            let is_named = |word: &str| names_user(word, user);
            // A link that shows the Matrix ID may stand for a name in the plain text: then it is not
            // known for which. The bot is not whom a command is about.
            let is_address = *user == *bot && is_named(&shown);
            if !is_address && !words_of(&line).any(is_named) {
                line = with_id(&line, shown.trim_start_matches('@'), user)?;
            }
        }
        let mut others = self.users.iter().filter(|it| *it != person && *it != bot);
        if others.any(|user| !words_of(&line).any(|word| names_user(word, user))) {
            return None;
        }
        // The bot itself may be addressed first.
        let rest = line.strip_prefix(bot.as_str());
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(AFTER_NAME));
        let rest = rest.map(|rest| rest.trim_start_matches(AFTER_NAME).to_owned());
        Some(rest.unwrap_or(line))
    }
}

fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
        .map(|word| word.trim_matches(is_quote_mark))
}

/// Returns whether a word is a user's Matrix ID, or a link to them.
fn names_user(word: &str, user: &UserId) -> bool {
    let word = word.trim_end_matches([':', ',']);
    let id = linked_user(word).ok().flatten();
    id.map_or(word == user.as_str(), |id| id == *user)
}

/// Puts Matrix IDs in the place of links to people in Markdown, as in `[Kim](https://matrix.to/…)`.
fn without_markdown_links(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        let link = before.rfind('[').zip(after.find(')'));
        let user = link.and_then(|(start, end)| {
            let user = linked_user(&after[..end]).ok().flatten()?;
            Some((&before[..start], user, &after[end + 1..]))
        });
        match user {
            Some((before, user, after)) => {
                out.push_str(before);
                out.push_str(user.as_str());
                rest = after;
            }
            None => {
                out.push_str(before);
                out.push_str("](");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Puts a user's Matrix ID in the place of their name, with or without an `@` before it. Returns
/// `None` unless the name stands there exactly once, as a whole word.
fn with_id(line: &str, name: &str, user: &UserId) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let mut places = line.match_indices(name).filter_map(|(start, _)| {
        let end = start + name.len();
        let start = match line[..start].ends_with('@') {
            true => start - 1,
            false => start,
        };
        let before = line[..start].chars().next_back();
        let after = line[end..].chars().next();
        let begins = before.is_none_or(|c| c == ' ' || is_quote_mark(c));
        let ends = after
            .is_none_or(|c| matches!(c, ' ' | ':' | ',' | '.' | '!' | '?') || is_quote_mark(c));
        (begins && ends).then_some((start, end))
    });
    let (start, end) = places.next()?;
    if places.next().is_some() {
        return None;
    }
    Some(format!("{}{user}{}", &line[..start], &line[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    const DOE: &str = "https://matrix.to/#/@k.doe:far.example";

    fn put(body: &str, html: &str, users: &[&str]) -> Option<String> {
        let content = json!({ "formatted_body": html, "m.mentions": { "user_ids": users } });
        Mentions::of(&content).put_into(body, user_id!("@sam:hs.test"), user_id!("@bot:hs.test"))
    }

    #[test]
    fn a_name_that_is_a_link_means_the_person_linked() {
        let kim = format!("block <a href=\"{DOE}\">Kim</a>");
        let block = Some("block @k.doe:far.example".to_owned());
        for (body, html) in [
            ("block Kim", kim.as_str()),
            ("block @Kim", &kim),
            ("block @k.doe:far.example", &kim),
            (&format!("block {DOE}"), &kim),
            (&format!("block [Kim]({DOE})"), &kim),
            (&format!("block [Kim]({DOE})"), ""),
            (
                "block Kim D.",
                &format!("block <a href=\"{DOE}\">@Kim D.</a>"),
            ),
            (
                "Stonechat: block Kim",
                &format!("<a href=\"https://matrix.to/#/@bot:hs.test\">Stonechat</a>: {kim}"),
            ),
            (
                "block Kim",
                &format!("<a href=\"https://matrix.to/#/@bot:hs.test\">@bot:hs.test</a> {kim}"),
            ),
            (
                "block @k.doe:far.example",
                &format!("block <a href=\"{DOE}\">@k.doe:far.example</a>"),
            ),
        ] {
            let put = put(body, html, &["@k.doe:far.example"]);
            let put = put.map(|line| line.replace(DOE, "@k.doe:far.example"));
            assert_eq!(put, block, "{body} {html}");
        }
        let on = put("block Kim on sam", &kim, &[]);
        assert_eq!(on.as_deref(), Some("block @k.doe:far.example on sam"));
    }

    #[test]
    fn where_it_is_not_clear_who_is_meant_nothing_is_guessed() {
        let kim = format!("<a href=\"{DOE}\">Kim</a>");
        for (body, html, users) in [
            ("block Kim Kim", kim.as_str(), &[][..]),
            ("block Kimberly", &kim, &[]),
            ("block somebody", &kim, &[]),
            ("block kim", "", &["@k.doe:far.example"]),
            ("block kim", &format!("<a href=\"{DOE}\"></a>"), &[]),
            // The name is not the one of the link.
            (
                "block Kim",
                &format!("block <a href=\"{DOE}\">@k.doe:far.example</a>"),
                &[],
            ),
            (
                "block kim",
                &format!("block <a href=\"{DOE}\">{DOE}</a>"),
                &[],
            ),
        ] {
            assert_eq!(put(body, html, users), None, "{body} {html}");
        }
    }

    #[test]
    fn what_mentions_nobody_stays_as_it_is() {
        for (body, html) in [
            ("claim sam", "<b>release</b>"),
            ("claim [sam](https://example.org)", ""),
            ("block [x](y [z](", ""),
            ("@bot:hs.test.org is here", ""),
        ] {
            let users = ["@sam:hs.test", "@bot:hs.test"];
            assert_eq!(put(body, html, &users).as_deref(), Some(body));
        }
        let reply = json!({
            "m.mentions": { "user_ids": ["@k.doe:far.example"] },
            "m.relates_to": { "m.in_reply_to": { "event_id": "$x" } },
        });
        let me = user_id!("@sam:hs.test");
        let line = Mentions::of(&reply).put_into("accept", me, user_id!("@bot:hs.test"));
        assert_eq!(line.as_deref(), Some("accept"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reading(body in any::<String>(), name in any::<String>()) {
            put(&body, &format!("<a href=\"{DOE}\">{name}</a>"), &[]);
            with_id(&body, &name, user_id!("@k.doe:far.example"));
            without_markdown_links(&format!("{body}[{name}]({DOE}){body}]({name}"));
        }
    }
}
