//! Messages and other events with a body: text, formatting, mentions, edits.

use std::collections::HashSet;

use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{
    fields::is_html,
    html::{self, Html},
    outcome::{SenderRemark, TranslateError},
    relation::{self, OnMissingTarget, RELATES_TO},
    renamed::with_new_names,
    reply_fallback::own_text,
    scrub::Scrubber,
};
use crate::text::without_turns;

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
        let mut out = body(scrub, content, false);
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

/// Translates everything but the relations. `is_edit` says whether it is a text of an edit.
fn body(scrub: &Scrubber<'_>, content: &Map<String, Value>, is_edit: bool) -> Map<String, Value> {
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
            let own = without_turns(own_text(content, quoted, is_edit, text));
            *text = with_new_names(scrub, &own, &renamed);
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

/// Translates the mentions of a message. Others than the people of the conversation stay as they
/// are.
fn mentioned(scrub: &Scrubber<'_>, mentions: &Value) -> Value {
    let mut out = Map::new();
    if let Some(users) = mentions.get("user_ids").and_then(Value::as_array) {
        let mut mentioned: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        for user in users.iter().filter_map(Value::as_str) {
            let is_other = || <&UserId>::try_from(user).is_ok() && scrub.text(user) == user;
            let user = match scrub.context.alias_to_mention(user) {
                Some(alias) => alias.target.as_str(),
                None if is_other() => user,
                None => continue,
            };
            if seen.insert(user) {
                mentioned.push(user);
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
