//! Who used the processors during a measurement: what tells which side is the bottleneck.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A process whose time is counted, with its children where it has some.
#[derive(Debug, Clone)]
pub struct Watched {
    pub name: &'static str,
    pub pid: u32,
}

/// Processor seconds so far, by name.
pub type Usage = BTreeMap<String, f64>;

/// Less is not worth showing, in seconds.
const LITTLE: f64 = 0.03;

/// Kernel clock ticks a second, as /proc counts: 100 on every Linux that Rust's std supports.
const TICKS: f64 = 100.0;

/// Processor seconds of each so far: a server's with its children's, this process' without.
pub fn usage(of: &[Watched]) -> Usage {
    let own = std::process::id();
    of.iter()
        .map(|Watched { name, pid }| {
            let seconds = if *pid == own { threads(own).values().sum() } else { tree(*pid) };
            ((*name).to_owned(), seconds)
        })
        .collect()
}

/// What was used between two looks; leaves out who did next to nothing.
pub fn between(before: &Usage, after: &Usage) -> Usage {
    after
        .iter()
        .map(|(name, seconds)| (name.clone(), seconds - before.get(name).copied().unwrap_or(0.0)))
        .filter(|(_, seconds)| *seconds >= LITTLE)
        .collect()
}

/// Processor seconds of each thread name of a process.
pub fn threads(pid: u32) -> Usage {
    let mut usage = Usage::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        if let Some((name, own, _)) = stat(&task.path().join("stat")) {
            *usage.entry(name).or_default() += own;
        }
    }
    usage
}

/// The most memory a process had resident, in MiB.
pub fn peak_memory_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

fn tree(pid: u32) -> f64 {
    let Some((_, own, ended_children)) = stat(&PathBuf::from(format!("/proc/{pid}/stat"))) else {
        return 0.0;
    };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let running: f64 = children.split_whitespace().filter_map(|child| child.parse().ok()).map(tree).sum();
    own + ended_children + running
}

/// Name, own seconds, and those of children that ended.
fn stat(path: &PathBuf) -> Option<(String, f64, f64)> {
    let text = fs::read_to_string(path).ok()?;
    // The name is in brackets and may hold anything.
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    // proc(5): 14 utime, 15 stime, 16 cutime, 17 cstime.
    let (own, ended) = (field(14)? + field(15)?, field(16)? + field(17)?);
    Some((name.to_owned(), own / TICKS, ended / TICKS))
}
