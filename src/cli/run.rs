//! `stonechat run`

use std::{num::NonZeroU32, path::Path, time::Duration};

use axum::Router;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::{
    CliError, Service,
    checks::{Checker, Found, Problem, Witness, pause},
    logging, open_store, pings, watchdog,
};
use crate::{
    config::{Setup, secrets::Environment},
    server::{self, AdminSocket, Health, Limits, Listener, SelfTest, Token},
    shutdown::{self, Shutdown, Trigger},
};

/// How long after a ping that failed there is another.
const PING_AGAIN: Duration = Duration::from_secs(1);

/// Loads, opens and serves until a signal comes.
pub async fn run(config: &Path, environment: Environment<'_>) -> Result<(), CliError> {
    let setup = Setup::load(config, environment)?;
    logging::start(&setup.config.log);
    let store = open_store(&setup, environment)?;
    watchdog::start(store.failure(), watchdog::GRACE, || std::process::exit(1))
        .map_err(CliError::Runtime)?;
    let listener = Listener::bind(setup.config.appservice.listen, Limits::default()).await?;
    let service = Service::open(setup.clone(), store)?;
    let socket = AdminSocket::bind(&setup.data).await?;
    let (trigger, shutdown) = shutdown::channel();
    stop_on_signals(trigger).map_err(CliError::Runtime)?;
    start(&setup, service, listener, socket, shutdown).await
}

/// Serves, finds the homeserver, checks it, and works until asked to end or until the store fails.
/// After that nothing can be finished: what is under way is not acknowledged and comes again.
pub async fn start(
    setup: &Setup,
    service: Service,
    listener: Listener,
    socket: AdminSocket,
    shutdown: Shutdown,
) -> Result<(), CliError> {
    let failure = service.failure();
    tokio::select! {
        biased;
        error = failure.happened() => Err(CliError::Store(error)),
        ended = serve(setup, service, listener, socket, shutdown) => ended,
    }
}

/// Serves, finds the homeserver, checks it, and works until asked to end.
///
/// The server is up first: what the homeserver pushes while the rest begins is not refused. It is
/// down first as well, with its last transaction durable and acknowledged, while the engine can
/// still write it down.
async fn serve(
    setup: &Setup,
    service: Service,
    listener: Listener,
    socket: AdminSocket,
    shutdown: Shutdown,
) -> Result<(), CliError> {
    let self_test = SelfTest::default();
    let witness = Witness::Here(self_test.clone());
    let health = Health::of(service.failure());
    let commands = server::admin_router(service.admin(health.clone(), self_test.clone()));
    let options = server_options(setup, self_test, health.clone());
    let router = server::router(service.intake(), options);
    let front = Front::up(listener, router, socket, commands);

    let checker = match find(setup, &shutdown).await {
        Ok(Some(checker)) => checker,
        // Without an engine there is nothing to wait for: what is under way is not acknowledged.
        other => {
            drop(service);
            front.down().await;
            return other.map(drop);
        }
    };
    let (halt, halted) = shutdown::channel();
    let mut begun = service.begun();
    let mut working = tokio::spawn(service.work(checker.homeserver(), halted));
    let mut failed = None;
    let ended = tokio::select! {
        biased;
        () = shutdown.asked() => None,
        ended = &mut working => Some(ended),
        checked = delivery(&checker, &witness, &shutdown) => {
            checker.clean_up().await;
            match checked {
                Err(problem) => {
                    failed = Some(problem);
                    None
                }
                Ok(()) => tokio::select! {
                    biased;
                    () = shutdown.asked() => None,
                    ended = &mut working => Some(ended),
                    Ok(_) = begun.wait_for(|begun| *begun) => {
                        if setup.module_token.is_some() {
                            call_module(&checker, &witness, &shutdown).await;
                        }
                        health.ready();
                        info!("ready");
                        tokio::select! {
                            () = shutdown.asked() => None,
                            ended = &mut working => Some(ended),
                            never = pings::keep_on(&checker, &witness, &health) => match never {},
                        }
                    }
                },
            }
        }
    };
    if let Some(ended) = ended {
        front.down().await;
        finish(ended)?;
        let problem = "the engine ended without being asked".to_owned();
        return Err(CliError::Engine(problem));
    }
    info!("going down");
    front.down().await;
    halt.pull();
    finish(working.await)?;
    info!("down");
    failed.map_or(Ok(()), Err)
}

/// The server while it runs.
struct Front {
    close: Trigger,
    serving: tokio::task::JoinHandle<()>,
}

