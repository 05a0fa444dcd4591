//! The outcome of a translation, and the remarks to the sender.

use serde_json::Value;

use super::media::MediaToReupload;

/// A translated event, ready to be sent to the other room.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The type.
    pub event_type: String,
    /// The content, not yet encrypted.
    pub content: Value,
    /// The media to upload again first. Each address is then replaced by the new one.
    pub media_to_reupload: Vec<MediaToReupload>,
    /// The remarks to the sender.
    pub remarks: Vec<SenderRemark>,
}

/// A remark to the sender of a forwarded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SenderRemark {
    /// It was sent without being a reply.
    WithoutReply,
    /// It was sent outside of its thread.
    WithoutThread,
    /// An edit was sent as a new message.
    EditAsNew,
    /// It was sent without a reference.
    WithoutReference,
    /// It was sent without its formatting, with which it was too long.
    WithoutFormatting,
}

impl SenderRemark {
    /// Returns whether the reason is that the target of a relation is unknown.
    pub fn is_missing_target(self) -> bool {
        matches!(
            self,
            Self::WithoutReply | Self::WithoutThread | Self::EditAsNew | Self::WithoutReference
        )
    }

    /// Returns the text of the notice.
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

/// Why an event cannot be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TranslateError {
    /// A reaction to an unknown message.
    #[error("the message that was reacted to is not known")]
    ReactionTarget,
    /// A vote in an unknown poll, or its end.
    #[error("the poll is not known")]
    PollTarget,
    /// Live location depends on the state of a room.
    #[error("live location depends on the state of the room")]
    LiveLocation,
    /// MatrixRTC depends on the state of a room.
    #[error("calls over MatrixRTC belong to one room")]
    MatrixRtc,
    /// Nothing is left of what a call says about its sound and picture.
    #[error("the description of the call cannot be read")]
    CallDescription,
    /// The transfer of a call to a person outside of the conversation.
    #[error("the call is transferred to a person outside")]
    CallTransfer,
    /// Keys can only be verified between their owners.
    #[error("keys cannot be verified across a mask")]
    Verification,
    /// The content does not fit into an event.
    #[error("the content is too long")]
    TooLong,
    /// It has more files than are passed on with one event.
    #[error("the event has too many files")]
    TooManyFiles,
    /// The content is nested too deeply.
    #[error("the content is nested too deeply")]
    TooDeep,
    /// The content is not what its type says.
    #[error("the content is malformed")]
    Malformed,
    /// The event type identifies the sender.
    #[error("the type of the event identifies a person")]
    IdentifyingType,
}

impl TranslateError {
    /// Returns whether the reason is that the target of a relation is unknown.
    pub fn is_missing_target(self) -> bool {
        matches!(self, Self::ReactionTarget | Self::PollTarget)
    }

    /// Returns the text of the notice to the sender: what happened, and what to do next.
    pub fn notice_text(self) -> &'static str {
        match self {
            Self::ReactionTarget => {
                "Your reaction wasn't passed on: the message it belongs to is no longer known \
                 here. Please say it in words."
            }
            Self::PollTarget => {
                "That wasn't passed on: the poll it belongs to is no longer known here. Please \
                 start a new one."
            }
            Self::LiveLocation => {
                "Live location wasn't passed on: it works within one room only, and you are in \
                 two. Please share your location as a message instead."
            }
            Self::MatrixRtc => {
                "Calls of this kind work within one room only, and this conversation spans several. \
                 What works in a chat of two is the classic voice or video call: in Element \
                 on the web and desktop, press the call button and choose \"Legacy call\"."
            }
            Self::CallDescription => {
                "The call wasn't passed on: your client describes it in a way that is not \
                 understood here. Please call again, or from another client."
            }
            Self::CallTransfer => {
                "The call wasn't handed over: that works only to somebody in this chat."
            }
            Self::Verification => {
                "The verification wasn't passed on. The user you see here is a ghost of this \
                 service, with keys of the service; you can't verify the keys of the person \
                 behind it as long as they are masked. To be sure who they are, ask them \
                 something that only they can know."
            }
            Self::TooLong => {
                "Your message wasn't passed on: it is too long. Please send it in two parts, or \
                 as a file."
            }
            Self::TooManyFiles => {
                "Your files weren't passed on: they are more than the 20 that I can pass on at once. \
                 Please send them in several messages."
            }
            Self::TooDeep | Self::Malformed | Self::IdentifyingType => {
                "Something you sent couldn't be passed on: your client made it in a way that is \
                 not understood here. Please send it in another way, as plain text for example."
            }
        }
    }
}
