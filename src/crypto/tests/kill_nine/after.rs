//! The look around after a kill.

use super::{
    child::{Told, What},
    *,
};

/// How many of the events that were read long ago are read again.
const READ_AGAIN: usize = 8;

impl Parent {
    /// After a kill: all is there, and works.
    pub(super) async fn look_around(
        &mut self,
        newcomer: &UserId,
        addressed: usize,
        early: &Person,
    ) {
        let service = Service::open(&self.folder, self.fake.connect().await);
        assert!(service.store.count_records().unwrap() > 0);
        // What was not acknowledged comes again.
        for (number, order) in std::mem::take(&mut self.open) {
            match service.carry_out(&order).await.unwrap() {
                Told::Read { text, .. } => self.note_read(number, &text),
                _ => assert!(matches!(order.what, What::Take { .. })),
            }
        }
        self.what_was_read_is_remembered(&service).await;
        // A key that was published before the kill opens what is sent to it after.
        let heard = says(early, addressed, "before and after".to_owned()).await;
        self.hears(&service, heard, true).await;
        for n in 0..GHOSTS {
            let heard = self.alice_says(n, true).await;
            self.hears(&service, heard, false).await;
            let run = service.store.run().number;
            let said = service
                .say(n, true, format!("ghost {n}, after run {run}"))
                .await;
            self.note_said(said.unwrap());
        }
        self.everybody_reads_what_was_said().await;
        self.nobody_is_somebody_else(&service, newcomer).await;
        if rand::rng().random() {
            service.store.shut_down().await.unwrap();
        }
    }

    async fn what_was_read_is_remembered(&self, service: &Service) {
        let newest = self.read.iter().rev().take(2);
        let others: Vec<_> = {
            let mut rng = rand::rng();
            let places =
                (0..self.read.len().min(READ_AGAIN)).map(|_| rng.random_range(0..self.read.len()));
            places.map(|place| &self.read[place]).collect()
        };
        for heard in newest.chain(others) {
            let again = service.read(heard.ghost, &heard.event).await;
            assert_eq!(again.unwrap(), heard.text);
            let mut replayed = heard.event.clone();
            replayed["event_id"] = "$replayed".into();
            let replayed = service.read(heard.ghost, &replayed).await;
            assert!(matches!(replayed, Err(DecryptError::Replayed { .. })));
        }
    }

    async fn hears(&mut self, service: &Service, heard: Heard, keeps_old_keys: bool) {
        let order = self.take(heard.ghost, keeps_old_keys);
        service.carry_out(&order).await.unwrap();
        self.open.remove(&order.number);
        let text = service.read(heard.ghost, &heard.event).await;
        assert_eq!(text.unwrap(), heard.text);
    }

    async fn everybody_reads_what_was_said(&mut self) {
        self.alice.receives().await;
        self.bob.receives().await;
        let unreadable = (self.alice.unreadable(), self.bob.unreadable());
        assert_eq!(unreadable, (0, 0), "{:?}", self.fake.reuses());
        for said in self.said.drain(..) {
            let content = child::raw(&said.content);
            let event = encrypted_event(&ghost(said.ghost), &room_of(said.ghost), &content);
            for reader in [Some(&self.alice), said.bob.then_some(&self.bob)]
                .into_iter()
                .flatten()
            {
                let read = reader.reads(&room_of(said.ghost), &event).await;
                assert_eq!(read.unwrap(), said.text);
            }
        }
    }

    /// Keys were published once and for good, and no place in an Olm session was used twice.
    async fn nobody_is_somebody_else(&self, service: &Service, newcomer: &UserId) {
        let machines = &service.machines;
        machines.provision(newcomer, "Newcomer").await.unwrap();
        let ghosts = (0..GHOSTS).map(ghost);
        for user in ghosts.chain([newcomer.to_owned()]) {
            let device = machines.device_of(&user).unwrap().unwrap();
            assert_eq!(self.fake.ever_published(&user), (1, 1), "{user}");
            assert_eq!(self.fake.devices(&user), [device.as_str()]);
        }
        assert_eq!(self.fake.reuses(), [""; 0]);
    }
}
