//! Where records come from, traced.

use super::Traces;
use crate::kafka::consumer::{Incoming, Notice};
use crate::pipeline::ports::RecordSource;

/// With `traces`, records are noted as they come; without, nothing is done.
pub(in crate::observe) struct TracedSource<S> {
    pub(in crate::observe) inner: S,
    pub(in crate::observe) traces: Option<Traces>,
}

impl<S: RecordSource> RecordSource for TracedSource<S> {
    type Member = S::Member;

    fn members(&self) -> Vec<Self::Member> {
        self.inner.members()
    }

    // Nothing is waited for after the wait within: one that is cut short loses nothing.
    async fn next(&mut self, records: bool) -> Incoming {
        let incoming = self.inner.next(records).await;
        if let Some(Traces { under_way, .. }) = &self.traces {
            match &incoming {
                Incoming::Records(records) => under_way.came(records),
                Incoming::Notice(_, Notice::Assigned(assigned)) => {
                    under_way.gone(&assigned.partitions, false);
                }
                Incoming::Notice(_, Notice::Revoked(revoked)) => {
                    under_way.gone(&revoked.partitions, !revoked.are_lost);
                }
                Incoming::Notice(..) | Incoming::Ended => {}
            }
        }
        incoming
    }

    async fn close(self) {
        self.inner.close().await;
    }
}
