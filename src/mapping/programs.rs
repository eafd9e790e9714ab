//! Which program reads which record: the settings say it for what comes, the ledger for what was.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Mapping, NotCompiled};
use crate::ledger::{HeldProgram, NextOffset, Source, TopicPartition};

/// What the settings say: by which program each topic is read from now on. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Mappings(Arc<HashMap<String, Arc<Mapping>>>);

impl Mappings {
    /// These, each with its topic.
    #[must_use]
    pub fn of(each: impl IntoIterator<Item = (String, Mapping)>) -> Self {
        Self(Arc::new(each.into_iter().map(|(topic, mapping)| (topic, Arc::new(mapping))).collect()))
    }

    /// The one of a topic.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> Option<&Arc<Mapping>> {
        self.0.get(topic)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The programs of one partition, by where they begin.
type Past = Vec<(NextOffset, Option<Arc<Mapping>>)>;

/// Which program reads which record.
#[derive(Debug, Clone, Default)]
pub struct Programs(HashMap<TopicPartition, Past>);

impl Programs {
    /// Those that the ledger says were in force, sorted by partition and offset. Each text is compiled once.
    ///
    /// # Errors
    /// When one does not compile any more.
    pub fn of(held: &[HeldProgram]) -> Result<Self, NotCompiled> {
        let mut programs = Self::default();
        let mut compiled: HashMap<&str, Arc<Mapping>> = HashMap::new();
        for HeldProgram { at, from, program } in held {
            let mapping = match program.as_deref() {
                None => None,
                Some(text) => Some(if let Some(known) = compiled.get(text) {
                    Arc::clone(known)
                } else {
                    let name = format!("the mapping of {at} from offset {from} on");
                    let mapping = Arc::new(Mapping::compile(&name, text)?);
                    compiled.insert(text, Arc::clone(&mapping));
                    mapping
                }),
            };
            programs.hold(at, *from, mapping);
        }
        Ok(programs)
    }

    /// From this offset on, and up to the end, a partition's records are read by this one.
    pub fn hold(&mut self, at: &TopicPartition, from: NextOffset, mapping: Option<Arc<Mapping>>) {
        let past = self.0.entry(at.clone()).or_default();
        past.retain(|(begins, _)| *begins < from);
        past.push((from, mapping));
    }

    /// Puts this program in the place of the partition's last one, which begins there and has the same text.
    pub fn hold_last(&mut self, at: &TopicPartition, from: NextOffset, mapping: &Arc<Mapping>) {
        let last = self.0.get_mut(at).and_then(|past| past.last_mut());
        if let Some((_, Some(last))) = last.filter(|(begins, _)| *begins <= from) {
            *last = Arc::clone(mapping);
        }
    }

    /// The past of other partitions, and that of these anew.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The program that reads a partition's records from now on; `None` where they are read as they are.
    #[must_use]
    pub fn last(&self, at: &TopicPartition) -> Option<&Mapping> {
        self.0.get(at)?.last()?.1.as_deref()
    }

    /// Whether every record is read as it is.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The program that reads a record; `None` where it is read as it is.
    #[must_use]
    pub fn reading(&self, source: &Source) -> Option<&Mapping> {
        // Nearly everybody has none, and then nothing is looked up.
        if self.0.is_empty() {
            return None;
        }
        let past = self.0.get(&source.at)?;
        let next = past.partition_point(|(begins, _)| begins.0 <= source.offset.0);
        past.get(next.checked_sub(1)?)?.1.as_deref()
    }
}