impl Front {
    /// Serves on the port and on the admin socket.
    fn up(listener: Listener, router: Router, socket: AdminSocket, commands: Router) -> Self {
        let address = listener.address();
        let (close, closing) = shutdown::channel();
        let serving = tokio::spawn({
            let (public, admin) = (closing.clone(), closing);
            async move {
                tokio::join!(
                    listener.serve(router, public),
                    socket.serve(commands, admin)
                );
            }
        });
        info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        Self { close, serving }
    }

    /// Lets nobody new in and waits for the last answer.
    async fn down(self) {
        self.close.pull();
        if let Err(error) = self.serving.await {
            error!(%error, "the server broke");
        }
    }
}

/// Finds the homeserver and makes the checks that need nothing of us. `None` when it is time to
/// end.
async fn find<'a>(setup: &'a Setup, shutdown: &Shutdown) -> Result<Option<Checker<'a>>, CliError> {
    let found = until_it_passes("homeserver", shutdown, || Checker::connect(setup)).await?;
    let Some(checker) = found else {
        return Ok(None);
    };
    let token = until_it_passes("token", shutdown, || checker.token()).await?;
    let device = until_it_passes("device", shutdown, || checker.device()).await?;
    let namespace = until_it_passes("namespace", shutdown, || checker.namespace()).await?;
    for (name, found) in [
        ("token", token),
        ("device", device),
        ("namespace", namespace),
    ] {
        match found {
            Some(found) => info!("{name}: {found}"),
            None => return Ok(None),
        }
    }
    Ok(Some(checker))
}

/// The checks that need both sides.
async fn delivery(
    checker: &Checker<'_>,
    witness: &Witness,
    shutdown: &Shutdown,
) -> Result<(), CliError> {
    if let Some(found) = until_it_passes("ping", shutdown, || ping(checker, witness)).await? {
        info!("ping: {found}");
    }
    if let Some(found) =
        until_it_passes("to-device", shutdown, || checker.to_device(witness)).await?
    {
        info!("to-device: {found}");
    }
    Ok(())
}

/// Lets the module in the homeserver report itself. While we were away it stopped asking us, and
/// would go on so for up to a minute; now it knows that we are back. Nothing depends on it: without
/// it ghosts introduce.
async fn call_module(checker: &Checker<'_>, witness: &Witness, shutdown: &Shutdown) {
    match shutdown.or(checker.module(witness)).await {
        Some(Ok(found)) => info!("module: {found}"),
        Some(Err(problem)) => warn!("module: {problem}"),
        None => {}
    }
}

/// One ping that fails may be a hiccup of a homeserver under load, three are an answer.
async fn ping(checker: &Checker<'_>, witness: &Witness) -> Found {
    for _ in 0..2 {
        match checker.ping(witness).await {
            Err(problem) if !problem.passing => {
                info!("ping: {problem}; once more");
                crate::clock::sleep(PING_AGAIN).await;
            }
            other => return other,
        }
    }
    checker.ping(witness).await
}

fn finish(ended: Result<Result<(), CliError>, tokio::task::JoinError>) -> Result<(), CliError> {
    ended.unwrap_or_else(|error| Err(CliError::Engine(error.to_string())))
}

/// What the server needs to know.
pub fn server_options(setup: &Setup, self_test: SelfTest, health: Health) -> server::Options {
    server::Options {
        token: Token::new(&setup.registration.hs_token),
        module_token: setup.module_token.as_ref().map(Token::new),
        lookups_per_second: NonZeroU32::new(setup.config.limits.lookups_per_second)
            .unwrap_or(NonZeroU32::MIN),
        max_handle: setup.config.handles.max_length,
        server_name: setup.config.homeserver.server_name.clone(),
        self_test,
        health,
    }
}

/// Makes a check until it passes, as long as what is wrong may pass by itself. `None` when it is
/// time to end.
async fn until_it_passes<T, F: Future<Output = Result<T, Problem>>>(
    name: &str,
    shutdown: &Shutdown,
    check: impl Fn() -> F,
) -> Result<Option<T>, CliError> {
    for tries in 0.. {
        match shutdown.or(check()).await {
            None => return Ok(None),
            Some(Ok(found)) => return Ok(Some(found)),
            Some(Err(problem)) if problem.passing => {
                let wait = pause(tries);
                warn!("{name}: {problem}; trying again in {} s", wait.as_secs());
                if shutdown.or(crate::clock::sleep(wait)).await.is_none() {
                    return Ok(None);
                }
            }
            Some(Err(problem)) => return Err(CliError::Check(format!("{name}: {problem}"))),
        }
    }
    Ok(None)
}

/// SIGTERM and SIGINT end us in order; a second one at once.
fn stop_on_signals(trigger: Trigger) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                warn!("asked twice: ending at once");
                std::process::exit(130);
            }
            first = false;
            trigger.pull();
        }
    });
    Ok(())
}
