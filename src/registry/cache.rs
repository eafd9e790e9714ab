//! The schemas that are known, as many as are bearable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Schema;
use crate::event::SchemaId;

/// Most schemas. A shop has some tens for its orders, with all versions; a registry's whole would be some megabytes.
const MOST: usize = 1_000;
/// How long an id counts as unknown. It may be registered in the meantime, which is then known to the records after it.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// What is known of an id.
#[derive(Clone)]
pub(super) enum Known {
    /// Its schema, which never changes.
    Schema(Arc<Schema>),
    /// The registry does not know it.
    Absent,
    /// It knows it, but not this, which it refers to.
    Incomplete(String),
}

#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_id: HashMap<SchemaId, Entry>,
    /// Grows with each look-up, so that it is known which entry was used last.
    looks: u64,
}

struct Entry {
    known: Known,
    since: Instant,
    used: u64,
}

impl Cache {
    pub(super) fn get(&self, id: SchemaId) -> Option<Known> {
        // Each change is whole: a panic elsewhere leaves nothing half done.
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.looks += 1;
        let looks = entries.looks;
        let entry = entries.by_id.get_mut(&id)?;
        if !matches!(entry.known, Known::Schema(_)) && entry.since.elapsed() > ABSENT_FOR {
            entries.by_id.remove(&id);
            return None;
        }
        entry.used = looks;
        Some(entry.known.clone())
    }

    pub(super) fn put(&self, id: SchemaId, known: Known) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_id.len() >= MOST
            && let Some(oldest) = entries.by_id.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id)
        {
            entries.by_id.remove(&oldest);
        }
        let used = entries.looks;
        entries.by_id.insert(id, Entry { known, since: Instant::now(), used });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_lately_makes_room() {
        let cache = Cache::default();
        let most = u32::try_from(MOST).unwrap();
        for id in 0..most {
            cache.put(SchemaId::Number(id), Known::Schema(Arc::new(Schema::Json)));
            assert!(cache.get(SchemaId::Number(id)).is_some());
        }
        assert!(cache.get(SchemaId::Number(0)).is_some());
        cache.put(SchemaId::Number(most), Known::Absent);
        assert!(matches!(cache.get(SchemaId::Number(most)), Some(Known::Absent)));
        assert!(cache.get(SchemaId::Number(0)).is_some());
        assert!(cache.get(SchemaId::Number(1)).is_none(), "used before all the others");
        assert!(cache.get(SchemaId::Number(2)).is_some());
    }
}
