//! The events as metrics (feature `metrics`).

use std::sync::Arc;

use metrics::{Label, counter, histogram};

use super::{Event, Observer};

/// Counts the events for the `metrics` facade.
///
/// ```
/// use tower_oauth::{OAuthLayer, observe::Metrics};
///
/// let layer = OAuthLayer::client_credentials("https://gw.example/oauth2/v1/token", "key", "secret")
///     .observer(Metrics::new("payments"))
///     .build()?;
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
///
/// | metric | kind | labels besides `layer` |
/// |---|---|---|
/// | `tower_oauth_fetches_total` | counter | `cause`, `outcome` (`ok`, `transient`, `rejected`, `invalid_response`), `host` |
/// | `tower_oauth_fetch_duration_seconds` | histogram | as above |
/// | `tower_oauth_token_requests_total` | counter | `host` |
/// | `tower_oauth_waiters_released_total` | counter | |
/// | `tower_oauth_stale_serves_total` | counter | |
/// | `tower_oauth_suspected_total` | counter | |
/// | `tower_oauth_budget_spent_total` | counter | |
/// | `tower_oauth_fetches_lost_total` | counter | |
/// | `tower_oauth_evicted_total` | counter | |
///
/// All follow flights, not requests: the cached path counts nothing and costs nothing. `cause` is [`FetchCause::name`](super::FetchCause::name).
#[derive(Clone, Debug)]
pub struct Metrics {
    layer: Arc<str>,
}

impl Metrics {
    /// Metrics with this value of the label `layer`, by which several layers of one process are told apart.
    #[must_use]
    pub fn new(layer: impl Into<Arc<str>>) -> Self {
        Self {
            layer: layer.into(),
        }
    }

    fn layer(&self) -> Label {
        Label::new("layer", Arc::clone(&self.layer))
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::FetchFinished {
                cause,
                attempts,
                latency,
                host,
                error,
            } => {
                let host = Label::new("host", host.unwrap_or_default().to_owned());
                let requests = vec![self.layer(), host.clone()];
                counter!("tower_oauth_token_requests_total", requests)
                    .increment(u64::from(*attempts));
                let labels = vec![
                    self.layer(),
                    host,
                    Label::new("cause", cause.name()),
                    Label::new("outcome", error.map_or("ok", |error| error.class().name())),
                ];
                counter!("tower_oauth_fetches_total", labels.clone()).increment(1);
                histogram!("tower_oauth_fetch_duration_seconds", labels)
                    .record(latency.as_secs_f64());
            }
            Event::WaitersReleased { waiters } => {
                counter!("tower_oauth_waiters_released_total", vec![self.layer()])
                    .increment(*waiters as u64);
            }
            Event::StaleServe { .. } => {
                counter!("tower_oauth_stale_serves_total", vec![self.layer()]).increment(1);
            }
            Event::Suspected { .. } => {
                counter!("tower_oauth_suspected_total", vec![self.layer()]).increment(1);
            }
            Event::BudgetSpent { .. } => {
                counter!("tower_oauth_budget_spent_total", vec![self.layer()]).increment(1);
            }
            Event::FetchLost { .. } => {
                counter!("tower_oauth_fetches_lost_total", vec![self.layer()]).increment(1);
            }
            Event::Evicted { .. } => {
                counter!("tower_oauth_evicted_total", vec![self.layer()]).increment(1);
            }
            Event::FetchStarted { .. }
            | Event::ScopeNarrowed { .. }
            | Event::LenientParse { .. } => {}
        }
    }
}
