//! Messages and other events with a body: text, formatting, mentions, edits.

use serde_json::{Map, Value, json};

use super::{
    fields::is_html,
    html::{self, Html},
    outcome::{SenderRemark, TranslateError},
    relation::{self, OnMissingTarget, RELATES_TO},
    scrub::Scrubber,
};

const NEW_CONTENT: &str = "m.new_content";
const MENTIONS: &str = "m.mentions";

/// Translates the content of an event that people read, with its relations.
pub(super) fn translate(
    scrub: &Scrubber<'_>,
    content: &Map<String, Value>,
    on_missing: OnMissingTarget,
    remarks: &mut Vec<SenderRemark>,
) -> Result<Map<String, Value>, TranslateError> {
    let Some(target) = relation::edited(scrub, content) else {
        let relation = relation::translate(scrub, content, on_missing, remarks)?;
        let mut out = body(scrub, content, relation::is_reply(content));
        if let Some(relation) = relation {
            out.insert(RELATES_TO.to_owned(), relation);
        }
        return Ok(out);
    };
    // The edited text, for clients that know edits and for those that do not.
    let new = content.get(NEW_CONTENT).and_then(Value::as_object);
    match target {
        Some(target) => {
            let mut out = body(scrub, content, true);
            if let Some(new) = new {
                out.insert(NEW_CONTENT.to_owned(), body(scrub, new, true).into());
            }
            out.insert(
                RELATES_TO.to_owned(),
                json!({ "rel_type": "m.replace", "event_id": target }),
            );
            Ok(out)
        }
        None => {
            remarks.push(SenderRemark::EditAsNew);
            Ok(body(scrub, new.unwrap_or(content), true))
        }
    }
}

/// Translates everything but the relations. If `may_quote`, the body may begin with a quote of the
/// message that it replies to.
fn body(scrub: &Scrubber<'_>, content: &Map<String, Value>, may_quote: bool) -> Map<String, Value> {
    let mut own = content.clone();
    for key in [RELATES_TO, NEW_CONTENT] {
        own.remove(key);
    }
    let mentions = own.remove(MENTIONS);
    let html: Vec<(String, Option<Html>)> = own
        .iter()
        .filter(|(key, value)| is_html(key) && value.is_string())
        .map(|(key, value)| {
            let html = value.as_str().unwrap_or_default();
            (key.clone(), html::translate(scrub, html))
        })
        .collect();
    let quoted = html
        .iter()
        .flat_map(|(_, html)| html)
        .any(|html| html.quoted);
    let renamed: Vec<(String, String)> = html
        .iter()
        .filter_map(|(_, html)| html.as_ref())
        .flat_map(|html| html.renamed.clone())
        .collect();
    for (key, html) in &html {
        own.remove(key);
        if html.is_none() && key == "formatted_body" {
            own.remove("format");
        }
    }
    for key in ["body", "org.matrix.msc1767.text", "m.text"] {
        if let Some(Value::String(text)) = own.get_mut(key) {
            if quoted || may_quote {
                *text = without_quote(text).to_owned();
            }
            *text = with_new_names(text, &renamed);
        }
    }
    let mut out = scrub.fields(&own);
    let has_text = out
        .get("body")
        .and_then(Value::as_str)
        .is_some_and(|body| !body.trim().is_empty());
    for (key, html) in html {
        match html {
            // Clients that prefer HTML would show an empty message.
            Some(html) if html.is_blank && has_text && key == "formatted_body" => {
                out.remove("format");
            }
            Some(html) if html.is_blank && has_text => {}
            Some(html) => {
                out.insert(key, Value::String(html.html));
            }
            None => {}
        }
    }
    if let Some(mentions) = mentions {
        out.insert(MENTIONS.to_owned(), mentioned(scrub, &mentions));
    }
    out
}

/// Translates the mentions of a message.
fn mentioned(scrub: &Scrubber<'_>, mentions: &Value) -> Value {
    let mut out = Map::new();
    if let Some(users) = mentions.get("user_ids").and_then(Value::as_array) {
        let mut mentioned: Vec<&str> = Vec::new();
        for user in users.iter().filter_map(Value::as_str) {
            let alias = scrub.context.alias_of(user);
            if let Some(alias) = alias.filter(|p| !mentioned.contains(&p.target.as_str())) {
                mentioned.push(alias.target.as_str());
            }
        }
        if !mentioned.is_empty() {
            out.insert("user_ids".to_owned(), json!(mentioned));
        }
    }
    if mentions.get("room").and_then(Value::as_bool) == Some(true) {
        out.insert("room".to_owned(), Value::Bool(true));
    }
    Value::Object(out)
}

/// Returns the text without the lines in which older clients quote what they reply to.
fn without_quote(text: &str) -> &str {
    let starts = |text: &str| {
        let quote = text.trim_start_matches("* ").strip_prefix("> ");
        quote.is_some_and(|quote| quote.trim_start_matches("* ").starts_with("<@"))
    };
    if !starts(text) {
        return text;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if !line.starts_with('>') && !line.starts_with("* >") {
            break;
        }
        rest = after;
    }
    rest.trim_start_matches('\n')
}

/// Returns the text with the former names of mentioned people replaced by those of the links.
fn with_new_names(text: &str, renamed: &[(String, String)]) -> String {
    let mut out = text.to_owned();
    let mut done: Vec<&str> = Vec::new();
    for (said, says) in renamed {
        if said.chars().count() < 2 || done.contains(&said.as_str()) {
            continue;
        }
        done.push(said);
        out = replace_words(&out, said, says);
    }
    out
}

fn replace_words(text: &str, word: &str, with: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, _) in text.match_indices(word) {
        let end = start + word.len();
        let before = text[..start].chars().next_back();
        let after = text[end..].chars().next();
        if before.is_some_and(char::is_alphanumeric) || after.is_some_and(char::is_alphanumeric) {
            continue;
        }
        // Some clients put an @ before the name.
        let from = if before == Some('@') {
            start - 1
        } else {
            start
        };
        out.push_str(&text[at..from]);
        out.push_str(with);
        at = end;
    }
    out.push_str(&text[at..]);
    out
}
