//! `stonechat run`

use std::{num::NonZeroU32, path::Path, time::Duration};

use axum::Router;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::{error, info, warn};

use super::{
    CliError, Service,
    checks::{CheckResult, Checker, Observer, Problem, retry_pause},
    logging, open_store, pings,
    service_manager::ServiceManager,
    watchdog,
};
use crate::{
    config::{Setup, secrets::Environment},
    server::{
        self, Admin, AdminSocket, Health, Limits, Listener, MetricsListener, SelfTest, Token,
    },
    shutdown::{self, Shutdown, Trigger},
};

/// How long to wait after a ping that failed.
const PING_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Loads the configuration, opens the store and serves until a signal comes.
pub async fn run(config: &Path, environment: Environment<'_>) -> Result<(), CliError> {
    let setup = Setup::load(config, environment)?;
    logging::start(&setup.config.log);
    let store = open_store(&setup, environment)?;
    watchdog::start(store.failure(), watchdog::GRACE, || std::process::exit(1))
        .map_err(CliError::Runtime)?;
    let listener = Listener::bind(setup.config.appservice.listen, Limits::default()).await?;
    let service = Service::open(setup.clone(), store)?;
    service.reload().on_hangup().map_err(CliError::Runtime)?;
    let sockets = Sockets {
        appservice: listener,
        admin: AdminSocket::bind(&setup.data).await?,
        metrics: match setup.config.metrics.listen {
            Some(address) => Some(MetricsListener::bind(address).await?),
            None => None,
        },
    };
    let (trigger, shutdown) = shutdown::channel();
    stop_on_signals(trigger).map_err(CliError::Runtime)?;
    start(&setup, service, sockets, shutdown).await
}

/// Serves, connects to the homeserver, checks it, and works until asked to stop or until the store
/// fails. After a failure of the store no work can be completed: transactions under way are not
/// acknowledged, and the homeserver sends them again.
pub async fn start(
    setup: &Setup,
    service: Service,
    sockets: Sockets,
    shutdown: Shutdown,
) -> Result<(), CliError> {
    let failure = service.failure();
    tokio::select! {
        biased;
        error = failure.happened() => Err(CliError::Store(error)),
        result = serve(setup, service, sockets, shutdown) => result,
    }
}

/// Serves, connects to the homeserver, checks it, and works until asked to stop.
///
/// The servers start first, so that pushes of the homeserver are not refused in the meantime. They
/// also stop first: the engine can still write the last transaction before it is acknowledged.
async fn serve(
    setup: &Setup,
    service: Service,
    sockets: Sockets,
    shutdown: Shutdown,
) -> Result<(), CliError> {
    let self_test = SelfTest::default();
    let observer = Observer::Local(self_test.clone());
    let health = Health::new(service.failure());
    let admin = service.admin(health.clone(), self_test.clone());
    let options = server_options(setup, self_test, health.clone());
    let router = server::router(service.appservice(), options);
    let servers = Servers::start(sockets, router, admin);
    let manager = ServiceManager::tell_of(&service, &health, &shutdown);

    let checker = match connect_and_check(setup, &service, &shutdown).await {
        Ok(Some(checker)) => checker,
        // Without an engine there is nothing to wait for: no transaction is acknowledged.
        other => {
            drop(service);
            servers.stop().await;
            return other.map(drop);
        }
    };
    let (stop_engine, engine_stopped) = shutdown::channel();
    let started = service.started();
    let mut engine = tokio::spawn(service.run(checker.homeserver(), engine_stopped));
    let reason = tokio::select! {
        biased;
        () = shutdown.asked() => StopReason::Requested,
        result = &mut engine => StopReason::EngineEnded(result),
        checked = check_delivery(&checker, &observer, &shutdown) => {
            checker.clean_up().await;
            match checked {
                Err(error) => StopReason::CheckFailed(error),
                Ok(()) => {
                    let operation = Operation {
                        checker: &checker,
                        observer: &observer,
                        health: &health,
                        has_module: setup.module_token.is_some(),
                        shutdown: &shutdown,
                    };
                    operation.run(started, &mut engine).await
                }
            }
        }
    };
    let result = match reason {
        StopReason::EngineEnded(result) => {
            servers.stop().await;
            engine_result(result)?;
            let problem = "the engine ended without being asked".to_owned();
            return Err(CliError::Engine(problem));
        }
        StopReason::CheckFailed(error) => Err(error),
        StopReason::Requested => Ok(()),
    };
    info!("shutting down");
    manager.stops();
    servers.stop().await;
    stop_engine.pull();
    engine_result(engine.await)?;
    info!("shut down");
    result
}

