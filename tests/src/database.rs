//! The database of one test.

use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use crate::waiting::run_elsewhere;

/// A database with a name of its own, dropped with this value.
pub struct TestDatabase {
    uri: String,
    handle: mongodb::Database,
}

impl TestDatabase {
    /// A fresh one in the MongoDB that `TEST_MONGODB_URI` names. Where it names several, separated by spaces, tests are
    /// spread over them, so that a fault injected into one does not disturb the tests on the others.
    pub async fn create() -> Self {
        static NEXT_MONGODB: AtomicUsize = AtomicUsize::new(0);
        let named = std::env::var("TEST_MONGODB_URI").unwrap_or_default();
        let uris: Vec<_> = named.split_whitespace().collect();
        let number = NEXT_MONGODB.fetch_add(1, Ordering::Relaxed);
        let Some(uri) = number.checked_rem(uris.len()).map(|place| uris[place].to_owned()) else {
            panic!(
                "TEST_MONGODB_URI is not set. Run the tests with `cargo xtask test`, which starts a MongoDB for them, \
                 or set it to a replica set of your own, such as mongodb://127.0.0.1:27017/?replicaSet=rs0"
            );
        };
        let client = mongodb::Client::with_uri_str(&uri)
            .await
            .unwrap_or_else(|error| panic!("TEST_MONGODB_URI cannot be used: {error}"));
        let handle = client.database(&format!("test_{}", Uuid::now_v7().simple()));
        Self { uri, handle }
    }

    /// The URI of the MongoDB it is in.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// The database itself, past the server.
    pub fn handle(&self) -> mongodb::Database {
        self.handle.clone()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (uri, name) = (self.uri.clone(), self.name().to_owned());
        run_elsewhere(move || async move {
            // A database that stays behind does no harm to other tests: each has a name of its own.
            if let Ok(client) = mongodb::Client::with_uri_str(&uri).await {
                let _ = client.database(&name).drop().await;
            }
        });
    }
}
