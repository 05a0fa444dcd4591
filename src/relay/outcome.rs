//! What comes of carrying an event, and what its sender is told.

use serde_json::Value;

/// An event, ready to be sent into the other room.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// Its type.
    pub event_type: String,
    /// Its content, to be encrypted.
    pub content: Value,
    /// What has to be uploaded anew first, with the new address put in its place.
    pub media_to_reupload: Vec<MediaToReupload>,
    /// What the sender is to be told about it.
    pub remarks: Vec<Remark>,
}

/// Content whose address names the sender's homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaToReupload {
    /// Where in the content the address stands (RFC 6901).
    pub pointer: String,
    /// The address, `mxc://…`.
    pub uri: String,
}

/// Something that the sender of an event that was carried is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Remark {
    /// Sent without being a reply.
    WithoutReply,
    /// Sent outside of its thread.
    WithoutThread,
    /// An edit, sent as a new message.
    EditAsNew,
    /// Sent without what it refers to.
    WithoutReference,
    /// Too long with its formatting.
    WithoutFormatting,
}

impl Remark {
    /// Whether what it refers to was not known.
    pub fn is_missing_target(self) -> bool {
        matches!(
            self,
            Self::WithoutReply | Self::WithoutThread | Self::EditAsNew | Self::WithoutReference
        )
    }

    /// The words.
    pub fn notice_text(self) -> &'static str {
        match self {
            Self::WithoutReply => {
                "The message you replied to is no longer known here, so yours was passed on \
                 without being a reply."
            }
            Self::WithoutThread => {
                "The thread you wrote in is no longer known here, so your message was passed on \
                 outside of it."
            }
            Self::EditAsNew => {
                "The message you edited is no longer known here, so the new text was passed on as \
                 a new message."
            }
            Self::WithoutReference => {
                "The message that yours refers to is no longer known here, so yours was passed on \
                 without the reference."
            }
            Self::WithoutFormatting => {
                "Your message was too long with its formatting, so its plain text was passed on."
            }
        }
    }
}

/// Why an event cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TranslateError {
    /// A reaction to something unknown.
    #[error("the message that was reacted to is not known")]
    ReactionTarget,
    /// A vote in, or the end of, an unknown poll.
    #[error("the poll is not known")]
    PollTarget,
    /// Live location hangs on the state of a room.
    #[error("live location hangs on the state of the room")]
    LiveLocation,
    /// MatrixRTC hangs on the state of a room.
    #[error("calls over MatrixRTC belong to one room")]
    MatrixRtc,
    /// A call that is handed over to somebody who is not here.
    #[error("the call is handed over to somebody outside")]
    CallTransfer,
    /// Keys are verified between the two who hold them.
    #[error("keys cannot be verified across a mask")]
    Verification,
    /// It would not fit into an event.
    #[error("the content is too long")]
    TooLong,
    /// Nested beyond reason.
    #[error("the content is nested too deeply")]
    TooDeep,
    /// Not what its type says.
    #[error("the content is malformed")]
    Malformed,
    /// The name of the event's type names the sender.
    #[error("the type of the event names somebody")]
    IdentifyingType,
}

impl TranslateError {
    /// Whether what it refers to was not known.
    pub fn is_missing_target(self) -> bool {
        matches!(self, Self::ReactionTarget | Self::PollTarget)
    }

    /// The words for its sender: what happened, and what to do next.
    pub fn notice_text(self) -> &'static str {
        match self {
            Self::ReactionTarget => {
                "Your reaction was not passed on: the message it belongs to is no longer known \
                 here. Please say it in words."
            }
            Self::PollTarget => {
                "That was not passed on: the poll it belongs to is no longer known here. Please \
                 start a new one."
            }
            Self::LiveLocation => {
                "Live location was not passed on: it works within one room only, and you are in \
                 two. Please share your location as a message instead."
            }
            Self::MatrixRtc => {
                "Calls of this kind work within one room only, and this conversation spans several. \
                 What works in a chat of two is the classic voice or video call: in Element \
                 on the web and desktop, press the call button and choose \"Legacy call\"."
            }
            Self::CallTransfer => {
                "The call was not handed over: that works only to somebody in this chat."
            }
            Self::Verification => {
                "The verification was not passed on. The user you see here is a ghost of this \
                 service, with keys of the service; you can't verify the keys of the person \
                 behind it as long as they are masked. To be sure who they are, ask them \
                 something that only they can know."
            }
            Self::TooLong => {
                "Your message was not passed on: it is too long. Please send it in two parts, or \
                 as a file."
            }
            Self::TooDeep | Self::Malformed | Self::IdentifyingType => {
                "Something you sent could not be passed on: your client made it in a way that is \
                 not understood here. Please send it in another way, as plain text for example."
            }
        }
    }
}
