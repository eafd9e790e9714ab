//! The programs that `--mapping` names, read and compiled.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::config::{MappingArgs, ProgramSource, TopicArgs};
use crate::mapping::{Mapping, Mappings, preset};

/// Those of the settings, each with its topic.
///
/// # Errors
/// When one is of a topic that is not read, cannot be read itself, or does not compile: its file, line and column are named.
pub(super) fn load(args: &MappingArgs, topics: &TopicArgs) -> Result<Mappings> {
    args.check(topics)?;
    let each = args.mappings.iter().map(|source| {
        let mapping =
            program(&source.program).with_context(|| format!("the mapping of topic {:?}", source.topic))?;
        Ok((source.topic.clone(), mapping))
    });
    Ok(Mappings::of(each.collect::<Result<Vec<_>>>()?))
}

/// One program.
///
/// # Errors
/// When it cannot be read, or does not compile.
pub(super) fn program(source: &ProgramSource) -> Result<Mapping> {
    let (name, text) = match source {
        ProgramSource::File(file) => (file.display().to_string(), read(file)?),
        ProgramSource::Preset { name, id_template } => {
            (format!("preset:{name}"), preset(name, id_template.as_deref())?)
        }
    };
    Ok(Mapping::compile(&name, &text)?)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
