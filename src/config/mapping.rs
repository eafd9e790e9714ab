//! Which program reads which topic.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::topics::TopicArgs;

/// What reads records that are no commands as they are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mappings")]
pub struct MappingArgs {
    /// Make commands of a topic's records by a jq program: a file, or one that is built in (`mapping list`). With
    /// `?id={shop}-{id}` after a built-in one's name, orders of several shops have ids of their own. May be given once for
    /// each topic (in the environment: one a line)
    #[arg(long = "mapping", env = "STOCK_VERIFIER_MAPPING", value_name = "TOPIC=FILE.jq|TOPIC=preset:NAME",
          value_parser = parse_mapping, value_delimiter = '\n')]
    pub mappings: Vec<MappingSource>,
}

/// Where the mapping of a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSource {
    /// The topic's name.
    pub topic: String,
    /// The program.
    pub program: ProgramSource,
}

/// Where a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramSource {
    /// In a file.
    File(PathBuf),
    /// Built in.
    Preset {
        /// Its name.
        name: String,
        /// How ids are made: `{shop}-{id}`.
        id_template: Option<String>,
    },
}

fn parse_mapping(text: &str) -> Result<MappingSource, String> {
    let expected = "expected TOPIC=FILE.jq or TOPIC=preset:NAME";
    let (topic, program) = text.split_once('=').ok_or(expected)?;
    let (topic, program) = (topic.trim(), program.trim());
    if topic.is_empty() || program.is_empty() {
        return Err(expected.to_owned());
    }
    Ok(MappingSource { topic: topic.to_owned(), program: parse_program(program)? })
}

/// A program's place, without its topic.
pub(crate) fn parse_program(text: &str) -> Result<ProgramSource, String> {
    let Some(preset) = text.strip_prefix("preset:") else {
        return Ok(ProgramSource::File(PathBuf::from(text)));
    };
    let (name, id_template) = match preset.split_once('?') {
        None => (preset, None),
        Some((name, options)) => {
            let template =
                options.strip_prefix("id=").ok_or("after a built-in mapping's name comes ?id=TEMPLATE")?;
            (name, Some(template.to_owned()))
        }
    };
    Ok(ProgramSource::Preset { name: name.to_owned(), id_template })
}

impl MappingArgs {
    /// Refuses a mapping of a topic that is not read, and two of one.
    ///
    /// # Errors
    /// Names the topic.
    pub fn check(&self, topics: &TopicArgs) -> Result<()> {
        for (index, MappingSource { topic, .. }) in self.mappings.iter().enumerate() {
            if !topics.read().contains(&&**topic) {
                bail!(
                    "--mapping names topic {topic:?}, which is not read: {} are (--orders-topic, --adjustments-topic)",
                    topics.read().join(" and ")
                );
            }
            if self.mappings[..index].iter().any(|other| other.topic == *topic) {
                bail!(
                    "--mapping names topic {topic:?} twice: a topic has one mapping, which can tell its records apart"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_of_a_topic_and_a_file_or_a_built_in_one() {
        let parsed = parse_mapping(" orders = mappings/shop=1.jq").unwrap();
        assert_eq!(parsed.topic, "orders");
        assert_eq!(parsed.program, ProgramSource::File("mappings/shop=1.jq".into()));
        let preset = |id_template: Option<&str>| ProgramSource::Preset {
            name: "shopify".to_owned(),
            id_template: id_template.map(str::to_owned),
        };
        assert_eq!(parse_mapping("o=preset:shopify").unwrap().program, preset(None));
        assert_eq!(
            parse_mapping("o=preset:shopify?id={shop}-{id}").unwrap().program,
            preset(Some("{shop}-{id}"))
        );
        for wrong in ["orders", "=x.jq", "orders=", "o=preset:shopify?shop=1"] {
            assert!(parse_mapping(wrong).is_err(), "{wrong}");
        }
    }
}
