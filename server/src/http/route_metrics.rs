//! The metrics of each route.

use std::cell::RefCell;
use std::time::Duration;

/// The metrics of one route, kept because looking a metric up by its labels costs more than counting.
pub(super) struct RouteMetrics {
    pub(super) route: String,
    seconds: metrics::Histogram,
    answers: RefCell<Vec<(u16, metrics::Counter)>>,
}

impl RouteMetrics {
    /// That of a route, named by its pattern.
    pub(super) fn of(route: &str) -> Self {
        Self {
            route: route.to_owned(),
            seconds: metrics::histogram!("task_repo_http_request_seconds", "route" => route.to_owned()),
            answers: RefCell::default(),
        }
    }

    pub(super) fn count(&self, status: u16, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        let mut answers = self.answers.borrow_mut();
        if let Some((_, count)) = answers.iter().find(|(counted, _)| *counted == status) {
            return count.increment(1);
        }
        let labels = [("route", self.route.clone()), ("status", status.to_string())];
        let count = metrics::counter!("task_repo_http_requests_total", &labels);
        count.increment(1);
        answers.push((status, count));
    }
}
