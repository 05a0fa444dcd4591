//! `stonechat doctor`

use std::{path::Path, process::ExitCode};

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use super::{
    CliError, Service,
    admin::RunningService,
    checks::{CheckResult, Checker, Observer, Problem},
    open_store,
    printable::Printable,
    run::server_options,
};
use crate::{
    config::{Setup, secrets::Environment},
    engine::StampHistory,
    server::{self, Admin, Health, Limits, Listener, SelfTest, ServerError},
    shutdown,
    store::StoreError,
};

/// One row of the table.
struct Row {
    name: &'static str,
    found: Option<CheckResult>,
    /// Whether the check is only a recommendation.
    advice: bool,
}

/// Advice about a setting that cannot be seen from outside `homeserver.yaml`: the problem unless it
/// is set, and what to set.
const INVITES_ADVICE: (&str, &str) = (
    "cannot be seen from here: rc_invites in homeserver.yaml. By default Synapse lets each ghost, \
     and the bot, be invited from other servers 5 times and then once in 333 seconds, no matter by \
     whom (per_user: 0.003 a second, burst 5), so one server can keep the others out",
    "set rc_invites: {per_user: {per_second: 5, burst_count: 50}}, if you have not. It holds for \
     all people of the homeserver",
);

/// Advice about another such setting.
const DELETIONS_ADVICE: (&str, &str) = (
    "cannot be seen from here: redaction_allowed_period in homeserver.yaml. If it is set, a message \
     of a masked conversation that is deleted later than that is deleted for its sender only",
    "leave it out, which is the default",
);

/// The results of the checks so far.
#[derive(Default)]
struct Report(Vec<Row>);

impl Report {
    /// Adds a check. Returns whether it passed.
    fn add(&mut self, name: &'static str, found: CheckResult) -> bool {
        let passed = found.is_ok();
        self.0.push(Row {
            name,
            found: Some(found),
            advice: false,
        });
        passed
    }

    /// Adds advice about a setting that cannot be checked.
    fn add_advice(&mut self, name: &'static str, (wrong, remedy): (&str, &str)) {
        self.0.push(Row {
            name,
            found: Some(Err(Problem::new(wrong, remedy))),
            advice: true,
        });
    }

