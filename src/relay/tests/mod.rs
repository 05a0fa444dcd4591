//! What is translated, how, and what never comes out.

mod altered;
mod calls;
mod clients;
mod hostile;
mod messages;
mod odd;
mod real;
mod shared_ghosts;

use serde_json::Value;

use super::{
    TranslateError, Translated,
    oracle::{ALICE, Direction, GHOST, SAM, SAMUEL, with_context},
    translate,
};

pub(super) fn to_sam(kind: &str, content: &Value) -> Result<Option<Translated>, TranslateError> {
    with_context(Direction::ToSam, true, |context| {
        translate(kind, content, context)
    })
}

pub(super) fn translated(kind: &str, content: Value) -> Value {
    to_sam(kind, &content).unwrap().unwrap().content
}
