//! How many connections are open, and which of them are the last that the server can take.

use std::sync::Arc;

/// Most connections that are kept for those who ask how the server does.
const MAX_SPARE: usize = 32;

/// The connections that are open.
#[derive(Clone)]
pub(super) struct Connections {
    open: Arc<()>,
    /// Beyond as many, a connection is one of the last.
    regular: usize,
}

/// An open connection, kept with its requests.
pub(super) struct Connection {
    /// It is one of the last that the server can take: only who asks how the server does is answered on it.
    pub(super) is_spare: bool,
    _open: Arc<()>,
}

impl Connections {
    /// An eighth, and 32 at most, is kept for those who ask how the server does.
    pub(super) fn new(most: usize) -> Self {
        Self { open: Arc::default(), regular: most - (most / 8).min(MAX_SPARE) }
    }

    /// One more.
    pub(super) fn open(&self) -> Connection {
        let open = Arc::clone(&self.open);
        Connection { is_spare: Arc::strong_count(&open) - 1 > self.regular, _open: open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_connections_are_spare() {
        for (most, regular) in [(1, 1), (7, 7), (16, 14), (1_000, 968)] {
            let connections = Connections::new(most);
            let open: Vec<_> = (0..most).map(|_| connections.open()).collect();
            assert_eq!(open.iter().filter(|connection| !connection.is_spare).count(), regular, "{most}");
            drop(open);
            assert!(!connections.open().is_spare, "those that have closed do not count");
        }
    }
}