    /// Adds checks that are skipped because others failed.
    fn skip(&mut self, names: &[&'static str]) {
        self.0.extend(names.iter().map(|name| Row {
            name,
            found: None,
            advice: false,
        }));
    }

    fn failed(&self) -> usize {
        let failed = |row: &&Row| !row.advice && matches!(row.found, Some(Err(_)));
        self.0.iter().filter(failed).count()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(100)
            .set_header(["check", "result", "what was found, and what to change"]);
        for row in &self.0 {
            let (result, text) = match &row.found {
                Some(Ok(found)) => ("ok", Printable::whole(found).to_string()),
                Some(Err(problem)) => {
                    let result = if row.advice { "advice" } else { "FAILED" };
                    (result, format_problem(problem))
                }
                None => ("not made", "the checks above have to pass first".to_owned()),
            };
            table.add_row([row.name, result, &text]);
        }
        table
    }
}

/// Returns a problem as the text of a cell, without characters that could control the terminal.
fn format_problem(problem: &Problem) -> String {
    let said = problem.server_message.as_deref().map(Printable::whole);
    let said = said.map_or_else(String::new, |said| format!("\nthe homeserver says: {said}"));
    format!(
        "{}{said}\n→ {}",
        Printable::whole(&problem.wrong),
        Printable::whole(&problem.remedy)
    )
}

/// Makes all checks, prints them, and exits with 0 if none failed.
pub async fn run(config: &Path, environment: Environment<'_>) -> Result<ExitCode, CliError> {
    let mut report = Report::default();
    run_checks(&mut report, config, environment).await;
    println!("{}", report.table());
    Ok(match report.failed() {
        0 => {
            println!("All is well.");
            ExitCode::SUCCESS
        }
        1 => {
            println!("1 check failed.");
            ExitCode::FAILURE
        }
        n => {
            println!("{n} checks failed.");
            ExitCode::FAILURE
        }
    })
}

async fn run_checks(report: &mut Report, config: &Path, environment: Environment<'_>) {
    const DELIVERY_CHECKS: [&str; 2] = ["ping", "to-device"];
    const HOMESERVER_CHECKS: [&str; 5] = ["homeserver", "data", "token", "device", "namespace"];

    let setup = match Setup::load(config, environment) {
        Ok(setup) => {
            let of = (
                setup.config_path.display(),
                setup.registration_path.display(),
            );
            report.add("configuration", Ok(format!("{} and {} agree", of.0, of.1)));
            setup
        }
        Err(error) => {
            report.add(
                "configuration",
                Err(Problem::of_message(&error.to_string())),
            );
            report.skip(&["store"]);
            report.skip(&HOMESERVER_CHECKS);
            report.skip(&DELIVERY_CHECKS);
            return;
        }
    };

    let local = LocalService::open(&setup, environment).await;
    let observer = match &local {
        Ok(local) => {
            report.add("store", Ok(local.store.clone()));
            Ok(local.observer.clone())
        }
        Err(problem) => {
            report.add("store", Err(problem.clone()));
            Err(())
        }
    };

    match Checker::connect(&setup).await {
        Ok(checker) => {
            report.add(
                "homeserver",
                Ok(format!("answers at {}", setup.config.homeserver.url)),
            );
            let mut observer = observer.as_ref().ok();
            if let Ok(local) = &local
                && !prepare(report, local, &checker).await
            {
                observer = None;
            }
            check_homeserver(report, &checker, observer).await;
            if let Ok(local) = &local {
                report.add("ghosts", local.check_ghosts(&checker).await);
            }
            check_settings(report, &checker).await;
            check_module(report, &setup, &checker, observer).await;
            checker.clean_up().await;
        }
        Err(problem) => {
            report.add("homeserver", Err(problem));
            report.skip(&HOMESERVER_CHECKS[1..]);
            report.skip(&DELIVERY_CHECKS);
        }
    }
    if let Ok(local) = local
        && let Err(error) = local.close().await
    {
        report.add("end", Err(Problem::of_message(&error.to_string())));
    }
}

/// Checks that the data folder was not set back, and then has what the homeserver pushes accepted.
/// Returns `false` if nothing may come: it would be lost when the data is put right.
async fn prepare(report: &mut Report, local: &LocalService, checker: &Checker<'_>) -> bool {
    let passed = report.add("data", local.check_data(checker).await);
    if !passed && local.server.is_some() {
        return false;
    }
    if let Err(error) = local.accept_only(checker).await {
        report.add("engine", Err(Problem::of_message(&error.to_string())));
    }
    true
}

async fn check_homeserver(report: &mut Report, checker: &Checker<'_>, observer: Option<&Observer>) {
    let token = report.add("token", checker.check_token().await);
    let device = if token {
        report.add("device", checker.check_device().await)
    } else {
        report.skip(&["device"]);
        false
    };
    report.add("namespace", checker.check_namespace().await);
    match observer {
        Some(observer) if token => {
            let ping = report.add("ping", checker.check_ping(observer).await);
            if ping && device {
                report.add("to-device", checker.check_to_device(observer).await);
            } else {
                report.skip(&["to-device"]);
            }
        }
        _ => report.skip(&["ping", "to-device"]),
    }
    if token {
        let found = checker.check_encryption_by_default().await;
        report.0.push(Row {
            name: "encryption",
            found: Some(found),
            advice: true,
        });
    }
}

/// Checks the settings of the homeserver that change what people can do with handles.
async fn check_settings(report: &mut Report, checker: &Checker<'_>) {
    report.add("version", checker.check_version().await);
    // All of these act as a user of ours.
    if checker.check_token().await.is_err() {
        return report.skip(&["lookups", "auto-accept", "search", "calls", "group calls"]);
    }
    report.add("lookups", checker.check_lookups().await);
    report.add("auto-accept", checker.check_auto_accept().await);
    for (name, found) in [
        ("search", checker.check_search().await),
        ("calls", checker.check_calls().await),
        ("group calls", checker.check_rtc().await),
    ] {
        report.0.push(Row {
            name,
            found: Some(found),
            advice: true,
        });
    }
    report.add_advice("invites", INVITES_ADVICE);
    report.add_advice("deletions", DELETIONS_ADVICE);
}

/// Checks that the homeserver has our module. Without a token of the module this is only advice.
async fn check_module(
    report: &mut Report,
    setup: &Setup,
    checker: &Checker<'_>,
    observer: Option<&Observer>,
) {
    let found = match (&setup.module_token, observer) {
        (None, _) => Err(Problem::new(
            "there is no module in the homeserver: a ghost is in every new room for some seconds, \
             and the ghost of an open handle can read the opening line",
            "with the module no ghost enters, and the first message is encrypted for its owner \
             alone; `stonechat registration --with-module` prints what to add",
        )),
        (Some(_), Some(observer)) => checker.check_module(observer).await,
        (Some(_), None) => return report.skip(&["module"]),
    };
    report.0.push(Row {
        name: "module",
        found: Some(found),
        advice: setup.module_token.is_none(),
    });
}

/// Who can say what is in the store.
enum StoreSource<'a> {
    Running(&'a RunningService),
    Opened(Box<Admin>),
    None,
}

fn problem_of(error: CliError) -> Problem {
    Problem::of_message(&error.to_string())
}

/// A running Stonechat, or a server that runs during the checks. The transactions that this server
/// accepts wait for the next `run`.
struct LocalService {
    observer: Observer,
    store: String,
    server: Option<(Service, shutdown::Trigger, tokio::task::JoinHandle<()>)>,
}

impl LocalService {
    async fn open(setup: &Setup, environment: Environment<'_>) -> Result<Self, Problem> {
        let of = |error: String| Problem::of_message(&error);
        let running = RunningService::find(&setup.data).await;
        if let Some(running) = running.map_err(|error| of(error.to_string()))? {
            return Ok(Self {
                observer: Observer::Running(running),
                store: "open in the running Stonechat".to_owned(),
                server: None,
            });
        }
        let address = setup.config.appservice.listen;
        let listener = match Listener::bind(address, Limits::default()).await {
            Ok(listener) => listener,
            Err(ServerError::InUse { .. }) => {
                return Err(Problem::new(
                    format!(
                        "something listens on {address}, and it is not the Stonechat of {}",
                        setup.data.display()
                    ),
                    "stop it, or choose another port in appservice.listen and appservice.url",
                ));
            }
            Err(error) => return Err(of(error.to_string())),
        };
        let store = open_store(setup, environment).map_err(|error| match error {
            CliError::Store(StoreError::InUse { .. }) => Problem::new(
                error.to_string(),
                format!("it runs with another configuration: nothing listens on {address}"),
            ),
            error => of(error.to_string()),
        })?;
        let service = Service::open(setup.clone(), store).map_err(|error| of(error.to_string()))?;
        let self_test = SelfTest::default();
        let options = server_options(setup, self_test.clone(), Health::default());
        let (trigger, shutdown) = shutdown::channel();
        let router = server::router(service.appservice(), options);
        let server = tokio::spawn(listener.serve(router, shutdown));
        Ok(Self {
            observer: Observer::Local(self_test),
            store: format!("{} can be opened", setup.data.display()),
            server: Some((service, trigger, server)),
        })
    }

