//! What the time brings for a control room: commands whose keys did not come, and the next look.

use crate::{
    bot,
    engine::{
        EngineError,
        control_room::{ControlEffect, Occasion, Remark},
        records::{QueuedEffect, RetainedEvents},
        room::Room,
    },
    store::Batch,
};

impl Room {
    /// Waits anew for the keys of all waiting messages if they cannot come, because the homeserver is
    /// down.
    pub(in crate::engine) async fn wait_during_outage(&mut self) {
        let now = self.engine.now();
        let control = self.record.control.as_ref();
        let is_late = control.is_some_and(|control| control.is_late(now));
        if is_late
            && self.engine.homeserver_is_down().await
            && let Some(control) = &mut self.record.control
        {
            control.wait_anew(now);
        }
    }

    pub(in crate::engine) fn tick_control(&mut self) -> Result<(), EngineError> {
        let now = self.engine.now();
        let Some(control) = &mut self.record.control else {
            return Ok(());
        };
        let late = control.give_up(now);
        let mut batch = Batch::new();
        let mut effects = Vec::new();
        let say = !late.is_empty() && control.may_remark(Remark::Unreadable, now);
        if let Some(source) = late.first().filter(|_| say).map(ToString::to_string) {
            if let Some(person) = &control.person {
                let bot = &self.engine.settings().bot;
                self.engine.renew_sessions(bot, person);
            }
            effects.push(QueuedEffect::Control(ControlEffect::SendNotice {
                notice: bot::texts::unreadable(),
                source,
                occasion: Occasion::Answer,
            }));
        }
        if control.is_look_due(now) {
            effects.push(QueuedEffect::Control(ControlEffect::Look));
        }
        for event in late {
            batch.delete::<RetainedEvents>(&(self.id.clone(), event));
        }
        self.commit(batch, effects)
    }
}
