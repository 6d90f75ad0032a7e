//! A run as text.

use std::fmt::Write as _;

use super::figure::Figure;
use super::results::Report;

/// From this share of the machine on, other programs are worth a remark.
const MIN_DISTURBANCE_SHOWN: f64 = 0.05;

/// The table, the targets, and what to keep in mind about them.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.machine;
    let kind = if report.quick { "quick run" } else { "full run" };
    let _ = writeln!(
        text,
        "\n{kind}, {}: {} cores ({}), {} MiB, Linux {}, MongoDB {}\n",
        report.at, machine.cores, machine.processor, machine.memory_mib, machine.kernel, report.mongodb
    );
    let _ = writeln!(text, "{}", head());
    for figure in &report.figures {
        let _ = writeln!(text, "{}", line(figure, machine.cores));
    }
    for failure in &report.failures {
        let _ = writeln!(text, "{:<22} could not be run: {}", failure.name, failure.error);
    }
    let _ = writeln!(
        text,
        "\nratio: tasks per second compared with the limit beside it, from this run.\n\
         CPU: microseconds for each task, of client + server + database.\n\
         others: share of the machine that other programs had meanwhile; it was missing.\n"
    );
    let _ = writeln!(text, "{:<54} {:>8} {:>9}", "target", "wanted", "found");
    for target in &report.targets {
        let verdict =
            target.reached.map_or("not measured", |reached| if reached { "reached" } else { "MISSED" });
        let found = target.found.as_deref().unwrap_or("");
        let _ = writeln!(text, "{:<54} {:>8} {found:>9}  {verdict}", target.what, target.wanted);
    }
    text
}

fn head() -> String {
    format!(
        "{:<22} {:>10} {:>9} {:>9} {:>6} {:<19} {:>5} {:>15} {:>6}",
        "scenario", "per second", "p50 ms", "p99 ms", "ratio", "of", "MiB", "CPU µs", "others"
    )
}

/// One scenario: a line, and one more for each note.
pub(crate) fn line(figure: &Figure, cores: usize) -> String {
    let latency = |pick: fn(&super::figure::Latency) -> f64| {
        figure.latency.as_ref().map(|latency| millis(pick(latency))).unwrap_or_default()
    };
    let limit = figure.limit.as_ref();
    let cpu = figure.micros_per_task().map(|[client, server, mongod]| {
        if server > 0.0 {
            format!("{client:.0}+{server:.0}+{mongod:.0}")
        } else {
            format!("{client:.0}+{mongod:.0}")
        }
    });
    let others = Some(figure.disturbance(cores)).filter(|share| *share >= MIN_DISTURBANCE_SHOWN);
    let mut line = format!(
        "{:<22} {:>10} {:>9} {:>9} {:>6} {:<19} {:>5} {:>15} {:>6}",
        figure.name,
        figure.per_second.map(grouped).unwrap_or_default(),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        limit.map(|limit| format!("{:.2}", limit.ratio)).unwrap_or_default(),
        limit.map(|limit| limit.name.as_str()).unwrap_or_default(),
        figure.server_mib.map(|mib| mib.to_string()).unwrap_or_default(),
        cpu.unwrap_or_default(),
        others.map(|share| format!("{:.0} %", share * 100.0)).unwrap_or_default(),
    );
    line.truncate(line.trim_end().len());
    for (name, value) in figure.notes.iter().filter(|(name, _)| *name != "server_peak_mib") {
        let _ = write!(line, "\n    {}: {value:.1}", name.replace('_', " "));
    }
    line
}

/// Milliseconds with as many digits as mean something.
pub(crate) fn millis(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// A rate with its thousands set apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["0", "999", "1 000", "1 234 567"],
            [0.0, 999.4, 1e3, 1_234_567.0].map(grouped).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn a_figure_without_anything_is_its_name() {
        let figure = Figure { name: "a".into(), ..Figure::default() };
        assert_eq!(line(&figure, 2), "a");
    }
}