/// The outcome of a task of the engine.
type EngineResult = Result<Result<(), CliError>, tokio::task::JoinError>;

/// Why the service stops.
enum StopReason {
    /// It was asked to stop.
    Requested,
    /// A check failed, and waiting does not help.
    CheckFailed(CliError),
    /// The engine ended by itself.
    EngineEnded(EngineResult),
}

/// A service that has passed the checks of both sides.
struct Operation<'a> {
    checker: &'a Checker<'a>,
    observer: &'a Observer,
    health: &'a Health,
    has_module: bool,
    shutdown: &'a Shutdown,
}

impl Operation<'_> {
    /// Waits until the engine has started, reports the service as ready, and pings the homeserver
    /// until the service has to stop.
    async fn run(
        self,
        mut started: watch::Receiver<bool>,
        engine: &mut JoinHandle<Result<(), CliError>>,
    ) -> StopReason {
        tokio::select! {
            biased;
            () = self.shutdown.asked() => return StopReason::Requested,
            result = &mut *engine => return StopReason::EngineEnded(result),
            Ok(_) = started.wait_for(|started| *started) => {}
        }
        if self.has_module {
            check_module(self.checker, self.observer, self.shutdown).await;
        }
        self.health.mark_started();
        info!("ready");
        tokio::select! {
            () = self.shutdown.asked() => StopReason::Requested,
            result = engine => StopReason::EngineEnded(result),
            never = pings::ping_forever(self.checker, self.observer, self.health) => match never {},
        }
    }
}

/// The sockets of the service, bound and not served yet.
#[derive(Debug)]
pub struct Sockets {
    /// For the homeserver.
    pub appservice: Listener,
    /// For the admin's commands.
    pub admin: AdminSocket,
    /// For Prometheus, if it is to read metrics.
    pub metrics: Option<MetricsListener>,
}

/// The servers on the sockets, while they run.
struct Servers {
    trigger: Trigger,
    task: JoinHandle<()>,
}

impl Servers {
    /// Starts to serve on all sockets.
    fn start(sockets: Sockets, router: Router, admin: Admin) -> Self {
        let address = sockets.appservice.address();
        if let Some(metrics) = &sockets.metrics {
            info!(address = %metrics.address(), "metrics are shown");
        }
        let (trigger, stop) = shutdown::channel();
        let task = tokio::spawn(async move {
            let metrics = async {
                if let Some(metrics) = sockets.metrics {
                    metrics.serve(admin.clone(), stop.clone()).await;
                }
            };
            let admin_router = server::admin_router(admin.clone());
            tokio::join!(
                sockets.appservice.serve(router, stop.clone()),
                sockets.admin.serve(admin_router, stop.clone()),
                metrics,
            );
        });
        info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        Self { trigger, task }
    }

    /// Accepts no further connection and waits for the last answer.
    async fn stop(self) {
        self.trigger.pull();
        if let Err(error) = self.task.await {
            error!(%error, "the server failed");
        }
    }
}

