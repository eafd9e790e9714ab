//! Partitions come and go: what the group says of it is reported, and done when the owner of the partitions has answered.
//!
//! librdkafka calls back from within a poll, on the polling thread, and the group waits until that returns. The thread
//! waits for the answer, and does what it is told meanwhile. It waits as long as the owner takes, or is there at all: the
//! owner's own waits have bounds, which together are well under `max.poll.interval.ms`. Past that the group goes on without
//! this member.

use rdkafka::TopicPartitionList;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};

use super::context::{Assigned, Context, Instruction, Notice, Revoked};
use super::member::Member;
use crate::kafka::error::Error;
use crate::kafka::offsets::partitions;
use crate::ledger::{NextOffset, TopicPartition};

impl Context {
    /// Does what it was told to do since the last call, outside of any rebalance.
    pub(super) fn serve(&self, member: Member<'_>) {
        let instructions = self.instructions();
        while let Ok(instruction) = instructions.try_recv() {
            // An answer to a report that nobody waits for any more is none.
            if let Instruction::Seek(to, answer) = instruction {
                let _ = answer.send(self.seek(member, &to));
            }
        }
    }

    /// Waits for the owner's answer to a report; `None` when there is no owner.
    fn answered(&self, member: Member<'_>, notice: Notice) -> Option<Instruction> {
        if !self.notify(notice) {
            return None;
        }
        let instructions = self.instructions();
        loop {
            match instructions.recv() {
                Ok(Instruction::Seek(to, answer)) => drop(answer.send(self.seek(member, &to))),
                answer => return answer.ok(),
            }
        }
    }

    fn seek(&self, member: Member<'_>, to: &[(TopicPartition, NextOffset)]) -> Result<u64, Error> {
        // Whatever comes of it: what was fetched before is not to be read any more.
        let done = member.seek(to).and_then(|()| self.read_only(member, to));
        let epoch = self.next_epoch();
        done.map(|()| epoch)
    }

    /// Reads these, and no other partition that it has.
    fn read_only(&self, member: Member<'_>, from: &[(TopicPartition, NextOffset)]) -> Result<(), Error> {
        let read: Vec<TopicPartition> = from.iter().map(|(at, _)| at.clone()).collect();
        member.pause(&member.assigned()?)?;
        member.resume(&read)?;
        *self.reading() = read;
        Ok(())
    }

    fn assign(
        &self,
        member: Member<'_>,
        partitions: &[TopicPartition],
        from: &[(TopicPartition, NextOffset)],
    ) -> Result<(), Error> {
        let offset = |at: &TopicPartition| from.iter().find(|(read, _)| read == at).map(|(_, from)| *from);
        let assign: Vec<_> = partitions.iter().map(|at| (at.clone(), offset(at))).collect();
        member.assign(&assign)?;
        // A pause survives a reassignment inside librdkafka, so say for each what it is to be.
        member.pause(partitions)?;
        let read: Vec<TopicPartition> = from.iter().map(|(at, _)| at.clone()).collect();
        member.resume(&read)?;
        self.reading().extend(read);
        Ok(())
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let (member, partitions, instruct) = (Member(consumer), partitions(list), self.instruct());
        let epoch = self.next_epoch();
        // Nobody waits for an answer any more only where the thread has ended, and its client with it.
        let done = if event == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.settle();
            let answer = move |from| drop(instruct.send(Instruction::Assign(from)));
            let from = match self
                .answered(member, Notice::Assigned(Assigned::new(partitions.clone(), epoch, answer)))
            {
                Some(Instruction::Assign(from)) => from,
                _ => Vec::new(),
            };
            self.assign(member, &partitions, &from)
        } else {
            let are_lost = consumer.assignment_lost();
            self.reading().retain(|at| !partitions.contains(at));
            let answer = move || drop(instruct.send(Instruction::Unassign));
            let _ =
                self.answered(member, Notice::Revoked(Revoked::new(partitions.clone(), are_lost, answer)));
            member.unassign(&partitions)
        };
        if let Err(error) = done {
            self.notify(Notice::NotDone(error));
        }
    }
}
