//! The media of an event whose addresses would name a homeserver.

use serde_json::Value;

use super::{
    fields::{is_html, is_prose},
    scrub::{Scrubber, is_content, is_like_content},
};
use crate::matrix::is_media_type;

/// Maximum number of media that are uploaded again for one event.
pub(super) const REUPLOADS_MAX: usize = 20;

/// The type of bytes about which nothing is said, such as encrypted ones.
const OCTETS: &str = "application/octet-stream";

/// Media whose address names another homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaToReupload {
    /// The JSON pointer of the address in the content (RFC 6901).
    pub pointer: String,
    /// The address (`mxc://…`).
    pub uri: String,
    /// What the event uses it for.
    pub used_as: MediaUse,
    /// The type that the event gives, or `application/octet-stream` for what is encrypted. Without
    /// one, the type with which it is downloaded counts.
    pub content_type: Option<String>,
}

impl MediaToReupload {
    /// Returns whether removing it would take an element out of a list, and so move those behind it.
    pub(super) fn is_in_list(&self) -> bool {
        let key = self.pointer.rsplit('/').next().unwrap_or_default();
        key.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// What an event uses media for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaUse {
    /// The event is nothing without it: a file, a sticker, a custom emoji.
    Message,
    /// The event can do without it: a thumbnail, the picture of a link.
    Extra,
}

/// Returns the media in a content, outside of what people read: first what the event needs.
pub(super) fn media_in(content: &Value) -> Vec<MediaToReupload> {
    let mut out = Vec::new();
    visit(&mut Vec::new(), "", (&Value::Null, content), &mut |it| {
        if is_content(it.text) {
            out.push(MediaToReupload {
                pointer: pointer(it.path),
                uri: it.text.to_owned(),
                used_as: used_as(it.path),
                content_type: content_type(it.path, it.parent),
            });
        }
    });
    out.sort_by_key(|media| media.used_as);
    out
}

/// Returns whether an encrypted file can be opened: whether it has an address, a key and an
/// initialization vector.
pub fn is_usable_file(file: &Value) -> bool {
    let is_there = |field: &Value| field.as_str().is_some_and(|it| !it.is_empty());
    file["url"].as_str().is_some_and(is_content)
        && is_there(&file["key"]["k"])
        && is_there(&file["iv"])
}

/// Returns whether a message has an encrypted file that nobody can open, or is an edit with one.
fn has_unusable_file(content: &Value) -> bool {
    let new = content.get("m.new_content").unwrap_or(content);
    let items = new["itemtypes"].as_array().into_iter().flatten();
    [content, new].into_iter().chain(items).any(|content| {
        let kind = content.get("msgtype").or(content.get("itemtype"));
        let is_media = matches!(
            kind.and_then(Value::as_str),
            Some("m.image" | "m.file" | "m.audio" | "m.video")
        );
        let file = content.get("file").filter(|file| file.is_object());
        is_media && file.is_some_and(|file| !is_usable_file(file))
    })
}

/// Returns whether an event is nothing without media that cannot be passed on, or that nobody could
/// open.
pub(super) fn lacks_media(scrub: &Scrubber<'_>, content: &Value) -> bool {
    let mut lacks = has_unusable_file(content);
    visit(&mut Vec::new(), "", (&Value::Null, content), &mut |it| {
        lacks |= is_like_content(it.text)
            && used_as(it.path) == MediaUse::Message
            && !scrub.is_usable_content(it.text);
    });
    lacks
}

/// Returns whether an event says that it is a file and has none. An edit is one by its new content.
pub(super) fn has_no_file(event_type: &str, content: &Value) -> bool {
    let is_edit = content["m.relates_to"]["rel_type"] == "m.replace";
    let content = match &content["m.new_content"] {
        new if is_edit && new.is_object() => new,
        _ => content,
    };
    let is_file = match event_type {
        "m.sticker" => true,
        "m.room.message" => matches!(
            content["msgtype"].as_str(),
            Some("m.image" | "m.file" | "m.audio" | "m.video")
        ),
        _ => false,
    };
    let files = ["file", "m.file", "org.matrix.msc1767.file"];
    is_file && !content["url"].is_string() && !files.iter().any(|key| content[key].is_object())
}

/// A string outside of what people read.
struct FoundString<'a> {
    path: &'a [String],
    /// What has it as a field, or as an item of a list in a field.
    parent: &'a Value,
    text: &'a str,
}

