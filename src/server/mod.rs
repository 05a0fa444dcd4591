//! The application service API: the requests of the homeserver to us.
//!
//! [`router`] is the API as an axum router over an [`Appservice`], which the engine implements.
//! [`Listener`] serves the router on a TCP port, with the limits that a public port needs.
//! [`AdminSocket`] serves [`admin_router`], for the admin's commands, on a Unix socket in the data
//! folder. [`MetricsListener`] serves the metrics on a port of their own.
//!
//! | path | spec |
//! |---|---|
//! | `PUT /_matrix/app/v1/transactions/{txnId}` | [pushing events](https://spec.matrix.org/v1.19/application-service-api/#pushing-events) |
//! | `POST /_matrix/app/v1/ping` | [pinging](https://spec.matrix.org/v1.19/application-service-api/#pinging) |
//! | `GET /_matrix/app/v1/users/{userId}`, `…/rooms/{alias}` | [querying](https://spec.matrix.org/v1.19/application-service-api/#querying) |
//! | `GET /_matrix/app/v1/thirdparty/…` | [third-party networks](https://spec.matrix.org/v1.19/application-service-api/#third-party-networks) |
//! | `POST /_stonechat/v1/introduce`, `…/blocked`, `…/deactivated`, `…/module` | ours: for the module in the homeserver |
//! | `GET /health/ready`, `/health` | ours: 200 when all is up, 503 with the part that is not |
//! | `GET /health/live` | ours: 200 as long as the process runs |

mod admin;
mod admin_answer;
mod admin_handles;
mod admin_people;
mod appservice;
mod auth;
mod connections;
mod engine;
mod error;
mod exposition;
mod health;
mod listener;
mod metrics;
mod module;
mod peer;
mod queries;
mod self_test;
mod thirdparty;
mod transaction_order;
mod transactions;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post, put},
};
use governor::DefaultDirectRateLimiter;
use tokio::sync::Semaphore;

pub use admin::{Admin, AdminSocket, LastBackup, Reload, Reloaded, SOCKET, Status, admin_router};
pub use admin_answer::ActDone;
pub use admin_handles::{ActRequest, AuditQuery, HandleDetails, HandleQuery, StartedEngine};
pub use admin_people::{
    BanQuery, ErasureRequest, GranteeActRequest, LimitsQuery, LimitsUsed, PersonQuery,
};
pub use appservice::{Appservice, AppserviceError, ThirdPartyUser};
pub use auth::Token;
pub use connections::Limits;
pub use error::{ApiError, ServerError};
pub use exposition::{Exposition, ExpositionError};
pub use health::{Health, HealthPart};
pub use listener::Listener;
pub use metrics::MetricsListener;
pub use module::{ModuleMonitor, ModuleReport, ModuleStatus};
pub use self_test::{MarkStatus, SelfTest};

/// Maximum size of a body that is read as a whole, such as a ping's, in bytes. The body of a
/// transaction is read as it arrives and has no limit: the homeserver would send a refused one
/// again.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Maximum number of transactions that are read at the same time. The homeserver sends one.
const TRANSACTION_READS_MAX: usize = 4;

/// The settings of the router.
#[derive(Clone, Debug)]
pub struct Options {
    /// The homeserver's token (`hs_token`).
    pub token: Token,
    /// The token of the module in the homeserver; without it the module's paths do not exist.
    pub module_token: Option<Token>,
    /// Maximum number of third-party lookups per second, for all users together.
    pub lookups_per_second: std::num::NonZeroU32,
    /// Maximum length of a handle in characters, for the pattern that clients are given.
    pub handle_chars_max: usize,
    /// The name of our homeserver, shown to clients beside "handle".
    pub server_name: ruma::OwnedServerName,
    /// The self-test, by which the checks of `run` and `doctor` see what the homeserver pushed.
    pub self_test: SelfTest,
    /// The state that `/health/ready` reports.
    pub health: Health,
}

struct AppState<A> {
    appservice: A,
    options: Options,
    lookups: DefaultDirectRateLimiter,
    transaction_order: transaction_order::TransactionOrder,
    refusals: transactions::Refusals,
    transaction_reads: Semaphore,
}

type App<A> = Arc<AppState<A>>;

/// Returns the application service API.
pub fn router<A: Appservice>(appservice: A, options: Options) -> Router {
    let lookups =
        DefaultDirectRateLimiter::direct(governor::Quota::per_second(options.lookups_per_second));
    let token = options.token.clone();
    let module_token = options.module_token.clone();
    let ready = {
        let health = options.health.clone();
        async move || health.respond()
    };
    let app: App<A> = Arc::new(AppState {
        appservice,
        options,
        lookups,
        transaction_order: transaction_order::TransactionOrder::default(),
        refusals: transactions::Refusals::default(),
        transaction_reads: Semaphore::new(TRANSACTION_READS_MAX),
    });

    // The token is checked before the body and everything else in a request. The paths and methods
    // are public in the specification, so an unknown one is reported with and without a token.
    let api = Router::new()
        .route("/transactions/{txn}", put(transactions::push::<A>))
        .route("/ping", post(transactions::ping::<A>))
        .route("/users/{user}", get(queries::query_user::<A>))
        .route("/rooms/{alias}", get(queries::query_room))
        .route(
            "/thirdparty/protocol/{protocol}",
            get(thirdparty::describe_protocol::<A>),
        )
        .route(
            "/thirdparty/user/{protocol}",
            get(thirdparty::find_users_by_handle::<A>),
        )
        .route("/thirdparty/user", get(thirdparty::find_users_by_id::<A>))
        .route(
            "/thirdparty/location/{protocol}",
            get(thirdparty::find_locations_by_protocol),
        )
        .route(
            "/thirdparty/location",
            get(thirdparty::find_locations_by_alias),
        )
        .route_layer(middleware::from_fn_with_state(token, auth::require_token))
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app.clone());

    let ours = match module_token {
        Some(token) => for_module(app, token),
        None => Router::new(),
    };

    Router::new()
        .nest("/_matrix/app/v1", api)
        .nest("/_stonechat/v1", ours)
        .route("/health", get(ready.clone()))
        .route("/health/ready", get(ready))
        .route("/health/live", get(async || health::respond_live()))
        .method_not_allowed_fallback(error::wrong_method)
        .fallback(error::unknown_path)
}

/// Returns the paths that are for the module alone.
fn for_module<A: Appservice>(app: App<A>, token: Token) -> Router {
    Router::new()
        .route("/introduce", post(module::introduce::<A>))
        .route("/blocked", post(module::blocked::<A>))
        .route("/deactivated", post(module::deactivated::<A>))
        .route("/module", post(module::report::<A>))
        .route_layer(middleware::from_fn_with_state(token, auth::require_token))
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(module::MODULE_BODY_BYTES_MAX))
        .with_state(app)
}

#[cfg(test)]
mod tests;
