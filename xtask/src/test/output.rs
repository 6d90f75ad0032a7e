//! What `cargo test` prints, line by line: which target's tests run, what they came to, and what failing ones said.

/// How many lines a message of a panic may have. Dumps of large values have more.
const MESSAGE: usize = 12;
/// How many of the last lines that a failing test printed are shown.
const PRINTED: usize = 20;

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The program of a target begins with so many tests.
    Begins(u64),
    /// A test has ended.
    Test,
    /// All tests of a target have ended.
    Ends(Counts),
    /// Nothing of the above.
    Other,
}

/// What tests came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl Counts {
    pub(super) fn all(self) -> u64 {
        self.passed + self.failed + self.ignored
    }

    pub(super) fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.ignored += more.ignored;
    }

    /// From `test result: ok. 1 passed; 0 failed; 0 ignored; …`.
    fn of(line: &str) -> Option<Self> {
        let count = |name: &str| {
            let before = line.split_once(&format!(" {name};"))?.0;
            before.rsplit(' ').next()?.parse().ok()
        };
        let is_result = line.starts_with("test result: ");
        is_result.then(|| {
            Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
        })?
    }
}

/// A test that failed, or a program that ended before its tests had.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) target: String,
    /// `None`: the program itself.
    pub(super) test: Option<String>,
    /// What it printed.
    pub(super) printed: Vec<String>,
}

/// Where in the output of one target the reader is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    /// Nothing runs.
    #[default]
    Outside,
    Tests,
    /// What each failing test printed.
    Printed,
    /// The list of their names, which says nothing new.
    Names,
}

/// Reads the output.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The target that runs, or ran last.
    target: String,
    part: Part,
    failures: Vec<Failure>,
    /// What no part claims: output of tests that was not captured, and what cargo says.
    beside: Vec<String>,
}

impl Reader {
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn read(&mut self, line: &str) -> Line {
        if let Some(target) = target(line) {
            self.close();
            (self.target, self.part) = (target, Part::Tests);
            return Line::Other;
        }
        if let Some(counts) = Counts::of(line) {
            self.part = Part::Outside;
            self.beside.clear();
            return Line::Ends(counts);
        }
        match self.part {
            Part::Tests if line == "failures:" => self.part = Part::Printed,
            Part::Tests if line.starts_with("test ") => return Line::Test,
            Part::Printed if line == "failures:" => self.part = Part::Names,
            Part::Printed => {
                let name = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
                let target = self.target.clone();
                match (name, self.failures.last_mut()) {
                    (Some(name), _) => {
                        let test = Some(name.to_owned());
                        self.failures.push(Failure { target, test, printed: Vec::new() });
                    }
                    (None, Some(failure)) => failure.printed.push(line.to_owned()),
                    (None, None) => {}
                }
            }
            Part::Names => {}
            Part::Outside | Part::Tests => {
                if let Some(count) = tests(line) {
                    return Line::Begins(count);
                }
                self.beside.push(line.to_owned());
            }
        }
        Line::Other
    }

    /// Ends the reading: the failures, and what was printed since the last target ended.
    pub(super) fn end(mut self) -> (Vec<Failure>, Vec<String>) {
        self.close();
        (self.failures, self.beside)
    }

    /// A target that has not said what its tests came to has failed as a whole.
    fn close(&mut self) {
        let printed = std::mem::take(&mut self.beside);
        if std::mem::take(&mut self.part) == Part::Outside {
            self.beside = printed;
        } else {
            self.failures.push(Failure { target: self.target.clone(), test: None, printed });
        }
    }
}

/// From `Running unittests src/lib.rs (target/debug/deps/name-0123456789abcdef)` and `Doc-tests name`.
fn target(line: &str) -> Option<String> {
    if let Some(package) = line.strip_prefix("   Doc-tests ") {
        return Some(format!("{package} (doc tests)"));
    }
    let (source, program) = line.strip_prefix("     Running ")?.strip_suffix(')')?.split_once(" (")?;
    let name = program.rsplit('/').next()?;
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    Some(format!("{name} ({})", source.trim_start_matches("unittests ")))
}

/// From `running 12 tests`.
fn tests(line: &str) -> Option<u64> {
    let (count, rest) = line.strip_prefix("running ")?.split_once(' ')?;
    rest.starts_with("test").then(|| count.parse().ok())?
}

