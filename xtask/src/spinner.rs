//! A sign of life while something takes its time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner on a terminal, plain lines elsewhere. It vanishes when dropped, so an error is printed on a clean line.
pub(crate) struct Spinner {
    bar: ProgressBar,
    what: String,
    since: Instant,
}

impl Spinner {
    /// Starts to spin; `what` says what is waited for.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        if bar.is_hidden() {
            eprintln!("{what} …");
        }
        Self { bar, what, since: Instant::now() }
    }

    /// Ends with a line that stays.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("{}: {:.1} s", self.what, self.since.elapsed().as_secs_f64());
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
