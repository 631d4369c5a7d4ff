//! The events as metrics (feature `metrics`).

use std::sync::Arc;

use metrics::{Label, counter, histogram};

use super::{Event, Observer};

/// Counts the events for the `metrics` facade.
///
/// ```
/// use tower_oauth::{OAuthLayer, observe::Metrics};
///
/// let layer = OAuthLayer::client_credentials("https://gw.example/token", "key", "secret")
///     .observer(Metrics::new("payments"))
///     .build()?;
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
///
/// | metric | kind | labels besides `layer` |
/// |---|---|---|
/// | `tower_oauth_fetches_total` | counter | `cause`, `outcome`, `host` |
/// | `tower_oauth_fetch_duration_seconds` | histogram | `cause`, `outcome`, `host` |
/// | `tower_oauth_token_requests_total` | counter | `host` |
/// | `tower_oauth_stale_serves_total` | counter | |
/// | `tower_oauth_suspected_total` | counter | |
/// | `tower_oauth_budget_spent_total` | counter | |
/// | `tower_oauth_fetches_lost_total` | counter | |
/// | `tower_oauth_evicted_total` | counter | |
///
/// `cause` is [`FetchCause::name`](super::FetchCause::name), and `outcome` is `ok`, `transient`,
/// `rejected` or `invalid_response`. A stale serve is a failed fetch after which a live token stays
/// in use. The cached path counts nothing: all metrics follow flights and 401s.
#[derive(Clone, Debug)]
pub struct Metrics {
    layer: Arc<str>,
}

impl Metrics {
    /// Metrics whose label `layer` has this value, which tells the layers of a process apart.
    #[must_use]
    pub fn new(layer: impl Into<Arc<str>>) -> Self {
        Self {
            layer: layer.into(),
        }
    }

    fn labels(&self, more: impl IntoIterator<Item = Label>) -> Vec<Label> {
        let layer = Label::new("layer", Arc::clone(&self.layer));
        [layer].into_iter().chain(more).collect()
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        let counted = match event {
            Event::FetchFinished {
                cause,
                attempts,
                latency,
                host,
                error,
                remaining,
            } => {
                let host = Label::new("host", host.unwrap_or_default().to_owned());
                let outcome = error.map_or("ok", |error| error.class().name());
                let requests = self.labels([host.clone()]);
                counter!("tower_oauth_token_requests_total", requests)
                    .increment(u64::from(*attempts));
                let labels = self.labels([
                    host,
                    Label::new("cause", cause.name()),
                    Label::new("outcome", outcome),
                ]);
                counter!("tower_oauth_fetches_total", labels.clone()).increment(1);
                histogram!("tower_oauth_fetch_duration_seconds", labels)
                    .record(latency.as_secs_f64());
                if remaining.is_none() {
                    return;
                }
                "tower_oauth_stale_serves_total"
            }
            Event::Suspected { .. } => "tower_oauth_suspected_total",
            Event::BudgetSpent { .. } => "tower_oauth_budget_spent_total",
            Event::FetchLost { .. } => "tower_oauth_fetches_lost_total",
            Event::Evicted { .. } => "tower_oauth_evicted_total",
            Event::FetchStarted { .. } | Event::ScopeNarrowed { .. } => return,
        };
        counter!(counted, self.labels([])).increment(1);
    }
}