/// Visits the strings in a value, which is at `path`: under `key` of its parent, or in a list there.
fn visit(
    path: &mut Vec<String>,
    key: &str,
    (parent, value): (&Value, &Value),
    act: &mut impl FnMut(FoundString<'_>),
) {
    match value {
        Value::String(text) if !is_prose(key) && !is_html(key) => {
            act(FoundString { path, parent, text });
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                visit(path, key, (parent, item), act);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                path.push(key.clone());
                visit(path, key, (value, field), act);
                path.pop();
            }
        }
        _ => {}
    }
}

fn pointer(path: &[String]) -> String {
    path.iter()
        .map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")))
        .collect()
}

fn used_as(path: &[String]) -> MediaUse {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let path = match path.as_slice() {
        ["m.new_content", path @ ..] => path,
        path => path,
    };
    match path {
        ["url"]
        | ["file" | "m.file" | "org.matrix.msc1767.file", "url"]
        | ["m.relates_to", "key"] => MediaUse::Message,
        path if is_item_of_gallery(path) => MediaUse::Message,
        _ => MediaUse::Extra,
    }
}

/// Returns whether this is the address of one of the files of a gallery, which may be in another
/// gallery.
fn is_item_of_gallery(path: &[&str]) -> bool {
    match path {
        [.., list, _, "file", "url"] | [.., list, _, "url"] => {
            *list == "itemtypes" || list.contains("gallery")
        }
        _ => false,
    }
}

/// Returns what an event says about the type of media at `path`, which is a field of `parent`.
fn content_type(path: &[String], parent: &Value) -> Option<String> {
    let [before @ .., key] = path else {
        return None;
    };
    let holder = before.last().map_or("", String::as_str);
    if key == "url" && is_encrypted_file(holder) {
        return Some(OCTETS.to_owned());
    }
    let said = match key.as_str() {
        "thumbnail_url" => &parent["thumbnail_info"]["mimetype"],
        "og:image" => &parent["og:image:type"],
        _ => &parent["info"]["mimetype"],
    };
    said.as_str()
        .filter(|said| is_media_type(said))
        .map(str::to_owned)
}

/// Returns whether a field of this name holds the address of an encrypted file, with its key.
fn is_encrypted_file(key: &str) -> bool {
    key.ends_with("file") || key.ends_with("encryption")
}

/// Removes media that the event can do without, with what is said about them.
///
/// The pointers of media that stand before it in the content stay valid, so several are removed from
/// the last to the first.
pub fn remove_media(content: &mut Value, media: &MediaToReupload) {
    let Some((mut parent, mut key)) = media.pointer.rsplit_once('/') else {
        return;
    };
    if let Some((above, holder)) = parent.rsplit_once('/')
        && key == "url"
        && is_encrypted_file(holder)
    {
        (parent, key) = (above, holder);
    }
    let key = key.replace("~1", "/").replace("~0", "~");
    match content.pointer_mut(parent) {
        Some(Value::Array(items)) => {
            if let Some(index) = key.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        Some(Value::Object(fields)) => {
            fields.remove(&key);
            if key.starts_with("thumbnail_")
                && !fields.contains_key("thumbnail_url")
                && !fields.contains_key("thumbnail_file")
            {
                fields.remove("thumbnail_info");
            }
            // `og:image`, and `og:image:width` and the like beside it.
            if key.contains(":image") {
                fields.retain(|key, _| !key.contains(":image"));
            }
        }
        _ => {}
    }
}
