//! Faults injected on purpose, so that the fault harness can prove that its checker finds them. They exist only in builds
//! with the feature `fault-injection`, and there only the one that `TASK_REPO_INJECTED_FAULT` names is injected.

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InjectedFault {
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
    /// The expiry job takes back what it saw a while ago, whatever has become of the task.
    UnguardedSweeper,
}

/// Whether that fault is injected.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn is_injected(_: InjectedFault) -> bool {
    false
}

/// Whether that fault is injected.
#[cfg(feature = "fault-injection")]
pub(crate) fn is_injected(fault: InjectedFault) -> bool {
    static INJECTED: std::sync::OnceLock<Option<InjectedFault>> = std::sync::OnceLock::new();
    let injected = INJECTED.get_or_init(|| match std::env::var("TASK_REPO_INJECTED_FAULT").as_deref() {
        Ok("early-acknowledgement") => Some(InjectedFault::EarlyAcknowledgement),
        Ok("any-token") => Some(InjectedFault::AnyToken),
        Ok("unguarded-claim") => Some(InjectedFault::UnguardedClaim),
        Ok("forgotten-keys") => Some(InjectedFault::ForgottenKeys),
        Ok("lonely-write") => Some(InjectedFault::LonelyWrite),
        Ok("unguarded-sweeper") => Some(InjectedFault::UnguardedSweeper),
        _ => None,
    });
    *injected == Some(fault)
}
