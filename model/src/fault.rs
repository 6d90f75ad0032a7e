//! What can be wrong with the protocol on purpose.

/// The protocol as it is built, or with one mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variation {
    /// No mistake.
    AsBuilt,
    /// A settlement is accepted whoever holds the task.
    SettleWithoutToken,
    /// A claim finds a ready task and then updates it, without looking whether it is still ready.
    ClaimWithoutGuard,
    /// The sweeper finds a lease that ran out and then takes the task back, whatever has happened to it since.
    SweepWithoutGuard,
    /// A completion is acknowledged before its write has landed.
    AnswerBeforeWrite,
    /// A repeated settlement is answered by where the task stands now.
    ReceiptOfToday,
    /// A lost lease does not count as an attempt.
    LossGivesAttemptBack,
    /// Nobody takes lost leases back.
    NoSweeper,
    /// A server takes back what it claimed, though the claim was answered once more.
    WithdrawThoughKept,
    /// A repeated claim is answered by what was read, and leaves no mark.
    RepeatWithoutMark,
}
