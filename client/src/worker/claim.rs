//! Asks for the next work until the service answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::{ErrorCode, Uuid};

use super::event::WorkerEvent;
use super::settings::Settings;
use super::slots::ClaimPlan;
use crate::decode::ClaimedTasks;
use crate::error::ClientError;
use crate::retry::{endless_pauses, pause_after};

/// The first pause after a claim failed.
const FIRST_CLAIM_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after a claim failed.
const LONGEST_CLAIM_PAUSE: Duration = Duration::from_secs(15);
/// The answer to a claim.
pub(crate) struct ClaimAnswer {
    pub(crate) plan: ClaimPlan,
    pub(crate) tasks: Result<ClaimedTasks, ClientError>,
    /// The claim was sent more than once, so the leases may have begun before this answer.
    pub(crate) is_repeated: bool,
}

/// Claims until the service answers. Only refusals that a repetition would meet again are errors.
pub(crate) async fn claim(settings: Arc<Settings>, plan: ClaimPlan, claim_id: Uuid) -> ClaimAnswer {
    // All repetitions carry one id, so that tasks claimed by an answer that was lost come with the next answer.
    let claim = settings.claim(&plan, settings.wait, claim_id);
    let mut pauses = endless_pauses(FIRST_CLAIM_PAUSE, LONGEST_CLAIM_PAUSE);
    let mut is_repeated = false;
    loop {
        let asked = Instant::now();
        let error = match settings.client_without_retries.claim_unreported(&claim).await {
            Ok(tasks) => {
                // A server that is stopping, or cannot let claims wait, answers early. Without this pause the worker would
                // claim in a busy loop.
                if tasks.is_empty() && asked.elapsed() < (settings.wait / 2).max(FIRST_CLAIM_PAUSE) {
                    tokio::time::sleep(pauses.next().unwrap_or(FIRST_CLAIM_PAUSE)).await;
                }
                return ClaimAnswer { plan, tasks: Ok(tasks), is_repeated };
            }
            Err(error) if is_final(&error) => return ClaimAnswer { plan, tasks: Err(error), is_repeated },
            Err(error) => error,
        };
        let retry_in = pause_after(&error, pauses.next().unwrap_or(LONGEST_CLAIM_PAUSE));
        settings.events.emit(WorkerEvent::ClaimFailed { error: &error, retry_in });
        tokio::time::sleep(retry_in).await;
        is_repeated = true;
    }
}

/// Whether the service will refuse the claim again, until the worker's settings or its key are changed.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::InvalidArgument(_) | ClientError::Encode(_) => true,
        ClientError::Refused(problem) => matches!(
            problem.code,
            ErrorCode::MalformedJson
                | ErrorCode::InvalidParameter
                | ErrorCode::Unauthenticated
                | ErrorCode::Forbidden
                | ErrorCode::NotFound
                | ErrorCode::MethodNotAllowed
                | ErrorCode::UnsupportedMediaType
                | ErrorCode::ValidationFailed
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::{Problem, Word};

    use super::*;

    #[test]
    fn a_worker_gives_up_only_on_what_stays_refused() {
        let refused = |code| ClientError::Refused(Box::new(Problem::new(code, "", "r")));
        assert!(is_final(&refused(ErrorCode::Unauthenticated)));
        assert!(is_final(&refused(ErrorCode::Forbidden)));
        for code in
            [ErrorCode::Internal, ErrorCode::Overloaded, ErrorCode::Unavailable, ErrorCode::LimitExceeded]
        {
            assert!(!is_final(&refused(code)), "{code}");
        }
        let unknown = Word::new("a_code_of_the_future").map(ErrorCode::Other).expect("short enough");
        assert!(!is_final(&refused(unknown)), "it may pass");
    }
}
