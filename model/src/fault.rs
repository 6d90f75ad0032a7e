//! Faults that are injected into the protocol on purpose.

/// A fault built into the protocol on purpose, so that a test sees which property finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// A settlement is accepted with any token.
    SettleWithoutToken,
    /// A claim reads a ready task and then updates it, without a guard that it is still as it was read.
    ClaimWithoutGuard,
    /// The sweeper reads a lease that ran out and then takes the task back, without a guard that it is still as it was
    /// read.
    SweepWithoutGuard,
    /// A completion is acknowledged before its write has landed.
    AnswerBeforeWrite,
    /// A repeated settlement is answered by where the task stands now, not by the receipt it had.
    ReceiptOfCurrentState,
    /// A lost lease does not count as an attempt.
    LossNotCounted,
    /// There is no sweeper: leases that ran out are not taken back.
    NoSweeper,
    /// A server takes a lease back, though the lease records that its claim was answered once more.
    WithdrawThoughKept,
    /// A repeated claim is answered by what was read, and the lease does not record that.
    RepeatNotRecorded,
}
