//! How many files and connections the system lets this process have open.

/// Descriptors that are no connection: standard streams, the listener, those of the runtimes.
const OWN: usize = 32;
/// Descriptors of each thread that serves requests.
const OF_EACH_WORKER: usize = 4;
/// Connections by which the driver watches the members of the replica set, beside those that work is done by.
const WATCHING: usize = 16;

/// Raises the limit as far as this process may. The limit that shells set by default is for programs that would break beyond it;
/// this one does not.
pub fn raise_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// The limit now.
fn limit() -> usize {
    let limit = rlimit::Resource::NOFILE.get_soft();
    limit.ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many connections each thread may take, so that none is accepted for which there is no descriptor, and the database and
/// the health checks have theirs. Says so in the log when that is less than the setting.
pub(crate) fn connections_per_worker(wanted: usize, workers: usize, to_database: usize) -> usize {
    let limit = limit();
    let others = OWN + WATCHING + to_database + workers * OF_EACH_WORKER;
    let allowed = allowed(limit, others, workers);
    if allowed < wanted {
        tracing::warn!(
            limit,
            needed = others + workers * wanted,
            connections = workers * allowed,
            "the limit of open files is below what HTTP_MAX_CONNECTIONS and MONGODB_MAX_CONNECTIONS allow, so fewer connections \
             are taken: raise it (ulimit -n, LimitNOFILE of systemd, --ulimit nofile of Docker), or lower the settings"
        );
    }
    wanted.min(allowed)
}

/// Where the database could take everything, callers get a quarter all the same: it seldom takes all it may.
fn allowed(limit: usize, others: usize, workers: usize) -> usize {
    (limit.saturating_sub(others).max(limit / 4) / workers).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest() {
        assert_eq!(allowed(1024, 100, 4), 231);
        assert_eq!(allowed(usize::MAX, 100, 1), usize::MAX - 100);
        assert_eq!((allowed(64, 100, 1), allowed(64, 100, 2)), (16, 8));
        assert_eq!(allowed(4, 100, 8), 1);
    }
}