/// Connects to the homeserver and makes the checks for which it need not reach us. Returns `None`
/// if the service is asked to stop.
async fn connect_and_check<'a>(
    setup: &'a Setup,
    service: &Service,
    shutdown: &Shutdown,
) -> Result<Option<Checker<'a>>, CliError> {
    let connected = until_it_passes("homeserver", shutdown, || Checker::connect(setup)).await?;
    let Some(checker) = connected else {
        return Ok(None);
    };
    let token = until_it_passes("token", shutdown, || checker.check_token()).await?;
    let device = until_it_passes("device", shutdown, || checker.check_device()).await?;
    let namespace = until_it_passes("namespace", shutdown, || checker.check_namespace()).await?;
    let history = service.stamp_history()?;
    let data = until_it_passes("data", shutdown, || checker.check_data(&history)).await?;
    for (name, found) in [
        ("token", token),
        ("device", device),
        ("namespace", namespace),
        ("data", data),
    ] {
        match found {
            Some(found) => info!("{name}: {found}"),
            None => return Ok(None),
        }
    }
    Ok(Some(checker))
}

/// Makes the checks for which the homeserver has to reach us.
async fn check_delivery(
    checker: &Checker<'_>,
    observer: &Observer,
    shutdown: &Shutdown,
) -> Result<(), CliError> {
    let ping = until_it_passes("ping", shutdown, || check_ping(checker, observer)).await?;
    if let Some(found) = ping {
        info!("ping: {found}");
    }
    let to_device = until_it_passes("to-device", shutdown, || checker.check_to_device(observer));
    if let Some(found) = to_device.await? {
        info!("to-device: {found}");
    }
    Ok(())
}

/// Makes the module in the homeserver report itself. While we were away the module stopped asking
/// us, and would wait up to a minute before it asks again; the answer to its report shows it that
/// we are back. Nothing depends on this: without the module, ghosts introduce.
async fn check_module(checker: &Checker<'_>, observer: &Observer, shutdown: &Shutdown) {
    match shutdown.or(checker.check_module(observer)).await {
        Some(Ok(found)) => info!("module: {found}"),
        Some(Err(problem)) => warn!("module: {problem}"),
        None => {}
    }
}

/// Checks the ping up to three times: a failed one may be chance, on a homeserver under load.
async fn check_ping(checker: &Checker<'_>, observer: &Observer) -> CheckResult {
    for _ in 0..2 {
        match checker.check_ping(observer).await {
            Err(problem) if !problem.is_temporary => {
                info!("ping: {problem}; once more");
                crate::clock::sleep(PING_RETRY_PAUSE).await;
            }
            other => return other,
        }
    }
    checker.check_ping(observer).await
}

fn engine_result(result: EngineResult) -> Result<(), CliError> {
    result.unwrap_or_else(|error| Err(CliError::Engine(error.to_string())))
}

/// Returns the options of the router.
pub fn server_options(setup: &Setup, self_test: SelfTest, health: Health) -> server::Options {
    server::Options {
        token: Token::new(&setup.registration.hs_token),
        module_token: setup.module_token.as_ref().map(Token::new),
        lookups_per_second: NonZeroU32::new(setup.config.limits.lookups_per_second)
            .unwrap_or(NonZeroU32::MIN),
        handle_chars_max: setup.config.handles.max_length,
        server_name: setup.config.homeserver.server_name.clone(),
        self_test,
        health,
    }
}

/// Repeats a check until it passes, as long as the problem is transient. Returns `None` if the
/// service is asked to stop.
async fn until_it_passes<T, F: Future<Output = Result<T, Problem>>>(
    name: &str,
    shutdown: &Shutdown,
    check: impl Fn() -> F,
) -> Result<Option<T>, CliError> {
    for tries in 0.. {
        match shutdown.or(check()).await {
            None => return Ok(None),
            Some(Ok(found)) => return Ok(Some(found)),
            Some(Err(problem)) if problem.is_temporary => {
                let wait = retry_pause(tries);
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

/// Stops the service in order on SIGTERM or SIGINT, and at once on a second one.
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
