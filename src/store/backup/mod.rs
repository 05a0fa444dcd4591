//! Backups: a copy of a running store as one stream, and the way back.

pub(super) mod export;
pub(super) mod restore;

pub use self::{
    export::Copied,
    restore::{Contents, Made, Replaced},
};
