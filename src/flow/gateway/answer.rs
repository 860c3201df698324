//! What the provider's answer to a purchase means for the money, and what its caller is told.

use crate::domain::decision::Submission;
use crate::domain::error_code::PROVIDER_UNREACHABLE;
use crate::domain::outcome::Failure;
use crate::domain::purchase::{self, Reply, SubmitResult};
use crate::domain::refusal::refusal;
use crate::planted;
use crate::provider::{HttpAnswer, Submitted};

/// What an answer means for the money (contract section 6): refused only when it is certain that nothing was bought.
pub(super) fn understand(submitted: Submitted) -> (Submission, Reply) {
    match submitted {
        Submitted::NotSent(said) => {
            let code = Some(PROVIDER_UNREACHABLE.to_owned());
            let error = Failure { code: code.clone(), text: Some(said.clone()) };
            (Submission::Refused(error), Reply { error_code: code, ..reply(SubmitResult::NotSent, said) })
        }
        Submitted::BrokenOff { status, said } if is_refusal(status) => {
            let answer = HttpAnswer { status, content_type: None, retry_after: None, body: Vec::new() };
            refused(answer, said)
        }
        Submitted::NoAnswer(said) | Submitted::BrokenOff { said, .. } => {
            (Submission::Unclear, reply(SubmitResult::Unclear, said))
        }
        Submitted::Answered(answer) => answered(answer),
    }
}

fn answered(answer: HttpAnswer) -> (Submission, Reply) {
    match answer.status {
        200..=299 => match purchase::accepted(&answer.body) {
            Some((provider_id, price)) => {
                let accepted = reply(SubmitResult::Accepted, "sold".to_owned());
                (Submission::Accepted { provider_id, price }, of(answer, accepted))
            }
            None if planted::is(planted::Fault::GarbageIsRefused) => refused(answer, "refused".to_owned()),
            // The answer is kept, but it says nothing to the caller.
            None => unclear("the answer has no generation id", answer.body),
        },
        status if is_refusal(status) => refused(answer, "refused".to_owned()),
        500..=599 => {
            let error_code = refusal(answer.status, &answer.body).code;
            let unclear = Reply { error_code, ..reply(SubmitResult::Unclear, "an error of the provider".to_owned()) };
            (Submission::Unclear, of(answer, unclear))
        }
        408 => unclear("the provider gave up waiting", answer.body),
        300..=399 => unclear("a redirect, which is not followed", answer.body),
        _ => unclear("an answer that means nothing", answer.body),
    }
}

/// 4xx but 408: the provider says that it did not sell.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && status != 408
}

fn refused(answer: HttpAnswer, said: String) -> (Submission, Reply) {
    let error = refusal(answer.status, &answer.body);
    let refused = Reply { error_code: error.code.clone(), ..reply(SubmitResult::Refused, said) };
    (Submission::Refused(error), of(answer, refused))
}

fn unclear(said: &str, body: Vec<u8>) -> (Submission, Reply) {
    (Submission::Unclear, Reply { body, ..reply(SubmitResult::Unclear, said.to_owned()) })
}

fn reply(result: SubmitResult, said: String) -> Reply {
    Reply { result, http_status: None, content_type: None, retry_after: None, error_code: None, said, body: Vec::new() }
}

/// A reply that passes the provider's answer on.
fn of(answer: HttpAnswer, reply: Reply) -> Reply {
    let HttpAnswer { status, content_type, retry_after, body } = answer;
    Reply { http_status: Some(status), content_type, retry_after, body, ..reply }
}
