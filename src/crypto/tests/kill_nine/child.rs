//! The process that is killed: the real store on disk and real machines, at work for all they are
//! worth. It says on its standard output what it has done; what it has said is durable.

use std::io::Write;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::*;

pub(super) const FOLDER: &str = "STONECHAT_TEST_KILL_FOLDER";
pub(super) const HOMESERVER: &str = "STONECHAT_TEST_KILL_HOMESERVER";
pub(super) const NEWCOMER: &str = "STONECHAT_TEST_KILL_NEWCOMER";

/// What a ghost is to do, over the child's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) number: u64,
    pub(super) ghost: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// Take in what a transaction brought.
    Take { to_device: Vec<Value>, left: u32 },
    /// Decrypt an event.
    Read { event: Value },
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The store is open and the ghosts are at work.
    Ready,
    /// A `Take` is done.
    Took { number: u64 },
    /// A `Read` is done.
    Read { number: u64, text: String },
    /// What a ghost sends into its room.
    Said(Said),
    /// The newcomer is there.
    Made,
    /// What must not happen.
    Failed { why: String },
}

/// A message of a ghost.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) ghost: usize,
    pub(super) text: String,
    /// Whether Bob is to read it as well.
    pub(super) bob: bool,
    pub(super) content: Value,
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The ghosts' side, in the child and in the parent.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) store: Store,
    pub(super) machines: Machines,
}

impl Service {
    pub(super) fn open(folder: &Path, hs: Homeserver) -> Self {
        let key = StoreKey::from_file(&folder.join("key")).unwrap();
        let options = StoreOptions {
            cache_bytes: 1 << 20,
        };
        let store = Store::open(&folder.join("store"), &key, &options).unwrap();
        let settings = MachineSettings {
            // In every other run fewer than there are ghosts, so that machines come and go.
            max_live: if store.run().number.is_multiple_of(2) {
                2
            } else {
                100
            },
            top_up_every: Duration::ZERO,
            ..MachineSettings::default()
        };
        let machines = Machines::new(store.clone(), hs, settings).unwrap();
        Self { store, machines }
    }

    /// Does it durably.
    pub(super) async fn carry_out(
        &self,
        order: &Order,
    ) -> Result<Told, Box<dyn std::error::Error + Send + Sync>> {
        let (number, ghost) = (order.number, ghost(order.ghost));
        let told = match &order.what {
            What::Take { to_device, left } => {
                let incoming = IncomingCrypto {
                    to_device: to_device.iter().map(raw).collect(),
                    otk_counts: Some([("signed_curve25519".into(), (*left).into())].into()),
                    ..IncomingCrypto::default()
                };
                self.machines.receive_and_respond(&ghost, incoming).await?;
                Told::Took { number }
            }
            What::Read { event } => {
                let text = self.read(order.ghost, event).await?;
                Told::Read { number, text }
            }
        };
        self.store.flush().await?;
        Ok(told)
    }

    pub(super) async fn read(&self, n: usize, event: &Value) -> Result<String, DecryptError> {
        let event = raw(event);
        let decrypted = self
            .machines
            .decrypt(&ghost(n), &room_of(n), &event)
            .await?;
        let content: Value = serde_json::from_str(decrypted.content.get()).unwrap();
        Ok(content["body"].as_str().unwrap().to_owned())
    }

    pub(super) async fn say(
        &self,
        n: usize,
        bob: bool,
        text: String,
    ) -> Result<Said, EncryptError> {
        let mut recipients = vec![OwnedUserId::try_from(ALICE).unwrap()];
        if bob {
            recipients.push(OwnedUserId::try_from(BOB).unwrap());
        }
        let to = EncryptTo {
            room_id: room_of(n),
            recipients,
            rotation_ms: None,
            rotation_msgs: None,
        };
        let clear = message(&text);
        let content = self
            .machines
            .encrypt(&ghost(n), &to, "m.room.message", &clear)
            .await?;
        let content = serde_json::from_str(content.get()).unwrap();
        Ok(Said {
            ghost: n,
            text,
            bob,
            content,
        })
    }
}

pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// A line, whole or not at all as far as a process can.
pub(super) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap();
    line.push(b'\n');
    line
}

/// What a line says, `None` if it is of somebody else or torn.
pub(super) fn parse<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line).ok()
}

fn tell(told: &Told) {
    let _ = std::io::stdout().lock().write_all(&line(told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of machines_killed_at_any_moment_lose_nothing_and_use_nothing_twice"]
async fn work_until_killed() {
    let var = |name| std::env::var(name).unwrap();
    let url = var(HOMESERVER).parse().unwrap();
    let hs = Homeserver::connect(&url, "token".into(), HomeserverOptions::default())
        .await
        .unwrap();
    let service = Service::open(Path::new(&var(FOLDER)), hs);
    let newcomer = OwnedUserId::try_from(var(NEWCOMER)).unwrap();
    println!();
    tell(&Told::Ready);
    let mut ears = Vec::new();
    for n in 0..GHOSTS {
        let (orders, ear) = mpsc::unbounded_channel();
        ears.push(orders);
        watch(listen(service.clone(), ear));
        watch(speak(service.clone(), n));
    }
    watch(async move {
        service.machines.provision(&newcomer, "Newcomer").await?;
        tell(&Told::Made);
        Ok(())
    });
    // Until the parent has gone. This thread has nothing else to do.
    for line in std::io::stdin().lines() {
        let order: Order = parse(&line.unwrap()).unwrap();
        let _ = ears[order.ghost].send(order);
    }
}

/// Tells how it ended if it did not end well, panics included.
fn watch(work: impl Future<Output = Outcome> + Send + 'static) {
    let work = tokio::spawn(work);
    tokio::spawn(async move {
        let why = match work.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tell(&Told::Failed { why });
    });
}

async fn listen(service: Service, mut orders: mpsc::UnboundedReceiver<Order>) -> Outcome {
    while let Some(order) = orders.recv().await {
        tell(&service.carry_out(&order).await?);
    }
    Ok(())
}

/// Speaks without a pause. Bob comes and goes, so that the session changes often.
async fn speak(service: Service, n: usize) -> Outcome {
    let run = service.store.run().number;
    for count in 0u64.. {
        let text = format!("ghost {n}, run {run}, message {count}");
        let said = service.say(n, count / 12 % 2 == 0, text).await?;
        tell(&Told::Said(said));
    }
    Ok(())
}
