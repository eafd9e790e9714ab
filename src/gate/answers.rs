//! What scripts answer.

use redis::{FromRedisValue as _, Value};

use super::connection::CacheError;
use super::rule::{Admission, LineRefusal};
use crate::ledger::Sku;

/// What a script answers, part by part.
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn of(parts: Vec<Value>) -> Self {
        Self(parts.into_iter())
    }

    fn next(&mut self) -> Result<Value, CacheError> {
        self.0.next().ok_or_else(|| CacheError::Strange("an answer that is cut short".to_owned()))
    }

    pub(super) fn text(&mut self) -> Result<String, CacheError> {
        Ok(String::from_redis_value(self.next()?)?)
    }

    pub(super) fn number(&mut self) -> Result<i64, CacheError> {
        Ok(i64::from_redis_value(self.next()?)?)
    }

    fn sku(&mut self) -> Result<Sku, CacheError> {
        let text = self.text()?;
        Sku::new(&text).map_err(|_| CacheError::Strange(format!("the SKU {text:?}")))
    }

    fn is_set(&mut self) -> Result<bool, CacheError> {
        Ok(self.text()? == "1")
    }
}

/// What the script of admission answers.
pub(super) fn read_admission(answer: Vec<Value>) -> Result<Admission, CacheError> {
    let mut answer = Answer::of(answer);
    Ok(match &*answer.text()? {
        "empty" => Admission::Empty,
        "admitted" => {
            Admission::Admitted { undecided: answer.is_set()?, at: answer.number()?.max(0).unsigned_abs() }
        }
        "resend" => Admission::Resend { undecided: answer.is_set()? },
        "sending" => Admission::Sending,
        "sent" => Admission::Sent { undecided: answer.is_set()? },
        "decided" => Admission::Decided,
        "conflict" => Admission::Conflict,
        "short" => {
            let refusals: Vec<(usize, String, i64)> = Vec::from_redis_value(answer.next()?)?;
            let refusals = refusals.into_iter().map(|(line, kind, number)| match &*kind {
                "limit" => LineRefusal::OverLimit { line, limit: number },
                _ => LineRefusal::Short { line, available: number },
            });
            Admission::Short(refusals.collect())
        }
        "not_open" => Admission::NotOpen { sku: answer.sku()?, opens_at: answer.text()?.parse().ok() },
        "buyer_limit" => Admission::BuyerLimit { sku: answer.sku()?, left: answer.number()? },
        "buyer_missing" => Admission::BuyerMissing { sku: answer.sku()? },
        other => return Err(CacheError::Strange(other.to_owned())),
    })
}