impl Failure {
    /// Name, messages of the panics with their places, and the end of what else was printed.
    pub(super) fn lines(&self) -> Vec<String> {
        let what = self.test.as_deref().unwrap_or("the program ended before its tests had");
        let mut lines = vec![format!("FAILED {what} · {}", self.target)];
        let mut rest = Vec::new();
        let mut printed = self.printed.iter().map(String::as_str).peekable();
        while let Some(line) = printed.next() {
            let Some(place) = place_of_panic(line) else {
                rest.push(line);
                continue;
            };
            let is_message = |line: &&str| !line.is_empty() && !line.starts_with("note: run with");
            let mut message = Vec::new();
            while message.len() < MESSAGE
                && let Some(line) = printed.next_if(is_message)
            {
                message.push(line);
            }
            let mut message = message.into_iter();
            lines.push(format!("  {place} {}", message.next().unwrap_or_default()));
            lines.extend(message.map(|line| format!("    {line}")));
        }
        rest.retain(|line| !line.trim().is_empty() && !line.starts_with("note: run with"));
        if !rest.is_empty() {
            let shown = &rest[rest.len().saturating_sub(PRINTED)..];
            let which = if shown.len() < rest.len() { "the end of what" } else { "what" };
            lines.push(format!("  {which} it printed:"));
            lines.extend(shown.iter().map(|line| format!("    {line}")));
        }
        lines
    }
}

/// From `thread 'name' (17) panicked at tests/it/claim.rs:12:5:`.
fn place_of_panic(line: &str) -> Option<&str> {
    line.strip_prefix("thread '")?.split_once("panicked at ").map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILING: &str = r"   Compiling x v0.1.0
     Running unittests src/lib.rs (target/debug/deps/task_repo_server-0123456789abcdef)

running 2 tests
test a::good ... ok
test a::bad ... FAILED

failures:

---- a::bad stdout ----
log line 1

thread 'a::bad' (17) panicked at server/src/a.rs:12:5:
assertion `left == right` failed: they differ
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    a::bad

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p task-repo-server --lib`
";

    fn read(text: &str) -> (Vec<Line>, Vec<Failure>) {
        let mut reader = Reader::default();
        let lines = text.lines().map(|line| reader.read(line)).filter(|line| *line != Line::Other).collect();
        (lines, reader.end().0)
    }

    #[test]
    fn a_failure_is_its_name_its_place_and_its_message() {
        let (lines, failures) = read(FAILING);
        let counts = Counts { passed: 1, failed: 1, ignored: 0 };
        assert_eq!(lines, [Line::Begins(2), Line::Test, Line::Test, Line::Ends(counts)]);
        assert_eq!(
            failures[0].lines(),
            [
                "FAILED a::bad · task_repo_server (src/lib.rs)",
                "  server/src/a.rs:12:5: assertion `left == right` failed: they differ",
                "      left: 1",
                "     right: 2",
                "  what it printed:",
                "    log line 1",
            ]
        );
        assert_eq!(failures.len(), 1);
    }

    #[test]
    fn of_a_long_log_the_end_is_shown() {
        let printed = (0..100).map(|number| format!("line {number}")).collect();
        let lines = Failure { target: "it".into(), test: Some("t".into()), printed }.lines();
        assert_eq!(
            (lines.len(), &*lines[1], &*lines[2]),
            (22, "  the end of what it printed:", "    line 80")
        );
    }

    #[test]
    fn a_program_that_ends_early_is_a_failure_with_what_it_said_last() {
        let text = "     Running it/main.rs (target/debug/deps/it-00)\n\nrunning 3 tests\ntest a ... ok\nfatal\n\
                    error: test failed\n   Doc-tests x\n\nrunning 0 tests\n\n\
                    test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let (lines, failures) = read(text);
        assert_eq!(lines.last(), Some(&Line::Ends(Counts::default())));
        let [
            "FAILED the program ended before its tests had · it (it/main.rs)",
            ..,
            "    fatal",
            "    error: test failed",
        ] = failures[0].lines().iter().map(String::as_str).collect::<Vec<_>>()[..]
        else {
            panic!("{failures:?}")
        };
    }

    #[test]
    fn a_test_without_a_panic_shows_what_it_printed() {
        let printed = vec!["Error: \"no\"".to_owned(), String::new()];
        let lines = Failure { target: "it".into(), test: Some("t".into()), printed }.lines();
        assert_eq!(lines, ["FAILED t · it", "  what it printed:", "    Error: \"no\""]);
    }
}
