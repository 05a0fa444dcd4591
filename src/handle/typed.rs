//! The ways in which people type a handle or a person.

use ruma::{
    MatrixToUri, MatrixUri, OwnedServerName, OwnedUserId, ServerName, UserId, matrix_uri::MatrixId,
};

use super::{Handle, HandleError, HandleRules};

/// A handle or a Matrix ID, as somebody typed or pasted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// `sam`, `@sam`, `@sam@example.org`, `@_dm_sam:example.org`, or a link to that ghost.
    Handle {
        /// The handle.
        handle: Handle,
        /// The server that was named, if any. Otherwise it is the server where it was typed.
        server: Option<OwnedServerName>,
    },
    /// The Matrix ID of a person, or a link to it. `@sam:example.org` is the person with the
    /// account `sam`, who need not be the owner of the handle `@sam`.
    Person(OwnedUserId),
}

impl Typed {
    /// Reads a typed handle or Matrix ID. The rules are those of our own server.
    pub fn parse(text: &str, rules: &HandleRules) -> Result<Typed, HandleError> {
        Self::parse_with(text, rules, Self::of_user)
    }

    /// Reads a handle, or the Matrix ID of a person to keep out. Other servers may give their
    /// people names like those of our ghosts, so a Matrix ID of theirs is always a person's.
    pub fn parse_to_block(
        text: &str,
        rules: &HandleRules,
        own_server: &ServerName,
    ) -> Result<Typed, HandleError> {
        Self::parse_with(text, rules, |user| {
            if user.server_name() == own_server {
                Self::of_user(user)
            } else {
                Typed::Person(user)
            }
        })
    }

    fn parse_with(
        text: &str,
        rules: &HandleRules,
        of_user: impl Fn(OwnedUserId) -> Typed,
    ) -> Result<Typed, HandleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(HandleError::Empty);
        }
        if let Some(user) = linked_user(text)? {
            return Ok(of_user(user));
        }
        let name = text.strip_prefix('@').unwrap_or(text);
        if let Some((name, server)) = name.split_once('@') {
            let server = OwnedServerName::try_from(server).map_err(|_| HandleError::NotAHandle)?;
            return Ok(Typed::Handle {
                handle: Handle::parse(name, rules)?,
                server: Some(server),
            });
        }
        if name.contains(':') {
            let user = UserId::parse(format!("@{name}")).map_err(|_| HandleError::NotAHandle)?;
            if user.localpart().is_empty() {
                return Err(HandleError::NotAHandle);
            }
            return Ok(of_user(user));
        }
        // Some people copy the ghost's localpart alone.
        let handle = match Handle::of_ghost(name) {
            Some(handle) => handle,
            None => Handle::parse(name, rules)?,
        };
        Ok(Typed::Handle {
            handle,
            server: None,
        })
    }

    /// Reads a typed handle where a Matrix ID makes no sense.
    pub fn parse_handle(
        text: &str,
        rules: &HandleRules,
    ) -> Result<(Handle, Option<OwnedServerName>), HandleError> {
        match Self::parse(text, rules)? {
            Typed::Handle { handle, server } => Ok((handle, server)),
            Typed::Person(user) => Err(HandleError::MatrixId(user)),
        }
    }

    fn of_user(user: OwnedUserId) -> Typed {
        match Handle::of_ghost(user.localpart()) {
            Some(handle) => Typed::Handle {
                handle,
                server: Some(user.server_name().to_owned()),
            },
            None => Typed::Person(user),
        }
    }
}

/// Returns the user that a `matrix.to` or `matrix:` link leads to, or `None` if `text` is no link.
pub fn linked_user(text: &str) -> Result<Option<OwnedUserId>, HandleError> {
    let id = if starts_with(text, "https://") || starts_with(text, "http://") {
        MatrixToUri::parse(text).map(|uri| uri.id().clone())
    } else if starts_with(text, "matrix:") {
        MatrixUri::parse(text).map(|uri| uri.id().clone())
    } else {
        return Ok(None);
    };
    match id {
        Ok(MatrixId::User(user)) => Ok(Some(user)),
        _ => Err(HandleError::NotAHandle),
    }
}

fn starts_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}
