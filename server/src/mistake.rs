//! Mistakes made on purpose, so that the fault harness can prove that it finds them. They exist only in builds with the
//! feature `mistakes`, and there only the one that `TASK_REPO_MISTAKE` names is made.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A create is answered before its task is written.
    EarlyAcknowledgement,
    /// A settlement counts whatever token it shows.
    AnyToken,
    /// A claim is written without a look at what the task is by then.
    UnguardedClaim,
    /// Idempotency keys are not kept.
    ForgottenKeys,
    /// A write counts once the primary has it.
    LonelyWrite,
    /// The sweeper takes back what it saw a while ago, whatever has become of it.
    UnguardedSweeper,
}

/// Whether that one is made.
#[cfg(not(feature = "mistakes"))]
pub(crate) const fn is_made(_: Mistake) -> bool {
    false
}

/// Whether that one is made.
#[cfg(feature = "mistakes")]
pub(crate) fn is_made(mistake: Mistake) -> bool {
    static MADE: std::sync::OnceLock<Option<Mistake>> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| match std::env::var("TASK_REPO_MISTAKE").as_deref() {
        Ok("early-acknowledgement") => Some(Mistake::EarlyAcknowledgement),
        Ok("any-token") => Some(Mistake::AnyToken),
        Ok("unguarded-claim") => Some(Mistake::UnguardedClaim),
        Ok("forgotten-keys") => Some(Mistake::ForgottenKeys),
        Ok("lonely-write") => Some(Mistake::LonelyWrite),
        Ok("unguarded-sweeper") => Some(Mistake::UnguardedSweeper),
        _ => None,
    });
    *made == Some(mistake)
}
