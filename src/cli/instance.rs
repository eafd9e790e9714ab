//! Which instance this process is: what it is called where nobody says so, and whether another is called the same.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::causes;
use crate::config::{GroupArgs, KafkaArgs};
use crate::kafka::asker::Asker;
use crate::kafka::consumer::{Role, client_id};

/// Most processes of one group on one host that are told apart by themselves.
const MOST: usize = 64;

/// An instance's name that this process has for itself on this host. The system takes it back when the process ends,
/// however that is.
pub(super) struct Claim {
    _held: Option<File>,
}

/// Names the instance where nobody did: as the host, and with a number where others of its group run there. The first
/// that is free is taken; so a process that comes back alone has the name that it had.
pub(super) fn claim(group: &mut GroupArgs) -> Claim {
    if group.instance_id.is_some() {
        return Claim { _held: None };
    }
    let host = group.instance().to_owned();
    let (id, held) = first_free(&host, &group.group, &std::env::temp_dir());
    if held.is_none() {
        tracing::warn!(
            instance = id,
            "cannot tell which other processes of this group run on this host, since there can be no files in {}: where \
             there are any, give each its own --instance-id",
            std::env::temp_dir().display()
        );
    }
    group.instance_id = Some(id);
    Claim { _held: held }
}

/// The first name that nobody holds; without a file where none can be made.
fn first_free(host: &str, group: &str, directory: &Path) -> (String, Option<File>) {
    let group = &blake3::hash(group.as_bytes()).to_hex()[..16];
    for number in 1..=MOST {
        let id = if number == 1 { host.to_owned() } else { format!("{host}-{number}") };
        let file = directory.join(format!("stock-verifier-{group}-{number}.lock"));
        // Not read or written: what counts is who has it locked. One of another user's cannot be opened, and is taken.
        let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(file) else {
            continue;
        };
        match file.try_lock() {
            Ok(()) => return (id, Some(file)),
            Err(TryLockError::WouldBlock) => {}
            // No locks in this file system.
            Err(TryLockError::Error(_)) => break,
        }
    }
    (host.to_owned(), None)
}

/// Warns where the group has a member under this instance's name: this process is about to take over from it.
///
/// # Errors
/// When the Kafka configuration is refused.
pub(super) async fn warn_of_namesake(kafka: &KafkaArgs, group: &GroupArgs) -> Result<()> {
    let asker = Asker::new(kafka, "stock-verifier-instances", None)?;
    let (name, own) = (group.group.clone(), group.clone());
    let answer = spawn_blocking(move || asker.members(&name))
        .await
        .context("asking for the group's members panicked")?;
    let members = match answer {
        Ok(members) => members,
        // Whoever has the name finds out all the same: the one before is fenced, and says so.
        Err(error) => {
            tracing::debug!(
                "cannot ask whether another process has this instance's name: {}",
                causes::of(&error)
            );
            return Ok(());
        }
    };
    let names = [Role::Orders, Role::Adjustments, Role::Both].map(|role| client_id(&own, Some(role)));
    if members.iter().any(|member| names.contains(member)) {
        tracing::warn!(
            instance = own.instance(),
            "the group has a member of this instance's name, which this process takes over from. That is as it should be \
             after a crash. If another process runs under this name, it will end: give each its own --instance-id"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_on_one_host_have_names_of_their_own_and_keep_them_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let next = |group: &str| first_free("host", group, directory.path());
        let (first, second, third) = (next("g"), next("g"), next("g"));
        assert_eq!([&*first.0, &*second.0, &*third.0], ["host", "host-2", "host-3"]);
        assert_eq!(next("another").0, "host");
        // Ended, in whatever way: its file is closed.
        drop(second.1);
        let again = next("g");
        assert_eq!(again.0, "host-2");
        assert_eq!(next("g").0, "host-4");
        drop(first.1);
        assert_eq!(next("g").0, "host");
    }

    #[test]
    fn where_no_files_can_be_the_name_is_the_hosts() {
        let (id, held) = first_free("host", "g", Path::new("/nowhere/at/all"));
        assert!(id == "host" && held.is_none());
    }
}
