//! How the members of the group share its topics, and the way there from an earlier version.
//!
//! Up to 0.1 a worker was one member, subscribed to both topics. librdkafka's cooperative-sticky assignor balances the
//! sum of what members subscribe to, so one instance could get all the orders and another all the adjustments. Now a
//! worker is two members, one for each topic. Both kinds must not be in one group: where subscriptions overlap only in
//! part, the assignor of librdkafka 2.12 moves a partition there and back, loses the record of it, and ends the process
//! that leads the group by an assertion (`PartitionMovements_movePartition`). That process may be the old one, which
//! nobody can change any more.
//!
//! So a worker that finds members of the old kind joins as they do. When there are no older instances any more, all who
//! joined so leave, and join again in the new way once nobody of the old kind is left: a pause of some seconds, once
//! after an upgrade.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::causes;
use crate::config::{GroupArgs, GroupProtocol, KafkaArgs};
use crate::kafka;
use crate::kafka::asker::Asker;
use crate::kafka::consumer::{Role, client_id};

/// How often a worker that joined in the old way looks whether it still has to: one small request.
const LOOK: Duration = Duration::from_secs(5);
/// Longest wait of who joins until the group can be asked.
const ASK_LIMIT: Duration = Duration::from_secs(15);
/// Longest wait for others to leave too: each looks every [`LOOK`], finishes its batches and leaves. Past it one joins in
/// the old way again.
const OTHERS_LIMIT: Duration = Duration::from_secs(40);
/// How often to look whether they have.
const OTHERS_LOOK: Duration = Duration::from_millis(500);

/// How a worker joins the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Two members, one for each topic: each topic is shared evenly.
    EachTopic,
    /// One member for both, as up to 0.1: their sum is shared evenly.
    Together,
}

impl Sharing {
    /// What its members read.
    pub(super) fn roles(self) -> &'static [Role] {
        match self {
            Self::EachTopic => &[Role::Orders, Role::Adjustments],
            Self::Together => &[Role::Both],
        }
    }
}

/// A member of the group, as its client id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberKind {
    /// Of a version that knows nothing else.
    Older,
    Together,
    EachTopic,
}

impl MemberKind {
    fn of(client_id: &str) -> Self {
        let is = |role: Role| client_id.strip_suffix(role.name()).is_some_and(|rest| rest.ends_with('-'));
        if is(Role::Both) {
            Self::Together
        } else if is(Role::Orders) || is(Role::Adjustments) {
            Self::EachTopic
        } else {
            Self::Older
        }
    }
}

/// How one joins a group of these.
fn fitting(members: &[MemberKind]) -> Sharing {
    let has = |kind| members.contains(&kind);
    // Where the new kind is already, an older instance came after it: nothing helps but to stop that one.
    if !has(MemberKind::EachTopic) && (has(MemberKind::Older) || has(MemberKind::Together)) {
        Sharing::Together
    } else {
        Sharing::EachTopic
    }
}

/// Asks which members the group has.
#[derive(Clone)]
pub(super) struct GroupWatch {
    kafka: KafkaArgs,
    group: GroupArgs,
}

impl GroupWatch {
    /// Of this group.
    #[must_use]
    pub(super) fn new(kafka: &KafkaArgs, group: &GroupArgs) -> Self {
        Self { kafka: kafka.clone(), group: group.clone() }
    }

    /// How to join; `None` when stopped meanwhile. Waits, within bounds, while instances that joined in the old way leave
    /// for the new one.
    ///
    /// # Errors
    /// When the Kafka configuration is refused.
    pub(super) async fn sharing(&self, stop: &CancellationToken) -> Result<Option<Sharing>> {
        if self.group.group_protocol == GroupProtocol::Consumer {
            // The broker assigns, each topic for itself.
            return Ok(Some(Sharing::EachTopic));
        }
        let mut asker = self.asker()?;
        let begun = Instant::now();
        loop {
            let answer;
            (asker, answer) = ask(asker, &self.group.group).await?;
            match answer {
                Ok(members) if members.contains(&MemberKind::Older) || begun.elapsed() > OTHERS_LIMIT => {
                    return Ok(Some(fitting(&members)));
                }
                Ok(members) if fitting(&members) == Sharing::EachTopic => {
                    return Ok(Some(Sharing::EachTopic));
                }
                Err(error) if begun.elapsed() > ASK_LIMIT => {
                    tracing::warn!(
                        "cannot ask whether older instances are in the group; taking it that none are: {}",
                        causes::of(&error)
                    );
                    return Ok(Some(Sharing::EachTopic));
                }
                Ok(_) | Err(_) => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(OTHERS_LOOK)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// Comes back when the group has no older instances any more; never, should it have none of the old kind at all.
    ///
    /// # Errors
    /// When the Kafka configuration is refused.
    pub(super) async fn older_are_gone(&self) -> Result<()> {
        let mut asker = self.asker()?;
        loop {
            tokio::time::sleep(LOOK).await;
            let answer;
            (asker, answer) = ask(asker, &self.group.group).await?;
            if answer.is_ok_and(|members| !members.is_empty() && !members.contains(&MemberKind::Older)) {
                return Ok(());
            }
        }
    }

    fn asker(&self) -> Result<Asker> {
        Asker::new(&self.kafka, &client_id(&self.group, None), None)
    }
}

/// One question, on a thread that may block. Gives the client back.
async fn ask(asker: Asker, group: &str) -> Result<(Asker, Result<Vec<MemberKind>, kafka::Error>)> {
    let group = group.to_owned();
    spawn_blocking(move || {
        let members = asker.members(&group);
        let kinds = members.map(|ids| ids.iter().map(|id| MemberKind::of(id)).collect());
        (asker, kinds)
    })
    .await
    .context("asking for the group panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_group_is_joined_once_for_each_topic() {
        assert_eq!(fitting(&[]), Sharing::EachTopic);
    }

    #[test]
    fn who_finds_the_old_kind_joins_as_they_did_unless_the_new_kind_is_there() {
        let kinds = |ids: &[&str]| ids.iter().map(|id| MemberKind::of(id)).collect::<Vec<_>>();
        let (old, both) = ("stock-verifier-a", "stock-verifier-b-both");
        let new = ["stock-verifier-c-orders", "stock-verifier-c-adjustments"];
        assert_eq!(fitting(&kinds(&[old])), Sharing::Together);
        assert_eq!(fitting(&kinds(&[both])), Sharing::Together);
        assert_eq!(fitting(&kinds(&[old, both])), Sharing::Together);
        assert_eq!(fitting(&kinds(&new)), Sharing::EachTopic);
        assert_eq!(fitting(&kinds(&[old, new[0]])), Sharing::EachTopic);
    }
}
