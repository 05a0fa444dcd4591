//! Carries out what a command to the bot set going.

use crate::engine::{Engine, EngineError, Task, Words};

/// What the owner hears when their ghost could not be made.
pub(in crate::engine) fn failed_words(task: &Task) -> Option<Words> {
    let (Task::MakeGhost { name, .. } | Task::ReplaceIdentity { name, .. }) = task else {
        return None;
    };
    let plain = format!(
        "I could not set up {name}: something on this server uses its name or its keys already. \
         It is frozen, so nobody can reach you by it. Please ask the admin of this server to look \
         into it."
    );
    Some(Words {
        html: plain.clone(),
        plain,
    })
}

impl Engine {
    pub(in crate::engine) async fn do_task(&self, task: &Task) -> Result<(), EngineError> {
        match task {
            Task::MakeGhost {
                ghost,
                name,
                strict,
            } => {
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            Task::ReplaceIdentity {
                ghost,
                name,
                strict,
            } => {
                self.part_from_all(ghost).await?;
                self.leave_everywhere(ghost).await?;
                self.machines().retire(ghost).await?;
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            Task::RetireGhost { ghost, generation } => {
                let held = self.directory().by_ghost(ghost)?;
                // The handle's present owner has had the last one's things taken away first.
                if held.is_some_and(|it| it.is_active() && it.generation > *generation)
                    && *generation > 0
                {
                    return Ok(());
                }
                self.part_from_all(ghost).await?;
                self.leave_everywhere(ghost).await?;
                self.machines().retire(ghost).await?;
                // Somebody else may have claimed it meanwhile.
                match self.directory().by_ghost(ghost)? {
                    Some(record) if record.is_active() => {
                        let strict = record.strict || self.settings().strict;
                        let name = record.handle.to_string();
                        self.make_ghost(ghost, &name, strict).await
                    }
                    _ => Ok(()),
                }
            }
            Task::EndConversations {
                ghost,
                blocked_only: false,
            } => self.part_from_all(ghost).await,
            Task::EndConversations { ghost, .. } => self.part_from_blocked(ghost).await,
            Task::Appear {
                person,
                ghost,
                name,
            } => self.appear(person, ghost, name).await,
            Task::AnswerRequest {
                room,
                ghost,
                accepted,
            } => self.answer_request(room, ghost, *accepted).await,
            Task::Tell { person, words } => {
                let source = format!("{}{}", person, words.plain);
                self.tell(person, words.clone(), source).await
            }
        }
    }
}
