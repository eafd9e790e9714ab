//! `stock-verifier schema`: the published schemas, printed, written or checked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::console;
use crate::event::schema::{self, Document};
use crate::gate;
use crate::http::openapi;

/// Print the JSON Schema of an event, the document that joins them all (asyncapi), that of the read API (openapi), or that of a
/// gate (openapi-gate).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which document, as --list names them.
    #[arg(default_value = "asyncapi")]
    name: String,
    /// List the documents and their files.
    #[arg(long, conflicts_with_all = ["write", "check"])]
    list: bool,
    /// Print the list as JSON.
    #[arg(long, requires = "list")]
    json: bool,
    /// Write every document into this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    write: Option<PathBuf>,
    /// Compare the files in this directory with what would be written, and fail if any differs.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
}

/// Every document: those of the events, that of the read API, and that of a gate.
fn documents() -> Vec<Document> {
    let mut documents = schema::documents();
    let text = openapi::document().to_owned();
    documents.push(Document { name: "openapi", file: "openapi.json", text });
    let text = gate::openapi::document().to_owned();
    documents.push(Document { name: "openapi-gate", file: "openapi-gate.json", text });
    documents
}

/// Does what the arguments say.
///
/// # Errors
/// When there is no such document, a file cannot be read or written, or `--check` finds one that differs.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let documents = documents();
    if let Some(directory) = &args.write {
        return write(directory, &documents);
    }
    if let Some(directory) = &args.check {
        return check(directory, &documents);
    }
    if args.list && args.json {
        let listed: Vec<_> = documents
            .iter()
            .map(|document| serde_json::json!({"name": document.name, "file": document.file}))
            .collect();
        return console::print(&(serde_json::to_string_pretty(&listed)? + "\n"));
    }
    if args.list {
        let names: Vec<_> =
            documents.iter().map(|document| format!("{:<22} {}\n", document.name, document.file)).collect();
        return console::print(&names.concat());
    }
    let Some(document) = documents.iter().find(|document| document.name == args.name) else {
        let names: Vec<_> = documents.iter().map(|document| document.name).collect();
        bail!("there is no document {:?}; there are {}", args.name, names.join(", "));
    };
    console::print(&document.text)
}

fn write(directory: &Path, documents: &[Document]) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    for document in documents {
        let path = directory.join(document.file);
        fs::write(&path, &document.text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn check(directory: &Path, documents: &[Document]) -> anyhow::Result<()> {
    let mut drifted = BTreeSet::new();
    for document in documents {
        let path = directory.join(document.file);
        match fs::read_to_string(&path) {
            Ok(text) if text == document.text => {}
            Ok(_) => {
                drifted.insert(format!("{} differs", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                drifted.insert(format!("{} is missing", path.display()));
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    for path in stale(directory, documents)? {
        drifted.insert(format!("{} is made from no type", path.display()));
    }
    if drifted.is_empty() {
        return Ok(());
    }
    let drifted: Vec<_> = drifted.into_iter().collect();
    bail!(
        "the schemas are not those of this program: {}; `stock-verifier schema --write {}` makes them so",
        drifted.join(", "),
        directory.display(),
    )
}

/// Schema files that no document is written to.
fn stale(directory: &Path, documents: &[Document]) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("listing {}", directory.display()))?,
    };
    let mut stale = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("listing {}", directory.display()))?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".schema.json") && documents.iter().all(|document| document.file != name) {
            stale.push(directory.join(name.as_ref()));
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas"), &documents()).unwrap();
    }

    #[test]
    fn what_was_written_passes_the_check_and_every_drift_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let documents = documents();
        write(directory.path(), &documents).unwrap();
        check(directory.path(), &documents).unwrap();

        fs::write(directory.path().join("order.created.schema.json"), "{}").unwrap();
        fs::write(directory.path().join("order.lost.schema.json"), "{}").unwrap();
        fs::remove_file(directory.path().join("asyncapi.yaml")).unwrap();
        let drift = check(directory.path(), &documents).unwrap_err().to_string();
        for named in [
            "order.created.schema.json differs",
            "order.lost.schema.json is made",
            "asyncapi.yaml is missing",
        ] {
            assert!(drift.contains(named), "{named} not in {drift}");
        }
    }
}
