//! The documented metrics, counted by a recorder of the facade's own.
#![cfg(feature = "metrics")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use support::*;
use tower::{Layer, ServiceExt};
use tower_oauth::observe::Metrics;

#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<String, f64>>>);

struct Line(Book, String);

impl Line {
    fn new(book: &Book, key: &Key) -> Self {
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        Self(
            book.clone(),
            format!("{}{{{}}}", key.name(), labels.join(",")),
        )
    }

    fn add(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Line {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!()
    }
}

impl HistogramFn for Line {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder for Book {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Line::new(self, key)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Line::new(self, key)))
    }
}

#[tokio::test(start_paused = true)]
async fn flights_are_counted_under_the_documented_names() {
    let book = Book::default();
    let _recorder = metrics::set_default_local_recorder(&book);
    let endpoint = Endpoint::new()
        .then([
            Answer::Refused,
            Answer::Token(100),
            Answer::Error(400, "invalid_scope"),
        ])
        .latency(Duration::from_millis(250));
    let layer = builder(&endpoint)
        .observer(Metrics::new("x"))
        .build()
        .unwrap();
    let service = layer.layer(Api::new(|_| unauthorized("")));
    service.clone().oneshot(get(API)).await.unwrap();
    service.clone().oneshot(get(API)).await.unwrap();
    settle().await;
    let book = book.0.lock().unwrap().clone();
    let fetches = "cause=no_token,host=127.0.0.1,layer=x,outcome=ok";
    let refused = "cause=refused,host=127.0.0.1,layer=x,outcome=rejected";
    assert_eq!(
        book[&format!("tower_oauth_fetches_total{{{fetches}}}")],
        1.0
    );
    assert_eq!(
        book[&format!("tower_oauth_fetches_total{{{refused}}}")],
        1.0
    );
    assert!(book[&format!("tower_oauth_fetch_duration_seconds{{{fetches}}}")] >= 0.5);
    assert_eq!(
        book["tower_oauth_token_requests_total{host=127.0.0.1,layer=x}"],
        3.0
    );
    assert_eq!(book["tower_oauth_stale_serves_total{layer=x}"], 1.0);
    assert_eq!(book["tower_oauth_suspected_total{layer=x}"], 1.0);
}
