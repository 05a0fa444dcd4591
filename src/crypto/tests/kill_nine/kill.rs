//! The kill: a child at work, work for it, and the moment it dies.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{ChildStdin, Command, Stdio},
    sync::Mutex,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    child::{Told, What},
    *,
};

/// How long the ghosts work at most before they are killed.
const AT_WORK: Duration = Duration::from_millis(1500);
/// How many orders may wait in the child.
const OPEN_ORDERS: usize = 12;

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it was started.
    WhileItStarts(Duration),
    /// So long after it began to work.
    AtWork(Duration),
    /// When the homeserver has done what it asked for and has not answered: what went out is not
    /// to be taken back. At this path, after so many requests.
    AtRequest(&'static str, usize),
}

impl Moment {
    fn any() -> Self {
        let mut rng = rand::rng();
        match rng.random_range(0..8) {
            0 => Self::WhileItStarts(rng.random_range(Duration::ZERO..AT_WORK / 8)),
            1..=3 => Self::AtWork(rng.random_range(Duration::ZERO..AT_WORK)),
            4 | 5 => Self::AtRequest("/keys/upload", rng.random_range(0..4)),
            _ => Self::AtRequest("/sendToDevice/", rng.random_range(0..12)),
        }
    }

    fn at_last(self) -> Duration {
        match self {
            Self::WhileItStarts(moment) | Self::AtWork(moment) => moment,
            Self::AtRequest(..) => AT_WORK,
        }
    }
}

impl Parent {
    /// Lets the child work, gives it work, and kills it in the midst of it.
    pub(super) async fn run_until_killed(&mut self, newcomer: &UserId, addressed: usize) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crypto::tests::kill_nine::child::work_until_killed",
            ])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(child::FOLDER, &self.folder)
            .env(child::HOMESERVER, self.fake.url().as_str())
            .env(child::NEWCOMER, newcomer.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, mut told) = mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(word) = child::parse::<Told>(&line) {
                    let _ = tell.send(word);
                }
            }
        });
        let child = Arc::new(Mutex::new(child));
        let moment = Moment::any();
        if let Moment::AtRequest(path, n) = moment {
            let child = child.clone();
            let kill = move || child.lock().unwrap().kill().unwrap();
            self.fake.at_request(path, n, kill);
        }
        let (at_work, begun) = oneshot::channel();
        let killer = tokio::spawn({
            let child = child.clone();
            async move {
                if !matches!(moment, Moment::WhileItStarts(_)) {
                    let _ = begun.await;
                }
                // Chance is the point here.
                tokio::time::sleep(moment.at_last()).await;
                child.lock().unwrap().kill().unwrap();
            }
        });
        let mut at_work = Some(at_work);
        let mut made = false;
        // Until the last word of the child is heard.
        let mut words = Vec::new();
        while told.recv_many(&mut words, 1000).await > 0 {
            for word in words.drain(..) {
                match word {
                    Told::Ready => {
                        let _ = at_work.take().unwrap().send(());
                    }
                    Told::Made => made = true,
                    word => self.note(word),
                }
            }
            if at_work.is_none() && self.open.len() < OPEN_ORDERS {
                self.give_work(&mut stdin, addressed).await;
            }
        }
        killer.abort();
        reader.join().unwrap();
        let ended = child.lock().unwrap().wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "the child ended by itself");
        self.count.killed_before_work += usize::from(at_work.is_some());
        self.count.kills += 1;
        self.count.orders_cut_short += self.open.len();
        self.count.newcomers_cut_short += usize::from(!made);
    }

    fn note(&mut self, word: Told) {
        match word {
            Told::Took { number } => {
                self.count.taken += 1;
                self.open.remove(&number).unwrap();
            }
            Told::Read { number, text } => {
                self.count.read += 1;
                self.open.remove(&number).unwrap();
                self.note_read(number, &text);
            }
            Told::Said(said) => {
                self.count.said += 1;
                self.note_said(said);
            }
            Told::Ready | Told::Made => {}
            Told::Failed { why } => panic!("the child failed: {why}"),
        }
    }

    /// Alice says something to a ghost, now and then with a new key; strangers claim keys.
    async fn give_work(&mut self, stdin: &mut ChildStdin, addressed: usize) {
        let (n, fresh_key, strangers) = {
            let mut rng = rand::rng();
            (
                rng.random_range(0..GHOSTS),
                rng.random_bool(0.4),
                rng.random_bool(0.25),
            )
        };
        // But not those of the ghost to whom somebody will come with an old key: of many keys
        // that were claimed and not used, only the newest are kept.
        if strangers && n != addressed {
            self.fake.claim(&ghost(n), &self.devices[n], 30);
        }
        let heard = self.alice_says(n, fresh_key).await;
        let take = self.take(n, n == addressed);
        let read = self.order(
            n,
            What::Read {
                event: heard.event.clone(),
            },
        );
        self.expected.insert(read.number, heard);
        for order in [take, read] {
            // When it is dead already, the order stays open.
            let _ = stdin.write_all(&child::line(&order));
        }
    }
}
