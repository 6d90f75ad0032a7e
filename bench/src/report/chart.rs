//! A run as a picture: a bar for each scenario's tasks per second, and how its latencies spread.
//!
//! Both scales are logarithmic: the scenarios lie a factor of a thousand apart.

use std::fmt::Write as _;

use super::figure::Figure;
use super::results::Report;
use super::table::{grouped, millis};

const ROW_HEIGHT: f64 = 26.0;
const TOP_MARGIN: f64 = 64.0;
const NAMES_WIDTH: f64 = 190.0;
const PLOT_WIDTH: f64 = 380.0;
const PLOT_GAP: f64 = 90.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.small{font-size:10px;fill:#666}\
    .grid{stroke:#ddd}.raw{fill:#b9b9b9}.own{fill:#3b7ddd}.limit{stroke:#c0392b;stroke-width:2}.steps{fill:#2a9d6f}";

/// A logarithmic scale: where it begins, and its decades.
struct Scale {
    left: f64,
    from: f64,
    decades: i32,
}

/// Tasks per second.
const RATES: Scale = Scale { left: NAMES_WIDTH, from: 10.0, decades: 5 };
/// Milliseconds.
const TIMES: Scale = Scale { left: NAMES_WIDTH + PLOT_WIDTH + PLOT_GAP, from: 0.1, decades: 5 };

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.from) / self.from).log10() / f64::from(self.decades);
        self.left + PLOT_WIDTH * share.min(1.0)
    }

    fn grid(&self, title: &str, height: f64) -> String {
        let mut grid = format!(r#"<text x="{}" y="{}">{title}</text>"#, self.left, TOP_MARGIN - 26.0);
        for decade in 0..=self.decades {
            let value = self.from * 10_f64.powi(decade);
            let (x, label) = (self.at(value), if value < 1.0 { value.to_string() } else { grouped(value) });
            let _ = write!(
                grid,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP_MARGIN}" y2="{height}"/><text class="small" x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"#,
                TOP_MARGIN - 6.0
            );
        }
        grid
    }
}

/// The picture.
pub(crate) fn svg(report: &Report) -> String {
    let figures: Vec<_> = report.figures.iter().filter(|figure| figure.latency.is_some()).collect();
    let rows = f64::from(u16::try_from(figures.len()).unwrap_or(u16::MAX));
    let height = ROW_HEIGHT.mul_add(rows, TOP_MARGIN);
    let (width, total) = (TIMES.left + PLOT_WIDTH + 40.0, height + 20.0);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}"><style>{STYLE}</style><rect width="{width}" height="{total}" fill="white"/><text x="8" y="18">{}</text>"#,
        heading(report)
    );
    svg += &RATES.grid("tasks per second; red: the limit it is compared with", height);
    svg += &TIMES.grid("latency of the calls in ms; line: p50, p99", height);
    for (figure, top) in
        figures.into_iter().zip(std::iter::successors(Some(TOP_MARGIN), |top| Some(top + ROW_HEIGHT)))
    {
        svg += &row(figure, top + 4.0);
    }
    svg + "</svg>\n"
}

fn heading(report: &Report) -> String {
    let kind = if report.quick { "quick" } else { "full" };
    format!(
        "{kind} run, {}, {} cores shared by client, server and MongoDB {}",
        report.at, report.machine.cores, report.mongodb
    )
}

/// Name, bar and histogram of one scenario.
fn row(figure: &Figure, top: f64) -> String {
    let (bottom, middle) = (top + ROW_HEIGHT - 8.0, top + 13.0);
    let mut row =
        format!(r#"<text x="8" y="{middle}">{}<title>{}</title></text>"#, figure.name, figure.title);
    if let Some(rate) = figure.per_second {
        let (end, class) = (RATES.at(rate), if figure.name.starts_with("raw-") { "raw" } else { "own" });
        let _ = write!(
            row,
            r#"<rect class="{class}" x="{NAMES_WIDTH}" y="{top}" width="{:.1}" height="{}"/><text class="small" x="{:.1}" y="{middle}">{}</text>"#,
            end - NAMES_WIDTH,
            ROW_HEIGHT - 8.0,
            end + 5.0,
            grouped(rate)
        );
    }
    if let Some(limit) = &figure.limit {
        let x = RATES.at(limit.per_second);
        let _ = write!(row, r#"<line class="limit" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/>"#);
    }
    row + &latencies(figure, top)
}

fn latencies(figure: &Figure, top: f64) -> String {
    let Some(latency) = &figure.latency else { return String::new() };
    let (height, bottom) = (ROW_HEIGHT - 8.0, top + ROW_HEIGHT - 8.0);
    let most = latency.histogram.iter().map(|step| step.1).max().unwrap_or(1);
    let step = PLOT_WIDTH / f64::from(TIMES.decades) / 10.0;
    let mut bars = String::new();
    for (upper, count) in &latency.histogram {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let tall = (*count as f64 / most as f64 * height).max(0.5);
        let (x, y) = ((TIMES.at(*upper) - step).max(TIMES.left), bottom - tall);
        let width = step - 0.5;
        let _ = write!(
            bars,
            r#"<rect class="steps" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{tall:.1}"/>"#
        );
    }
    let [p50, p99] = [latency.p50, latency.p99];
    let (from, to) = (TIMES.at(p50), TIMES.at(p99));
    let _ = write!(
        bars,
        r#"<line x1="{from:.1}" x2="{to:.1}" y1="{bottom}" y2="{bottom}" stroke="black"/><text class="small" x="{:.1}" y="{bottom}">{} · {}</text>"#,
        to + 6.0,
        millis(p50),
        millis(p99)
    );
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::figure::{Latency, Limit};

    #[test]
    fn scales_are_logarithmic_and_end() {
        assert!((RATES.at(10.0) - NAMES_WIDTH).abs() < 1e-9);
        assert!((RATES.at(1e6) - (NAMES_WIDTH + PLOT_WIDTH)).abs() < 1e-9);
        assert!((RATES.at(1e9) - (NAMES_WIDTH + PLOT_WIDTH)).abs() < 1e-9);
        assert!((RATES.at(0.0) - NAMES_WIDTH).abs() < 1e-9);
    }

    #[test]
    fn a_scenario_has_its_bar_its_limit_and_its_histogram() {
        let mut report = Report::new(true, Machine::default(), "6".into());
        report.figures.push(Figure {
            name: "create".into(),
            per_second: Some(1_000.0),
            limit: Some(Limit { name: "raw".into(), per_second: 500.0, ratio: 2.0 }),
            latency: Some(Latency { histogram: vec![(1.0, 3), (2.0, 1)], ..Latency::default() }),
            ..Figure::default()
        });
        let svg = svg(&report);
        assert_eq!(svg.matches("class=\"steps\"").count(), 2);
        assert_eq!(svg.matches("class=\"own\"").count(), 1);
        assert_eq!(svg.matches("class=\"limit\"").count(), 1);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
