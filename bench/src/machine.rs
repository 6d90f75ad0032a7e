//! What Linux says about processes and the machine. Elsewhere nothing is known, and the figures do without.

use std::fs;

use serde::{Deserialize, Serialize};

/// Linux counts processor time for programs in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine a run was made on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Cores that client, server and database share.
    pub(crate) cores: usize,
    /// The processor's name.
    pub(crate) processor: String,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: line(&cpu, "model name").to_owned(),
            memory_mib: kib(line(&memory, "MemTotal")) / 1024,
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Processor time a process has used, in seconds.
pub(crate) fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Processor time that all programs of the machine have used, in seconds.
///
/// Interrupts are left out: on the loopback address they are the network, which belongs to no single program.
pub(crate) fn busy_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    let [user, nice, system, ..] = fields[..] else { return None };
    let steal = fields.get(7).copied().unwrap_or_default();
    Some((user + nice + system + steal) / TICKS_PER_SECOND)
}

/// Memory of a process in MiB: now, and the most it ever had.
pub(crate) fn memory_mib(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mib = |name| kib(line(&status, name)) / 1024;
    Some(Memory { now: mib("VmRSS"), peak: mib("VmHWM") })
}

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// When it was looked at.
    pub(crate) now: u64,
    /// The most there ever was.
    pub(crate) peak: u64,
}

/// How many files this process, and those it starts, may have open.
pub(crate) fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether that process runs here and is called so.
pub(crate) fn is_running(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

/// The value of the first line `name: value`.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
}

fn kib(value: &str) -> u64 {
    value.trim_end_matches("kB").trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(memory_mib(pid).unwrap().peak >= memory_mib(pid).unwrap().now / 2);
        assert!(processor_seconds(pid).unwrap() >= 0.0);
        assert!(busy_seconds().unwrap() > 0.0);
        assert!(open_files().unwrap() > 0);
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        assert_eq!(line("MemTotal:   12 kB\nMemFree: 3 kB", "MemFree"), "3 kB");
        assert_eq!(kib("12 kB"), 12);
        assert_eq!(line("", "a"), "");
    }
}
