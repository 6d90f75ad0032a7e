//! How large things are during a run, and how fast they grow.

#![expect(clippy::cast_precision_loss, reason = "for people to read")]

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

/// What was measured at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Size {
    /// Of the largest server, resident.
    pub(crate) memory_kib: u64,
    /// Open files and connections of the server that has most.
    pub(crate) open_files: u64,
    /// Of all indexes of the tasks.
    pub(crate) index_bytes: i64,
    /// Tasks that are there.
    pub(crate) tasks: i64,
    /// Those that are not final.
    pub(crate) open: i64,
}

/// Resident memory in KiB and open files of a process; zeros when it has ended.
pub(crate) fn of_process(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let memory =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
    (memory.unwrap_or(0), files)
}

/// Connections of callers to whoever listens at that port: open ones, and those that only the listener has not closed.
pub(crate) fn connections(port: u16) -> Result<usize> {
    let all = std::fs::read_to_string("/proc/net/tcp")?;
    let is_one = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Established, and waiting to be closed.
        matches!(fields[3], "01" | "08") && fields[1].ends_with(&format!(":{port:04X}"))
    };
    Ok(all.lines().skip(1).filter(is_one).count())
}

/// How things grow: the slopes of the lines that fit best.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Growth {
    /// Of the largest server, before anybody called it.
    pub(crate) memory_mib_at_first: f64,
    /// The most that a server had.
    pub(crate) most_memory_mib: f64,
    /// Files and connections of the server that had most, before anybody called it.
    pub(crate) open_files_at_first: u64,
    /// The most files and connections that a server had open.
    pub(crate) most_open_files: u64,
    /// Files and connections in the end, when no caller is left.
    pub(crate) open_files_at_end: u64,
    /// Of the largest server, in MiB a minute, without the first third of the run.
    pub(crate) memory_mib_per_minute: f64,
    /// Of all indexes, in bytes for each task that is there more.
    pub(crate) index_bytes_per_task: f64,
}

/// What the measurements come to.
pub(crate) fn growth(sizes: &[(Duration, Size)]) -> Growth {
    let warm = &sizes[sizes.len() / 3..];
    let mib = |kib: u64| kib as f64 / 1024.0;
    let memory = warm.iter().map(|(at, size)| (at.as_secs_f64() / 60.0, mib(size.memory_kib)));
    let answered = sizes.iter().filter(|(_, size)| size.tasks > 0);
    let indexes = answered.map(|(_, size)| (size.tasks as f64, size.index_bytes as f64));
    Growth {
        memory_mib_at_first: sizes.first().map_or(0.0, |(_, size)| mib(size.memory_kib)),
        open_files_at_first: sizes.first().map_or(0, |(_, size)| size.open_files),
        most_memory_mib: mib(sizes.iter().map(|(_, size)| size.memory_kib).max().unwrap_or(0)),
        most_open_files: sizes.iter().map(|(_, size)| size.open_files).max().unwrap_or(0),
        open_files_at_end: sizes.last().map_or(0, |(_, size)| size.open_files),
        memory_mib_per_minute: slope(memory),
        index_bytes_per_task: slope(indexes),
    }
}

/// Of the line with the least squares; 0 where there is none.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (over, under) = points.fold((0.0, 0.0), |(over, under), point| {
        (over + (point.0 - x) * (point.1 - y), under + (point.0 - x) * (point.0 - x))
    });
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_best_line() {
        let near = |points: &[(f64, f64)], wanted: f64| (slope(points.iter().copied()) - wanted).abs() < 1e-9;
        assert!(near(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)], 2.0));
        assert!(near(&[(0.0, 0.0), (1.0, 2.0), (2.0, 1.0)], 0.5));
        assert!(near(&[(1.0, 7.0)], 0.0) && near(&[], 0.0));
    }
}
