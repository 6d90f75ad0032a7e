//! Two runs side by side.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::figure::Figure;
use super::results::Report;
use super::table::{grouped, millis};

/// Prints the runs of two files side by side.
pub(crate) fn print(old: &Path, new: &Path) -> Result<()> {
    let read = |file: &Path| -> Result<Report> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no result of a run", file.display()))
    };
    println!("{}", text(&read(old)?, &read(new)?));
    Ok(())
}

fn text(old: &Report, new: &Report) -> String {
    let mut text = String::new();
    for (name, report) in [("old", old), ("new", new)] {
        let kind = if report.quick { "quick" } else { "full" };
        let _ = writeln!(text, "{name}: {kind} run, {}, MongoDB {}", report.at, report.mongodb);
    }
    if old.quick != new.quick || old.machine.processor != new.machine.processor {
        let _ =
            writeln!(text, "The runs are of different kinds or machines: only the ratios can be compared.");
    }
    let _ = writeln!(
        text,
        "\n{:<22} {:>10} {:>10} {:>7}  {:>8} {:>8}  {:>6} {:>6}  {:>5} {:>5}",
        "scenario", "old /s", "new /s", "change", "old p99", "new p99", "ratio", "ratio", "MiB", "MiB"
    );
    let only_old = old.figures.iter().filter(|figure| new.figure(&figure.name).is_none());
    for figure in new.figures.iter().chain(only_old) {
        let _ = writeln!(text, "{}", line(&figure.name, old.figure(&figure.name), new.figure(&figure.name)));
    }
    text
}

fn line(name: &str, old: Option<&Figure>, new: Option<&Figure>) -> String {
    let rate = |figure: Option<&Figure>| figure.and_then(|figure| figure.per_second);
    let show = |figure, pick: fn(&Figure) -> Option<String>| -> String {
        Option::<&Figure>::and_then(figure, pick).unwrap_or_default()
    };
    let p99 = |figure: &Figure| figure.latency.as_ref().map(|latency| millis(latency.p99));
    let ratio = |figure: &Figure| figure.limit.as_ref().map(|limit| format!("{:.2}", limit.ratio));
    let memory = |figure: &Figure| figure.server_mib.map(|mib| mib.to_string());
    let change = rate(old).zip(rate(new)).map(|(old, new)| format!("{:+.0} %", (new / old - 1.0) * 100.0));
    format!(
        "{name:<22} {:>10} {:>10} {:>7}  {:>8} {:>8}  {:>6} {:>6}  {:>5} {:>5}",
        rate(old).map(grouped).unwrap_or_default(),
        rate(new).map(grouped).unwrap_or_default(),
        change.unwrap_or_default(),
        show(old, p99),
        show(new, p99),
        show(old, ratio),
        show(new, ratio),
        show(old, memory),
        show(new, memory),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn report(per_second: f64) -> Report {
        let mut report = Report::new(true, Machine::default(), "6".into());
        report.figures.push(Figure { name: "a".into(), per_second: Some(per_second), ..Figure::default() });
        report
    }

    #[test]
    fn a_change_is_in_percent_of_the_old() {
        let text = text(&report(1000.0), &report(1500.0));
        assert!(text.contains("1 000") && text.contains("1 500") && text.contains("+50 %"), "{text}");
    }

    #[test]
    fn what_only_one_of_them_has_is_shown_too() {
        let mut new = report(1.0);
        new.figures[0].name = "b".into();
        let text = text(&report(1.0), &new);
        assert!(text.contains("\na ") && text.contains("\nb "), "{text}");
    }
}