    async fn accept_only(&self, checker: &Checker<'_>) -> Result<(), CliError> {
        match &self.server {
            Some((service, ..)) => service.accept_only(checker.homeserver()).await,
            None => Ok(()),
        }
    }

    /// Checks that the data folder was not set back.
    async fn check_data(&self, checker: &Checker<'_>) -> CheckResult {
        let history = match self.source() {
            StoreSource::Running(running) => running.stamp_history().await,
            StoreSource::Opened(admin) => admin.stamp_history().map_err(CliError::from),
            StoreSource::None => Ok(StampHistory::default()),
        };
        let history = history.map_err(problem_of)?;
        checker.check_data_and_homeserver(&history).await
    }

    /// Checks that the homeserver has the ghosts, and that nothing is still to be done to any.
    async fn check_ghosts(&self, checker: &Checker<'_>) -> CheckResult {
        let (devices, owed) = match self.source() {
            StoreSource::Running(running) => (running.devices().await, running.owed_ghosts().await),
            StoreSource::Opened(admin) => (
                admin.devices().map_err(CliError::from),
                admin.owed_ghosts().map_err(CliError::from),
            ),
            StoreSource::None => (Ok(Vec::new()), Ok(Vec::new())),
        };
        let (devices, owed) = (devices.map_err(problem_of)?, owed.map_err(problem_of)?);
        checker.check_ghosts(&devices, &owed).await
    }

    /// Returns who can say what is in the store.
    fn source(&self) -> StoreSource<'_> {
        match (&self.observer, &self.server) {
            (Observer::Running(running), _) => StoreSource::Running(running),
            (Observer::Local(test), Some((service, ..))) => {
                StoreSource::Opened(Box::new(service.admin(Health::default(), test.clone())))
            }
            (Observer::Local(_), None) => StoreSource::None,
        }
    }

    async fn close(self) -> Result<(), CliError> {
        let Some((service, trigger, server)) = self.server else {
            return Ok(());
        };
        trigger.pull();
        if let Err(error) = server.await {
            tracing::debug!(%error, "the server failed");
        }
        service.close().await
    }
}
